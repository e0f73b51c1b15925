"""The replay must not share code with what it tests."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "asof" / "upstream"


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_nothing_of_the_services_is_imported_and_of_shared_only_errors_and_clock():
    ours = {
        name for path in FOLDER.rglob("*.py") for name in imported(path) if name.split(".")[0] in ("services", "shared")
    }
    assert ours == {"shared.errors", "shared.clock"}


def test_the_wheel_of_the_data_is_never_imported():
    assert not any("fastquant" in name for path in FOLDER.rglob("*.py") for name in imported(path))
