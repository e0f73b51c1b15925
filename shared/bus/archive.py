"""Streams that people read (alerts, dead letters, results of commands) are kept on disk: one JSON line an entry.

The file is fsynced before the stream is trimmed, and its last line says how far it got, so nothing else has to be kept.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from shared.errors import IntegrityError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_COUNT = 500
_TAIL = 64 << 10


class Archive:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    async def take_all(self, redis: Redis, stream: str) -> tuple[int, int]:
        """Append every entry that is not there yet; the id up to which the stream is on disk."""
        assert self._file is not None
        position = self._last()
        while True:
            rows: Any = await redis.xrange(stream, min=f"({position}", count=_COUNT)
            if not rows:
                milliseconds, _, sequence = position.partition("-")
                return int(milliseconds), int(sequence)
            self._file.write(b"".join(_line(entry_id, fields) for entry_id, fields in rows))
            self._file.flush()
            os.fsync(self._file.fileno())
            position = rows[-1][0].decode()

    def _last(self) -> str:
        """The id on the last whole line; a line that a crash cut off is removed and written again."""
        assert self._file is not None
        size = self._file.seek(0, os.SEEK_END)
        tail = _TAIL
        while size:
            self._file.seek(max(0, size - tail))
            content = self._file.read(tail)
            end = content.rfind(b"\n") + 1
            start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
            if end and (start or size <= tail):
                self._file.truncate(size - len(content) + end)
                return self._id(content[start:end])
            if size <= tail:
                self._file.truncate(0)
                break
            tail *= 2
        return "0-0"

    def _id(self, line: bytes) -> str:
        try:
            return str(json.loads(line)["id"])
        except (ValueError, KeyError, TypeError) as fault:
            raise IntegrityError(f"{self._path} is no archive", cause=str(fault), fix="move the file away") from fault


def _line(entry_id: bytes, fields: Mapping[bytes, bytes]) -> bytes:
    texts = {
        name.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
        for name, value in fields.items()
    }
    return json.dumps({"id": entry_id.decode(), "fields": texts}, separators=(",", ":")).encode() + b"\n"
