"""A real Redis-compatible server for tests: on a unix socket below a temporary folder, and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asof.embedded import ServerBinary, find_servers

CHOSEN = "ASOF_TEST_SERVER"


def chosen_server() -> ServerBinary:
    """The one that set-up brings, the same on every machine, unless $ASOF_TEST_SERVER names another by its name."""
    name = os.environ.get(CHOSEN)
    return next(server for server in reversed(find_servers()) if name in (None, "", server.path.name))


class RedisServer:
    """Start, kill, pause and stop one server; its append-only file outlives a kill."""

    def __init__(self, folder: Path, *options: str, binary: ServerBinary | None = None) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self._options = options
        self._binary = binary or chosen_server()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: int = 0) -> str:
        return f"unix://{self.socket}?db={database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        options += ["--appendonly", "yes", "--maxmemory-policy", "noeviction", "--databases", "512"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary.path), *options, *self._options], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.002)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._process.terminate()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@contextmanager
def running_server(folder: Path, *options: str, binary: ServerBinary | None = None) -> Iterator[RedisServer]:
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, *options, binary=binary)
    server.start()
    try:
        yield server
    finally:
        server.stop()
