"""`shared` and `services` are common names: what is imported from anywhere has to be ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *(
        "demo",
        "doctor",
        "up",
        "run",
        "runs",
        "show",
        "get",
        "history",
        "features",
        "refresh",
        "retire",
        "rename",
        "audit",
        "waive",
    ),
    *("promote", "report", "upstream", "config"),
)


def imported(code: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_from_another_folder_the_packages_are_ours(tmp_path: Path):
    code = "import shared, services, asof; print(shared.__file__, services.__file__, asof.__file__)"
    assert imported(code, tmp_path).split() == [
        str(ROOT / name / "__init__.py") for name in ("shared", "services", "asof")
    ]


def test_importing_asof_loads_nothing_heavy(tmp_path: Path):
    code = (
        "import asof, sys; print([m for m in ('pandas', 'numba', 'faststream', 'redis', 'httpx') if m in sys.modules])"
    )
    assert imported(code, tmp_path) == "[]"


def test_help_loads_nothing_heavy_and_lists_only_commands_that_are_there(tmp_path: Path):
    code = (
        "import sys\nfrom asof.cli import run\nrun(['--help'])\n"
        "heavy = ('pandas', 'numba', 'faststream', 'redis', 'httpx', 'pydantic', 'rich')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    shown = imported(code, tmp_path)
    assert shown.endswith("[]")
    for command in COMMANDS:
        assert f"  {command} " in shown
