"""Durable files: a reader sees a whole old file or a whole new one, and what was acknowledged survives a power cut.

Durable means: the bytes are fsynced, and so is every folder whose list of names changed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHUNK = 1 << 20


def sha256_bytes(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_dir(path: Path) -> None:
    """Makes the names in a folder durable: creating, linking, renaming and removing are not until then."""
    sync_file(path)


def sync_file(path: Path) -> None:
    """Makes durable what others wrote to a file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_dirs(path: Path) -> None:
    """Creates a folder and its parents, durably. Does nothing when it exists."""
    if path.is_dir():
        return
    make_dirs(path.parent)
    path.mkdir(exist_ok=True)
    sync_dir(path.parent)


def write_new(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """A new file whose bytes are durable; its name is so only after `sync_dir` of its folder.

    Raises FileExistsError when the name is taken. A file that could not be written whole is removed.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        try:
            _write_all(handle, data)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Replaces `path` (or creates it) as one step. The folder must exist.

    `durable=False` skips every fsync: for hints that may be lost or torn by a power cut, never for data.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    write_new(aside, data, durable=durable)
    try:
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_dir(path.parent)


def create_if_absent(path: Path, aside: Path) -> None:
    """Gives the durable file `aside` the name `path`, only if nobody has that name: the compare-and-set of a commit.

    Raises FileExistsError when the name is taken. Not durable before `sync_dir(path.parent)`.
    """
    os.link(aside, path)


def _write_all(handle: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view[: 64 * _CHUNK]) :]
