"""How far decisions are known to be published: a number in a file. Losing it publishes again, which changes nothing."""

from __future__ import annotations

from pathlib import Path

from shared.files import make_dirs, write_atomic


class BookmarkFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0

    def write(self, n: int) -> None:
        make_dirs(self._path.parent)
        write_atomic(self._path, f"{n}\n".encode())
