"""Starting, joining, adopting and stopping the server of one house.

Every process that uses the server holds a shared lock on `users.lock`. Who comes first starts the server, who comes
later joins it, and who leaves last stops it. The lock of a killed process is dropped by the kernel, so a server whose
owner crashed is adopted by the next one, or stopped by its keeper (keeper.py) when nobody comes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

from asof.embedded import keeper
from asof.embedded.binary import find_server
from asof.embedded.place import Place, make_place
from shared.errors import TransientError
from shared.paths import Home

_READY_S = 10.0
_STOPPED_S = 10.0
_POLL_S = 0.002


@asynccontextmanager
async def embedded_redis(home: Home) -> AsyncIterator[str]:
    """The URL of a real server that belongs to `home`, for as long as the block runs.

    It listens on a unix socket in a 0700 folder, keeps an append-only file below `home.state` and refuses writes rather
    than evict. A SIGTERM ends the block as Ctrl-C would, so that the server is stopped then too.
    Raises NotFoundError when this machine has no server, TransientError when it does not come up.
    """
    place = make_place(home)
    children: list[subprocess.Popen[bytes]] = []
    with _opened(place.users) as users:
        await asyncio.to_thread(fcntl.flock, users, fcntl.LOCK_SH)
        try:
            with _ended_by_sigterm():
                children += await _ensure_running(place)
                yield place.url
        finally:
            if await asyncio.to_thread(_stop_if_last, place, users):
                await asyncio.to_thread(_reap, children)


async def _ensure_running(place: Place) -> list[subprocess.Popen[bytes]]:
    """The processes that had to be started; none when a live server was joined or adopted."""
    with _opened(place.starting) as starting:
        await asyncio.to_thread(fcntl.flock, starting, fcntl.LOCK_EX)
        return [] if await _answers(place) else await _start(place)


async def _start(place: Place) -> list[subprocess.Popen[bytes]]:
    server = await asyncio.to_thread(find_server, _last_binary(place))
    place.socket.unlink(missing_ok=True)
    with place.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  (fork and exec only; there is nothing to wait for)
            [str(server.path), *_options(place)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C reaches the whole group of the terminal; this one has to outlive its users' last words.
            start_new_session=True,
        )
    place.pid.write_text(f"{process.pid}\n", encoding="ascii")
    try:
        async with asyncio.timeout(_READY_S):
            while not await _answers(place):
                if process.poll() is not None:
                    raise _failed(place, f"it ended with code {process.returncode}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        process.kill()
        raise _failed(place, f"it did not answer within {_READY_S:.0f} s") from None
    except BaseException:
        process.kill()
        process.wait()
        raise
    place.binary.write_text(f"{server.path}\n", encoding="utf-8")
    watching = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-I", "-S", str(keeper.__file__), str(place.users), str(place.socket)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return [process, watching]


def _options(place: Place) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(place.socket),
        "unixsocketperm": "700",
        "dir": str(place.folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "databases": "1",
        "loglevel": "warning",
    }
    return [text for key, value in options.items() for text in (f"--{key}", value)]


async def _answers(place: Place) -> bool:
    """True when a server listens and has loaded its data."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(place.socket))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _stop_if_last(place: Place, users: IO[bytes]) -> bool:
    """Stop the server when no other process uses it; False when one does."""
    fcntl.flock(users, fcntl.LOCK_UN)
    while True:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            try:
                fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL_S)  # the keeper came first and is stopping it
                continue
            return False
    pid = _pid(place)
    keeper.shut_down(str(place.socket))
    if pid is not None:
        _await_end(pid)
    place.pid.unlink(missing_ok=True)
    place.socket.unlink(missing_ok=True)
    fcntl.flock(users, fcntl.LOCK_UN)
    return True


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + _STOPPED_S
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _reap(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.wait(_STOPPED_S)


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        # A child of ours stays a zombie until it is waited for.
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # the number belongs to somebody else's process by now
    return True


def _pid(place: Place) -> int | None:
    try:
        return int(place.pid.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def _last_binary(place: Place) -> Path | None:
    try:
        return Path(place.binary.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("ab") as file:
        yield file


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM cancels the task that runs the block, which then ends with the exit code of a terminated process."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    try:
        loop.add_signal_handler(signal.SIGTERM, terminate)
    except (ValueError, RuntimeError, NotImplementedError):
        yield  # not the main thread: whoever owns it decides what a signal means
        return
    try:
        yield
    except asyncio.CancelledError:
        if terminated:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _failed(place: Place, cause: str) -> TransientError:
    words = place.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    return TransientError(
        "the embedded Redis server did not start", cause="; ".join([cause, *words]), fix=f"read {place.log}"
    )
