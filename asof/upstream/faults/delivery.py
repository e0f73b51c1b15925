"""Faults in how an answer travels: cut, dripped, mislabelled, or a connection that dies. Some need the socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from math import ceil
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_STEP_S = 0.1
_MEGABYTE = b" " * 2**20


def delivered(
    name: str,
    body: bytes,
    *,
    request: HTTPConnection,
    status: int,
    headers: Mapping[str, str],
    kind: str,
    hold_s: float,
) -> Response | None:
    """The response that carries `body` the way the fault does, or None for a fault that lets it travel unharmed."""
    match name:
        case "truncated-json":
            return Response(body[: len(body) // 2], status, dict(headers), media_type=kind)
        case "wrong-content-type":
            return Response(body, status, dict(headers), media_type="image/png")
        case "slow-drip":
            return StreamingResponse(_drip(body, hold_s), status, dict(headers), media_type=kind)
        case "endless-drip":
            return StreamingResponse(_endless(hold_s), status, dict(headers), media_type=kind)
        case "huge-body":
            return StreamingResponse(_huge(body), status, dict(headers), media_type=kind)
        case "no-bytes":
            return _Silence(request, b"", hold_s)
        case "reset":
            return _Silence(request, b"", 0.0)
        case "wrong-length":
            lines = [f"HTTP/1.1 {status} OK", f"content-type: {kind}", f"content-length: {2 * len(body) + 1}"]
            lines += [f"{key}: {value}" for key, value in headers.items()]
            return _Silence(request, "\r\n".join([*lines, "", ""]).encode() + body, 0.0)
        case _:
            return None


def cut(request: HTTPConnection) -> None:
    """Reset the connection: what is not sent yet is lost, and the peer is told nothing but that it is over."""
    transport = _transport(request)
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Silence(Response):
    """Nothing, or bytes past the framework; then the connection ends, with a reset where nothing was said."""

    def __init__(self, request: HTTPConnection, raw: bytes, hold_s: float) -> None:
        super().__init__()
        self._request = request
        self._raw = raw
        self._hold_s = hold_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.create_task(_until_gone(receive))
        await asyncio.wait({leaving}, timeout=self._hold_s)
        if not leaving.done():
            if self._raw:
                _transport(self._request).write(self._raw)
                _transport(self._request).close()
            else:
                cut(self._request)
        await leaving


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drip(body: bytes, hold_s: float) -> AsyncIterator[bytes]:
    """The whole body, spread over `hold_s`: every read is in time, and the answer as a whole is not."""
    steps = max(1, int(hold_s / _STEP_S))
    size = ceil(len(body) / steps) or 1
    for start in range(0, len(body), size):
        await asyncio.sleep(hold_s / ceil(len(body) / size))
        yield body[start : start + size]


async def _endless(hold_s: float) -> AsyncIterator[bytes]:
    """Blanks for ten times `hold_s`: without an end as far as a client is concerned, and not for ever."""
    for _ in range(int(10 * hold_s / _STEP_S)):
        yield b" "
        await asyncio.sleep(_STEP_S)


async def _huge(body: bytes) -> AsyncIterator[bytes]:
    for _ in range(100):
        yield _MEGABYTE
    yield body


def _transport(request: HTTPConnection) -> Any:
    try:
        return request.scope["state"]["transport"]
    except KeyError as fault:
        raise RuntimeError("a fault of the connection needs a real one: use asof.upstream.serve") from fault
