"""Serving a replay: in a test or a demo as a context, or alone until it is stopped."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asof.upstream.app import create_app
from asof.upstream.control import is_loopback
from asof.upstream.folder import folder_source
from asof.upstream.pse import pse_source
from shared.errors import ContractError


@dataclass(frozen=True)
class UpstreamOptions:
    """`folder`: recorded payloads and bars, the PSE data when None. `cache_dir`: where parsed bars stay."""

    folder: Path | None = None
    now: datetime | None = None
    host: str = "127.0.0.1"
    port: int = 0
    latency_s: float = 0.0
    limits: bool = True
    faults: str | None = None
    seed: int = 0
    cache_dir: Path | None = None
    allow_any_host: bool = False


@asynccontextmanager
async def serve(
    app: Starlette, host: str = "127.0.0.1", port: int = 0, *, allow_any_host: bool = False
) -> AsyncIterator[str]:
    """Serve `app` in this event loop while the context is open; gives the base URL. Port 0 takes a free one.

    Raises ContractError for a host that is not loopback, unless that is allowed: a replay is for this machine.
    """
    with _listening(host, port, allow_any_host=allow_any_host) as (listener, base_url):
        server = _GuestServer(_config(app))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.ready.wait()
            yield base_url
        finally:
            server.should_exit = True
            await serving


def run(options: UpstreamOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then return. `on_ready` gets the base URL once requests are answered."""
    app = create_app(
        folder_source(options.folder) if options.folder is not None else pse_source(options.cache_dir),
        now=options.now,
        latency_s=options.latency_s,
        limits=options.limits,
        faults=options.faults,
        seed=options.seed,
    )
    with _listening(options.host, options.port, allow_any_host=options.allow_any_host) as (listener, base_url):
        server = _StandaloneServer(_config(app))

        async def announce() -> None:
            await server.ready.wait()
            on_ready(base_url)

        async def main() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(announce())
                tasks.create_task(server.serve(sockets=[listener]))

        asyncio.run(main())


class _Reachable(H11Protocol):
    """Gives the app its connection's socket, so that a fault can do to it what no framework would."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Socket(WebSocketsSansIOProtocol):
    """A refused handshake is a complete one; uvicorn forgets to say so where the refusal is an answer of the app's."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent


class _TellingServer(uvicorn.Server):
    """A server that says when it answers requests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()


class _StandaloneServer(_TellingServer):
    """A server that a signal ends as a matter of course, where uvicorn would raise the signal again afterwards."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        def stop() -> None:
            self.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


class _GuestServer(_TellingServer):
    """A server in somebody else's event loop: signals stay the host's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Reachable,
        ws=_Socket,
        loop="asyncio",
        lifespan="off",
        date_header=False,  # the served clock is the app's to tell
        server_header=False,
        access_log=False,
        log_config=None,
        ws_per_message_deflate=False,  # a run is 30 MB over loopback: compressing costs more than sending
        timeout_graceful_shutdown=1,
    )


@contextmanager
def _listening(host: str, port: int, *, allow_any_host: bool) -> Iterator[tuple[socket.socket, str]]:
    if not is_loopback(host) and not allow_any_host:
        raise ContractError(
            f"a replay does not listen on {host}",
            cause="it is reachable from other machines there",
            fix="use 127.0.0.1, or --allow-any-host in a container",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; without it every answer waits 40 ms for an ACK.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as fault:
            raise ContractError(
                f"cannot listen on {host}:{port}", cause=str(fault), fix="choose another --port; 0 takes a free one"
            ) from fault
        bound = listener.getsockname()
        shown = f"[{bound[0]}]" if family == socket.AF_INET6 else bound[0]
        yield listener, f"http://{shown}:{bound[1]}"
