"""A power cut at every step of a commit: afterwards the table is the old version or the new one, never another.

Killing a process loses nothing that the kernel has; a power cut does. So the calls to the operating system are
recorded, and after each of them what a disk may have kept is rebuilt and opened: bytes and names that were not
fsynced may be gone, all together or one without the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shared.errors import IntegrityError, PipelineError
from shared.tables import Changes, NewSegment, open_table


@dataclass
class Inode:
    is_dir: bool = False
    written: bytes = b""
    durable: bytes = b""


@dataclass
class Disk:
    """What the kernel shows (`names`) and what has reached the platter (`durable`), for everything below a folder."""

    top: Path
    names: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    handles: dict[int, str] = field(default_factory=dict)

    def adopt(self) -> None:
        """Takes what is there as durable."""
        for path in self.top.rglob("*"):
            data = b"" if path.is_dir() else path.read_bytes()
            self.names[str(path)] = Inode(path.is_dir(), data, data)
        self.durable = dict(self.names)

    def note(self, name: str, result: Any, *args: Any) -> None:
        if name == "open" and str(args[0]).startswith(str(self.top)):
            self.handles[result] = str(args[0])
            if args[1] & os.O_CREAT:
                self.names[str(args[0])] = Inode()
        elif name == "write" and args[0] in self.handles:
            self.names[self.handles[args[0]]].written += bytes(args[1])[:result]
        elif name == "fsync" and args[0] in self.handles:
            self._sync(self.handles[args[0]])
        elif name == "close":
            self.handles.pop(args[0], None)
        elif name == "mkdir":
            self.names[str(args[0])] = Inode(is_dir=True)
        elif name == "link":
            self.names[str(args[1])] = self.names[str(args[0])]
        elif name == "unlink":
            self.names.pop(str(args[0]), None)
        elif name in {"rename", "replace"}:
            self.names[str(args[1])] = self.names.pop(str(args[0]))

    def _sync(self, path: str) -> None:
        inode = self.names.get(path)
        if inode is not None and not inode.is_dir:
            inode.durable = inode.written
            return
        for name in {*self.names, *self.durable}:
            if str(Path(name).parent) == path:
                _let(self.durable, name, self.names.get(name))

    def possible(self) -> Iterator[dict[str, tuple[bool, bytes]]]:
        """What may be found after a power cut now."""
        unsynced = [name for name in {*self.names, *self.durable} if self.names.get(name) is not self.durable.get(name)]
        yield _image(self.durable, lambda inode: inode.durable)
        yield _image(self.names, lambda inode: inode.durable)
        yield _image(self.names, lambda inode: inode.durable or inode.written[: len(inode.written) // 2])
        yield _image(self.names, lambda inode: inode.written)
        for name in unsynced:
            names = dict(self.durable)
            _let(names, name, self.names.get(name))
            yield _image(names, lambda inode: inode.durable)
            yield _image(names, lambda inode: inode.written)


def _let(names: dict[str, Inode], name: str, inode: Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _image(names: dict[str, Inode], content: Callable[[Inode], bytes]) -> dict[str, tuple[bool, bytes]]:
    return {name: (inode.is_dir, content(inode)) for name, inode in names.items()}


def rebuild(image: dict[str, tuple[bool, bytes]], top: Path, to: Path) -> Path:
    to.mkdir()
    for name in sorted(image):
        is_dir, data = image[name]
        path = to / Path(name).relative_to(top)
        if not path.parent.is_dir():
            continue  # its folder's own name was lost
        if is_dir:
            path.mkdir()
        else:
            path.write_bytes(data)
    return to / "table"


def recorded(monkeypatch: pytest.MonkeyPatch, disk: Disk, after: Callable[[], None]) -> None:
    def patched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            if name in {"open", "write", "fsync", "close"} or str(args[0]).startswith(str(disk.top)):
                disk.note(name, result, *args)
                after()
            return result

        return call

    for name in ("open", "write", "fsync", "close", "link", "unlink", "rename", "replace", "mkdir"):
        monkeypatch.setattr(os, name, patched(name, getattr(os, name)))


def one_row(symbol: str) -> Changes:
    return Changes((NewSegment(pa.table({"symbol": [symbol]})),))


def contents(root: Path) -> tuple[int, list[str]]:
    table = open_table(root)
    broken = [violation for version in table.versions() for violation in table.verify(version)]
    if broken:
        raise IntegrityError(f"{broken}")
    snapshot = table.load()
    return snapshot.version, snapshot.read(columns=["symbol"])["symbol"].to_pylist()


def power_cuts(tmp_path: Path, versions: int, act: Callable[[Path], None]) -> tuple[list[Any], list[Any]]:
    """The contents found after a cut at each step of `act`, and after a cut once it had returned."""
    top = tmp_path / "disk"
    root = top / "table"
    top.mkdir()
    for version in range(versions):
        open_table(root).commit(version, one_row(f"S{version}"))
    disk = Disk(top)
    disk.adopt()
    images: list[dict[str, tuple[bool, bytes]]] = []
    with pytest.MonkeyPatch.context() as patch:
        recorded(patch, disk, lambda: images.extend(disk.possible()))
        act(root)
    acknowledged = list(disk.possible())
    different = list({repr(sorted(image.items())): image for image in images}.values())
    during = [found(image, top, tmp_path / f"d{n}") for n, image in enumerate(different)]
    after = [found(image, top, tmp_path / f"a{n}") for n, image in enumerate(acknowledged)]
    assert len(different) > 10
    return during, after


def found(image: dict[str, tuple[bool, bytes]], top: Path, to: Path) -> Any:
    root = rebuild(image, top, to)
    try:
        result = contents(root)
        assert open_table(root).commit(result[0], one_row("NEXT")) == result[0] + 1
        assert contents(root) == (result[0] + 1, [*result[1], "NEXT"])
    except PipelineError as fault:
        return fault
    return result


def old_rows(versions: int) -> list[str]:
    return [f"S{version}" for version in range(versions)]


@pytest.mark.parametrize("versions", [0, 16])
def test_a_power_cut_leaves_the_old_version_or_the_new_one(tmp_path: Path, versions: int) -> None:
    def act(root: Path) -> None:
        open_table(root).commit(versions, one_row("NEW"))

    during, after = power_cuts(tmp_path, versions, act)
    old, new = (versions, old_rows(versions)), (versions + 1, [*old_rows(versions), "NEW"])
    assert [each for each in during if each not in (old, new)] == []
    assert old in during
    assert [each for each in after if each != new] == [], "an acknowledged commit was lost"


def test_a_power_cut_during_a_collection_loses_no_row(tmp_path: Path) -> None:
    def act(root: Path) -> None:
        open_table(root).compact()
        open_table(root).collect(apply=True)

    during, after = power_cuts(tmp_path, 3, act)
    assert [each for each in [*during, *after] if isinstance(each, PipelineError) or each[1] != old_rows(3)] == []


@pytest.mark.parametrize("left_out", ["segment", "manifest", "folders"])
def test_the_check_notices_a_commit_that_leaves_an_fsync_out(tmp_path: Path, left_out: str) -> None:
    def act(root: Path) -> None:
        recording = os.fsync
        os.fsync = lambda handle: None if _skips(handle, left_out) else recording(handle)
        open_table(root).commit(2, one_row("NEW"))
        os.fsync = recording

    during, after = power_cuts(tmp_path, 2, act)
    old, new = (2, old_rows(2)), (3, [*old_rows(2), "NEW"])
    wrong = [each for each in during if each not in (old, new)] + [each for each in after if each != new]
    assert wrong


def _skips(handle: int, left_out: str) -> bool:
    name = Path(f"/proc/self/fd/{handle}").readlink().name
    kind = "segment" if name.endswith(".parquet") else "manifest" if name.endswith(".tmp") else "folders"
    return kind == left_out
