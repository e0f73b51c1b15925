"""Events on their way out, kept on disk until Redis has them.

Each process has a folder of its own, `<state>/outbox/<consumer>/`, and holds a lock in it. One publication is one file
that is written aside, published, and removed. Nothing is fsynced: a file has to survive its process, and what a power
cut takes is published again, because the input that caused it is acknowledged only together with its publication.
What a dead process left is published at the next start, or by a replica that notices.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from shared.bus.wire import DATA, TRACE
from shared.errors import IntegrityError

_LOCK = "lock"
# The last line of a whole file: what was being written when its process died has no acknowledged input.
_END = b"."


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One entry to add: the stream and its fields."""

    stream: str
    fields: dict[bytes, bytes]


class Outbox:
    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder / owner
        self._lock: BinaryIO | None = None
        self._count = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        self._lock = (self._folder / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        if not any(path.name != _LOCK for path in self._folder.iterdir()):
            _remove(self._folder)
        self._lock.close()

    def write(self, outgoing: Sequence[Outgoing]) -> Path:
        """Put one publication aside; `sent` takes the returned path."""
        self._count += 1
        path = self._folder / str(self._count)
        path.write_bytes(b"".join([*(_line(item) for item in outgoing), _END]))
        return path

    @staticmethod
    def sent(path: Path) -> None:
        path.unlink()


@contextmanager
def orphaned(folder: Path) -> Iterator[list[tuple[Path, list[Outgoing]]]]:
    """What dead processes left unsent, one publication after the other; the caller publishes and calls `Outbox.sent`.

    Their folders stay locked meanwhile, and are removed afterwards when they are empty.
    """
    locks: list[tuple[Path, BinaryIO]] = []
    try:
        for place in sorted(folder.iterdir()) if folder.is_dir() else []:
            try:
                lock: BinaryIO = (place / _LOCK).open("rb")
            except FileNotFoundError:
                continue  # made or removed at this moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()  # its process lives
                continue
            locks.append((place, lock))
        yield [left for place, _ in locks for left in _unsent(place)]
        for place, _ in locks:
            if not any(path.name != _LOCK for path in place.iterdir()):
                _remove(place)
    finally:
        for _, lock in locks:
            lock.close()


def _unsent(place: Path) -> Iterator[tuple[Path, list[Outgoing]]]:
    for path in sorted((path for path in place.iterdir() if path.name != _LOCK), key=lambda path: int(path.name)):
        *lines, last = path.read_bytes().split(b"\n")
        if last != _END:
            path.unlink()
            continue
        yield path, [_parse(path, line) for line in lines]


def _line(item: Outgoing) -> bytes:
    # JSON as pydantic writes it holds no raw newline or tab.
    return b"%s\t%s\t%s\n" % (item.stream.encode("ascii"), item.fields.get(TRACE, b""), item.fields[DATA])


def _parse(path: Path, line: bytes) -> Outgoing:
    try:
        stream, trace, data = line.split(b"\t")
    except ValueError as fault:
        raise IntegrityError(f"{path} is no outbox file", cause=str(fault), fix="move it away and report it") from fault
    return Outgoing(stream.decode("ascii"), {DATA: data, TRACE: trace} if trace else {DATA: data})


def _remove(place: Path) -> None:
    (place / _LOCK).unlink(missing_ok=True)
    place.rmdir()
