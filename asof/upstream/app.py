"""create_app: the only place where a replay is put together."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.routing import Route as HttpRoute

from asof.upstream import bars_socket, binance, bybit, control, okx, scanner
from asof.upstream.clock import ReplayClock
from asof.upstream.faults.plan import Faults, Plan
from asof.upstream.gate import Replay, endpoint
from asof.upstream.limits import Meter
from asof.upstream.record import Record
from asof.upstream.source import Source

_HEARING_S = 0.05


def create_app(
    source: Source,
    *,
    now: datetime | None,
    latency_s: float = 0.0,
    limits: bool = True,
    faults: Faults | str | None = None,
    seed: int = 0,
    heartbeat_s: float = bars_socket.HEARTBEAT_S,
    timer: Callable[[], float] = time.monotonic,
) -> Starlette:
    """An ASGI app that serves `source` as it was at `now` (None: follow the system's clock).

    `latency_s` is waited before each answer, `limits` enforces each venue's published pace. `faults` are names with
    commas between them (`seed` decides whom they meet), or a `Faults` that says more. `heartbeat_s` is between two
    heartbeats of the websocket. `app.state.replay` holds the clock, the meters and the record, for a test in the same
    process; over HTTP they are under `/_replay`.
    """
    clock = ReplayClock(now)
    venues = (scanner.venue(), binance.spot(), binance.usdm(), okx.venue(), bybit.venue())
    rules = {venue.name: venue.rule for venue in venues} | {bars_socket.VENUE: bars_socket.RULE}
    hearing_s = latency_s + _HEARING_S
    meters = {name: Meter(rule, timer=timer, wall=clock.seconds, hearing_s=hearing_s) for name, rule in rules.items()}
    for meter in meters.values():
        meter.enforced = limits
    plan = Plan(Faults.parse(faults, seed=seed) if isinstance(faults, str) else faults)
    replay = Replay(source, clock, Record(), meters, plan, latency_s, timer, timer())
    routes: list[BaseRoute] = [
        HttpRoute(venue.prefix + route.path, endpoint(replay, venue, route), methods=[route.method])
        for venue in venues
        for route in venue.routes
    ]
    socket = bars_socket.bars_socket(replay, heartbeat_s)
    routes += [WebSocketRoute(path, socket) for path in ("/scanner/ws", "/scanner/ws/socket.io/websocket")]
    routes += control.routes(replay)
    app = Starlette(routes=routes)
    app.state.replay = replay
    app.add_middleware(_Stamp, replay=replay)
    return app


def endpoints(base_url: str) -> dict[str, str]:
    """The address of each upstream under one replay, by the name of the fetcher's setting.

    `ASOF_FETCHER_` and the upper-cased name is the variable: `scanner_url` → `ASOF_FETCHER_SCANNER_URL`.
    """
    base = base_url.rstrip("/")
    parts = urlsplit(base)
    socket = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}"
    return {
        "scanner_url": f"{base}/scanner",
        "scanner_ws_url": f"{socket}/scanner/ws",
        "binance_url": f"{base}/binance",
        "binance_usdm_url": f"{base}/binance-usdm",
        "okx_url": f"{base}/okx",
        "bybit_url": f"{base}/bybit",
    }


_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]


class _Stamp:
    """Puts the served `Date` and the replay's mark on every HTTP answer, those of the framework included."""

    def __init__(self, app: Callable[..., Awaitable[None]], replay: Replay) -> None:
        self._app = app
        self._replay = replay

    async def __call__(self, scope: _Message, receive: Callable[..., Any], send: _Send) -> None:
        async def stamped(message: _Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message = {**message, "headers": [*message.get("headers", ()), *self._replay.raw_headers()]}
            await send(message)

        await self._app(scope, receive, stamped)
