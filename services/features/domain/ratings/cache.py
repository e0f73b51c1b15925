"""Where the compiled kernel is kept, so that code of other sources is never run.

numba keeps compiled code beside the file of the function it was asked to compile and looks at the stamp of that file
alone, while the kernel is made of every file of this package. So the folder's name is a hash of them all, of numba's
version and of LLVM's: whatever changes, another folder is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import llvmlite  # type: ignore[import-untyped]
import numba

PACKAGE: Final = Path(__file__).resolve().parent


def fingerprint(sources: Iterable[Path]) -> str:
    """A hash of the sources, by name and content, and of the compiler that they meet."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}\n".encode())
    for path in sorted(sources):
        body = path.read_bytes()
        digest.update(f"{path.name} {len(body)}\n".encode() + body)
    return digest.hexdigest()[:16]


def folder() -> Path | None:
    """The first of NUMBA_CACHE_DIR, the package's own `__pycache__` and the user's cache that can be written.

    It begins with what the package's own has: an image is built with a kernel where no container may write.
    """
    try:
        name = f"ratings-{fingerprint(PACKAGE.glob('*.py'))}"
    except OSError:
        return None  # installed without sources, from a zip: nothing to compare with
    given = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "asof"
    for place in [Path(given)] if given else [PACKAGE / "__pycache__", user]:
        if _writable(place / name):
            _begin(place / name, PACKAGE / "__pycache__" / name)
            return place / name
    return None


def _begin(place: Path, own: Path) -> None:
    """Copy `own` to `place`, at once or not at all, if there is nothing yet."""
    try:
        if own.is_dir() and not any(place.iterdir()):
            with tempfile.TemporaryDirectory(dir=place.parent) as aside:
                shutil.copytree(own, Path(aside) / "copy")
                (Path(aside) / "copy").replace(place)
    except OSError:
        pass  # another process was faster, or there is no room: then it is compiled


def _writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


@contextmanager
def kept_in(place: Path) -> Iterator[None]:
    """While it lasts, numba binds the functions that it decorates to `place`."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(place)
    try:
        yield
    finally:
        config.CACHE_DIR = before
