"""Tags: names of versions, one small file each in <root>/tags, the same for every backend."""

from __future__ import annotations

import re
from pathlib import Path

from shared import files
from shared.errors import ContractError, IntegrityError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def write(root: Path, name: str, version: int) -> None:
    """Moves or creates a tag, as one durable step."""
    if not _NAME.fullmatch(name):
        raise ContractError(f"{name!r} is no name for a tag", cause="letters, digits, . _ - only", fix="rename it")
    files.make_dirs(root / "tags")
    files.write_atomic(root / "tags" / name, f"{version}\n".encode())


def read(root: Path) -> dict[str, int]:
    folder = root / "tags"
    if not folder.is_dir():
        return {}
    return {path.name: _version(path) for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name)}


def _version(path: Path) -> int:
    text = path.read_bytes()
    if not text.removesuffix(b"\n").isdigit():
        raise IntegrityError(
            f"tag {path} is torn or was changed", cause=f"it says {text[:40]!r}", fix="tag the version again"
        )
    return int(text)
