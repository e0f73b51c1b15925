"""Where the embedded server keeps its files: data and locks in the home, the socket where its path is short enough."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UnsafePathError
from shared.paths import Home

# sun_path holds 108 bytes on Linux and 104 elsewhere, its closing zero included.
_LONGEST_SOCKET = 100


@dataclass(frozen=True, slots=True)
class Place:
    folder: Path
    socket: Path

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def users(self) -> Path:
        """Held shared by every process that uses the server; exclusive means that nobody does."""
        return self.folder / "users.lock"

    @property
    def starting(self) -> Path:
        """Held exclusively while one process looks for a live server and starts one when there is none."""
        return self.folder / "starting.lock"

    @property
    def pid(self) -> Path:
        return self.folder / "server.pid"

    @property
    def binary(self) -> Path:
        """Holds the path of the server that wrote this folder's data."""
        return self.folder / "server.path"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"


def make_place(home: Home) -> Place:
    """Create the folders, open to this user alone. Raises UnsafePathError when one belongs to somebody else."""
    folder = home.state / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder)
    socket = folder / "redis.sock"
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        beside = runtime / f"asof-{os.getuid()}-{short}"
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        _claim(beside)
        socket = beside / "redis.sock"
    return Place(folder, socket)


def _claim(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UnsafePathError(
            f"{folder} is not a folder of this user", cause="somebody else made it", fix="remove it, or set ASOF_HOME"
        )
    folder.chmod(0o700)
