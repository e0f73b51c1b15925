"""Locks between threads and processes: a file is locked while it is held open, so a killed holder frees it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.files import make_dirs


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock of `path` and hold it. The file stays; removing it would let two hold it."""
    make_dirs(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
