"""TradingView's websocket: bars of what no exchange API serves, one series after another on each of few connections.

A series is complete at `series_completed` and at nothing else; until then whatever came is not used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from services.fetcher.adapters.frames import HEARTBEAT, call, frame, is_about, read_frames, series_rows, words
from services.fetcher.adapters.http import host_of, observed_clock, status_fault
from services.fetcher.adapters.text import read_json, safe_text
from services.fetcher.domain.faults import (
    BadRequest,
    Garbled,
    NoBars,
    ServerFault,
    TimedOut,
    UnknownSymbol,
    Unreachable,
    Unsupported,
    Untrusted,
    UpstreamError,
    UpstreamTrouble,
)
from services.fetcher.domain.series import make_rows
from services.fetcher.domain.sessions import bars_since
from services.fetcher.ports import BarsSent, BarsSink, BarsWanted, Pace
from shared.clock import Clock

RESOLUTIONS = {
    "1m": "1", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120", "4h": "240", "1d": "1D", "1w": "1W",
}  # fmt: skip
ANONYMOUS = "unauthorized_user_token"
_CHART = "cs_asof"
_MAX_RECONNECTS = 3
_FULL = 5000  # bars of one answer, for someone without a plan


@dataclass(frozen=True, slots=True)
class SocketCaps:
    """Bounds of one connection: seconds to open, of silence, for a whole series; bytes a message; bars a series."""

    open_s: float = 5.0
    silence_s: float = 10.0
    series_s: float = 60.0
    message_bytes: int = 16 * 2**20
    bars: int = 20_000
    history: int = 10_000  # bars asked for when nothing is stored
    overlap: int = 10  # stored bars asked for again, so that a revision is seen
    connections: int = 5


class _Connect(connect):
    """Follows no redirect: another host would be contacted without pace."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class ScannerBars:
    name = "scanner-ws"

    def __init__(
        self, url: str, pace: Pace, clock: Clock, caps: SocketCaps, *, origin: str | None, token: str | None = None
    ) -> None:
        self._url = url
        self._pace = pace
        self._clock = clock
        self._caps = caps
        self._origin = origin
        self._token = token or ANONYMOUS
        self.host = host_of(url)

    async def fetch(self, wanted: Sequence[BarsWanted], sink: BarsSink, *, workers: int) -> None:
        """Share `wanted` among up to `workers` connections; a connection that breaks costs its current symbol alone."""
        waiting = deque(wanted)
        remaining = len(waiting)
        drained = asyncio.Event()
        faults: list[UpstreamError] = []

        async def deliver(symbol: str, outcome: BarsSent | UpstreamError) -> None:
            nonlocal remaining
            await sink(symbol, outcome)
            remaining -= 1
            if remaining == 0:
                drained.set()

        async def work() -> None:
            for _ in range(_MAX_RECONNECTS + 1):
                if not waiting:
                    return
                opened, fault = await self._serve(waiting, deliver)
                if fault is not None:
                    faults.append(fault)
                if not opened:
                    return  # whether to try again is the next attempt's to say

        count = max(1, min(workers, self._caps.connections, len(waiting)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(count)]
            all_done = asyncio.ensure_future(drained.wait())
            # A worker still waiting for its turn to connect is not needed once every symbol has its outcome.
            working: set[asyncio.Future[Any]] = set(tasks)
            while working and not all_done.done():
                _, working = await asyncio.wait({*working, all_done}, return_when=asyncio.FIRST_COMPLETED)
                working.discard(all_done)
            all_done.cancel()
            for task in tasks:
                task.cancel()
        for want in waiting:
            await sink(want.symbol, faults[-1] if faults else Unreachable("no connection", host=self.host))

    async def _serve(self, waiting: deque[BarsWanted], deliver: BarsSink) -> tuple[bool, UpstreamError | None]:
        """Serve symbols on one connection until none is left. Gives whether it opened, and the fault that ended it."""
        try:
            turn = await self._pace.acquire(self.name)
        except UpstreamError as fault:
            return False, fault
        ended: UpstreamError | None = None
        opened, served = False, 0
        try:
            async with _Connection(self._url, self._origin, self._token, self._caps, self._clock, self.host) as link:
                opened = True
                while waiting and ended is None:
                    want = waiting.popleft()
                    try:
                        outcome: BarsSent | UpstreamError = await link.series(want)
                    except UpstreamTrouble as fault:
                        # The stream of frames may be out of step now; only a new connection is known to be sound.
                        outcome = ended = fault
                    except UpstreamError as fault:
                        outcome = fault
                    if ended is None:
                        served += 1
                        # A probe that serves well lets the others in now, not when its last symbol is through.
                        await self._pace.served(turn)
                    await deliver(want.symbol, outcome)
        except UpstreamError as fault:
            ended = fault
        finally:
            # A connection that served well before it broke is no sign that the host is not well.
            await self._pace.release(turn, None if served else ended)
        return opened, ended


class _Connection:
    """One open socket with its chart session; `series` is called for one symbol at a time."""

    def __init__(self, url: str, origin: str | None, token: str, caps: SocketCaps, clock: Clock, host: str) -> None:
        self._url, self._origin, self._token = url, origin, token
        self._caps, self._clock, self._host = caps, clock, host
        self._count = 0
        self._socket: ClientConnection
        self._pending: Iterator[str] = iter(())

    async def __aenter__(self) -> Self:
        try:
            self._socket = await _Connect(
                self._url,
                origin=self._origin,  # type: ignore[arg-type]  # websockets' Origin is a NewType of str
                compression=None,
                user_agent_header="asof",
                open_timeout=self._caps.open_s,
                close_timeout=1,
                ping_interval=None,  # the protocol has heartbeats of its own
                max_size=self._caps.message_bytes,
                proxy=None,
            )
        except InvalidStatus as fault:
            answer = fault.response
            raise status_fault(answer.status_code, answer.headers, host=self._host, now=self._clock()) from fault
        except TimeoutError as fault:
            raise TimedOut(f"no connection within {self._caps.open_s:g} s", host=self._host) from fault
        except (OSError, InvalidHandshake, WebSocketException) as fault:
            raise Unreachable(
                f"no connection to {self._host}", host=self._host, cause=str(fault)[:300], fix="asof doctor"
            ) from fault
        headers = self._socket.response.headers if self._socket.response is not None else {}
        self._observed_at = observed_clock(headers, self._host, self._clock)
        await self._send(call("set_auth_token", self._token), call("chart_create_session", _CHART, ""))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()

    async def series(self, want: BarsWanted) -> BarsSent:
        """The bars of one symbol. Raises an UpstreamError; a transient one leaves the connection unusable."""
        resolution = RESOLUTIONS.get(want.interval)
        if resolution is None:
            raise Unsupported(
                f"the scanner serves no {want.interval} bars", symbol=want.symbol, host=self._host,
                fix=f"use one of {', '.join(RESOLUTIONS)}",
            )  # fmt: skip
        self._count += 1
        name, series, turn = f"sds_sym_{self._count}", f"sds_{self._count}", f"s{self._count}"
        count = self._caps.history
        if want.since is not None:
            count = bars_since(want.since, max(self._observed_at, want.since), want.interval, self._caps.overlap)
        try:
            async with asyncio.timeout(self._caps.series_s):
                await self._send(
                    call("resolve_symbol", _CHART, name, f'={{"symbol":"{want.symbol}"}}'),
                    call("create_series", _CHART, series, turn, name, resolution, min(count, self._caps.bars)),
                )
                return await self._whole(want, name, series)
        except UpstreamError as fault:
            fault.host, fault.symbol = fault.host or self._host, fault.symbol or want.symbol
            raise
        except TimeoutError as fault:
            raise TimedOut(
                f"the series was not complete within {self._caps.series_s:g} s", symbol=want.symbol, host=self._host
            ) from fault

    async def _whole(self, want: BarsWanted, name: str, series: str) -> BarsSent:
        """The series, with the older bars that one answer does not hold when all there is was asked for."""
        sent = await self._collect(want.symbol, name, series)
        rows, page = sent.rows, len(sent.rows)
        while want.since is None and page >= _FULL and len(rows) < self._caps.bars:
            await self._send(call("request_more_data", _CHART, series, _FULL))
            older = (await self._collect(want.symbol, name, series)).rows
            page = len(older)
            rows = np.concatenate([older, rows])
        await self._send(call("remove_series", _CHART, series))
        if len(rows) == 0:
            raise NoBars("the upstream knows the symbol and has no bar of it", symbol=want.symbol, host=self._host)
        return replace(sent, rows=rows)

    async def _collect(self, symbol: str, name: str, series: str) -> BarsSent:
        """What comes until `series_completed`."""
        rows: list[Any] = []
        timezone = session = None
        where: dict[str, Any] = {"symbol": symbol, "host": self._host}
        while True:
            method, params = await self._next()
            if method == "timescale_update" and len(params) > 1 and isinstance(params[1], dict):
                rows.extend(series_rows(params[1].get(series), symbol, self._host))
                if len(rows) > self._caps.bars:
                    raise Untrusted(f"more than {self._caps.bars:,} bars in one series", **where)
            elif method == "symbol_resolved" and is_about(params, name):
                described = params[2] if len(params) > 2 and isinstance(params[2], dict) else {}
                timezone = safe_text(described.get("timezone"), "timezone", **where)
                session = safe_text(described.get("session"), "session", **where)
            elif method == "symbol_error" and is_about(params, name):
                raise UnknownSymbol(f"the chart does not know it: {self._said(params[2:])}", **where)
            elif method == "series_error" and is_about(params, series):
                raise BadRequest(f"the series failed: {self._said(params[2:])}", **where)
            elif method in {"critical_error", "protocol_error"}:
                raise ServerFault(f"{method}: {self._said(params)}", **where)
            elif method == "series_completed" and is_about(params, series):
                return BarsSent(make_rows(rows), self._host, self._observed_at, timezone, session)

    async def _next(self) -> tuple[str, list[Any]]:
        """The next call the upstream makes; heartbeats are answered on the way."""
        while True:
            for payload in self._pending:
                if payload.startswith(HEARTBEAT):
                    await self._send(frame(payload))
                    continue
                try:
                    data = read_json(payload)
                except ValueError as fault:
                    raise Garbled("a frame is no JSON", host=self._host, cause=str(fault)[:300]) from fault
                if isinstance(data, dict) and isinstance(data.get("m"), str) and isinstance(data.get("p"), list):
                    return data["m"], data["p"]
            try:
                async with asyncio.timeout(self._caps.silence_s):
                    message = await self._socket.recv(decode=True)
            except TimeoutError as fault:
                raise TimedOut(f"silent for {self._caps.silence_s:g} s", host=self._host) from fault
            except ConnectionClosed as fault:
                raise Unreachable("the connection was closed half-way", host=self._host, cause=str(fault)) from fault
            self._pending = read_frames(message)

    def _said(self, params: list[Any]) -> str:
        # An upstream may quote what it was sent; whose session this is stays out of events and logs.
        return words([str(part).replace(self._token, "…") for part in params])

    async def _send(self, *frames: str) -> None:
        try:
            for text in frames:
                await self._socket.send(text)
        except ConnectionClosed as fault:
            raise Unreachable("the connection was closed half-way", host=self._host, cause=str(fault)) from fault
