"""A file of JSON lines that several processes append to: durable, read on from where one left off.

Every call is made with the file's lock held. A last line without its end was being written when its writer died;
nobody was told of it, so it is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.errors import IntegrityError
from shared.files import make_dirs, sync_dir


class LineFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, durably."""
        data = b"".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines)
        is_new = not self._path.exists()
        if is_new:
            make_dirs(self._path.parent)
        append_bytes(self._path, data)
        if is_new:
            sync_dir(self._path.parent)
        self._offset += len(data)

    def unread(self) -> list[Mapping[str, Any]]:
        """The lines that were appended since the last call. Raises IntegrityError for one that is no JSON object."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size == self._offset:
            return []
        if size < self._offset:
            raise self._fault(f"{self._offset - size:,} bytes of it are gone")
        with self._path.open("r+b") as file:
            file.seek(self._offset)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(self._offset + whole)
                os.fsync(file.fileno())
        lines = [self._parsed(line) for line in data[:whole].split(b"\n")[:-1]]
        self._offset += whole
        return lines

    def _parsed(self, line: bytes) -> Mapping[str, Any]:
        try:
            fields = json.loads(line)
        except ValueError as fault:
            raise self._fault(f"{fault}: {line[:80]!r}") from fault
        if not isinstance(fields, dict):
            raise self._fault(f"a line is no object: {line[:80]!r}")
        return fields

    def _fault(self, cause: str) -> IntegrityError:
        return IntegrityError(
            f"{self._path.name} in {self._path.parent.name} was changed by somebody else",
            cause=cause,
            fix="restore it from a backup, or put it aside and start anew",
        )


def append_bytes(path: Path, data: bytes) -> None:
    """Append and fsync. The caller makes the folder, and a new file's name, durable."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
