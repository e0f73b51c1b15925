"""TradingView's chart websocket: the bars of what no exchange API serves.

A client sets a token, opens a chart session, resolves a symbol and creates a series of it. The bars come in one or
several `timescale_update`s, and the series is complete at `series_completed`, at nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from asof.upstream.faults.changes import spoiled_bars, spoiled_rows
from asof.upstream.faults.delivery import cut
from asof.upstream.frames import BrokenFrame, command, frame, heartbeat, is_heartbeat, unframe
from asof.upstream.gate import Replay
from asof.upstream.limits import Rule
from asof.upstream.source import Bar, Instrument

VENUE = "scanner-ws"
# Above about seven connections the handshake has been seen to be refused; how often one may connect is not known.
RULE = Rule(allowance=600, window_s=60, at_once=7, names_the_wait=False)
ROWS_A_FRAME = 1000
MOST_BARS = 5000  # what a series holds for someone without a plan; older ones are asked for with request_more_data
HEARTBEAT_S = 10.0
_INTERVALS = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "D": "1d", "1D": "1d", "W": "1w", "1W": "1w"}
# Sent by charts, of no consequence here.
_IGNORED = frozenset(
    """
    set_auth_token set_locale switch_timezone set_data_quality quote_create_session quote_set_fields quote_add_symbols
    quote_fast_symbols quote_remove_symbols quote_delete_session quote_hibernate_all create_study remove_study
    """.split()  # noqa: SIM905  (words read better than a list of forty quoted ones)
)


def bars_socket(replay: Replay, heartbeat_s: float) -> Callable[[WebSocket], Awaitable[None]]:
    meter = replay.meters[VENUE]

    async def handle(socket: WebSocket) -> None:
        began, path = replay.timer(), socket.url.path
        over = meter.enter("connect", 1)
        fault = replay.plan.choose(VENUE, "connect", path) if over is None else None
        await asyncio.sleep(replay.latency_s)
        if over is not None or fault is not None:
            if over is None:
                meter.leave()
            refused, name = (over.reason if over else None), (fault.name if fault else None)
            replay.log(VENUE, "connect", began=began, path=path, status=429, refused=refused, fault=name)
            await socket.send_denial_response(Response("Too Many Requests", status_code=429))
            return
        try:
            await socket.accept(headers=replay.raw_headers())
            replay.log(VENUE, "connect", began=began, path=path, status=101)
            await _Conversation(replay, socket, path).run(heartbeat_s)
        finally:
            meter.leave()

    return handle


@dataclass
class _Chart:
    """One chart session: what its symbol ids resolved to, and what its series ids hold."""

    symbols: dict[str, Instrument | None]
    series: dict[str, _Loaded]


@dataclass
class _Loaded:
    """A series on a chart: its bars by the clock it was created at, and the index of the oldest one sent."""

    bars: list[Bar]
    first: int
    span_s: int
    key: str


class _Conversation:
    def __init__(self, replay: Replay, socket: WebSocket, path: str) -> None:
        self._replay = replay
        self._socket = socket
        self._path = path
        self._charts: dict[str, _Chart] = {}
        self._unanswered = 0
        self._answers: dict[str, Callable[[list[Any]], Awaitable[None]]] = {
            "chart_create_session": self._create_chart,
            "chart_delete_session": self._delete_chart,
            "resolve_symbol": self._resolve,
            "create_series": self._create_series,
            "modify_series": self._create_series,
            "request_more_data": self._more,
            "remove_series": self._remove_series,
        }

    async def run(self, heartbeat_s: float) -> None:
        beating = asyncio.create_task(self._beat(heartbeat_s))
        try:
            await self._send(frame(json.dumps(self._hello())))
            while True:
                for text in unframe(await self._socket.receive_text()):
                    await self._take(text)
        except BrokenFrame as fault:
            await self._send(command("protocol_error", str(fault)))
            await self._socket.close()
        except WebSocketDisconnect:
            pass  # the client left, which is how every conversation ends
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    async def _take(self, text: str) -> None:
        if is_heartbeat(text):
            self._unanswered = 0
            return
        try:
            message = json.loads(text)
            method, parameters = message["m"], message["p"]
        except (ValueError, KeyError, TypeError) as fault:
            raise BrokenFrame(f"no message: {fault}") from fault
        if method in _IGNORED:
            return
        if method not in self._answers:
            await self._refuse(parameters, "invalid_method", str(method))
            return
        try:
            await self._answers[method](parameters)
        except (KeyError, IndexError, ValueError, TypeError) as fault:
            await self._refuse(parameters, "invalid_parameters", f"{method}: {fault}")

    async def _refuse(self, parameters: Any, reason: str, detail: str) -> None:
        chart = parameters[0] if isinstance(parameters, list) and parameters else ""
        await self._send(command("critical_error", chart, reason, detail))

    async def _create_chart(self, parameters: list[Any]) -> None:
        self._charts[parameters[0]] = _Chart({}, {})

    async def _delete_chart(self, parameters: list[Any]) -> None:
        del self._charts[parameters[0]]

    async def _remove_series(self, parameters: list[Any]) -> None:
        del self._charts[parameters[0]].series[parameters[1]]

    async def _resolve(self, parameters: list[Any]) -> None:
        chart, symbol_id, asked = parameters[:3]
        symbol = json.loads(asked[1:])["symbol"] if asked.startswith("=") else asked
        found = self._replay.view().instrument(symbol)
        self._charts[chart].symbols[symbol_id] = found
        if found is None:
            self._log("symbol", symbol, status=404)
            await self._send(command("symbol_error", chart, symbol_id, "invalid symbol"))
        else:
            await self._send(command("symbol_resolved", chart, symbol_id, _resolved(found)))

    async def _create_series(self, parameters: list[Any]) -> None:
        began = self._replay.timer()
        chart, series_id, key, symbol_id, resolution, count = parameters[:6]
        period = parameters[6] if len(parameters) > 6 else ""
        instrument = self._charts[chart].symbols[symbol_id]
        await asyncio.sleep(self._replay.latency_s)
        if instrument is None:
            await self._send(command("series_error", chart, series_id, key, "resolve error"))
            return
        interval = _INTERVALS.get(str(resolution))
        plan, view = self._replay.plan, self._replay.view()
        if interval is None or interval not in {kind for _, kind in self._replay.source.series}:
            self._log("series", instrument.symbol, status=400, began=began)
            await self._send(command("series_error", chart, series_id, key, "unsupported resolution"))
            return
        fault = plan.choose(VENUE, "series", f"{instrument.symbol} {period}")
        name = fault.name if fault is not None else ""
        spoiled = replace(view, spoil=spoiled_bars(name, plan, view.now, instrument.symbol))
        bars = spoiled_rows(name, plan, spoiled.bars(instrument.symbol, interval), instrument.symbol)
        first = _first_of(bars, int(count), period)
        span_s = view.span_s(instrument.symbol, interval)
        self._charts[chart].series[series_id] = _Loaded(bars, first, span_s, key)
        self._log("series", instrument.symbol, status=200, began=began, fault=name or None)
        await self._send_bars(chart, series_id, bars[first:], command("series_loading", chart, series_id, key), name)

    async def _more(self, parameters: list[Any]) -> None:
        """The next older bars; an answer without any says that there are none."""
        chart, series_id, count = parameters[:3]
        loaded = self._charts[chart].series[series_id]
        first = max(0, loaded.first - min(int(count), MOST_BARS))
        older, loaded.first = loaded.bars[first : loaded.first], first
        await self._send_bars(chart, series_id, older)

    async def _send_bars(self, chart: str, series_id: str, bars: list[Bar], lead: str = "", fault: str = "") -> None:
        loaded = self._charts[chart].series[series_id]
        updates = [
            _timescale_update(chart, series_id, loaded, bars, start)
            for start in range(0, len(bars), ROWS_A_FRAME) or range(1)
        ]
        done = command("series_completed", chart, series_id, "streaming", loaded.key)
        match fault:
            case "no-bytes":
                return
            case "error-200":
                await self._send(command("critical_error", chart, "internal_error", "create_series"))
            case "truncated-json":
                await self._send(frame(updates[0][: len(updates[0]) // 2].split("~m~", 2)[2]))
            case "wrong-length":
                await self._send(f"~m~{len(updates[0]) + 99}~m~{updates[0].split('~m~', 2)[2]}")
            case "reset":
                await self._send(lead + updates[0])
                cut(self._socket)
            case _:
                for index, update in enumerate(updates):
                    last = index == len(updates) - 1
                    if fault == "slow-drip":
                        await self._linger(self._replay.plan.faults.hold_s / len(updates))
                    await self._send((lead if index == 0 else "") + update + (done if last else ""))

    async def _linger(self, seconds: float) -> None:
        """Wait without listening to what the client says, but not for a client that has left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self._socket.receive_text()

    async def _beat(self, every_s: float) -> None:
        number = 0
        while True:
            await asyncio.sleep(every_s)
            if self._unanswered >= 2:
                await self._socket.close()
                return
            number += 1
            self._unanswered += 1
            await self._send(heartbeat(number))

    async def _send(self, text: str) -> None:
        await self._socket.send_text(text)

    def _hello(self) -> dict[str, Any]:
        now = self._replay.clock.seconds()
        return {
            "session_id": "0.1.1_replay",
            "timestamp": int(now),
            "timestampMs": int(now * 1000),
            "release": "replay",
            "auth_scheme_vsn": 2,
            "protocol": "json",
        }

    def _log(
        self, kind: str, symbol: str, *, status: int, began: float | None = None, fault: str | None = None
    ) -> None:
        began = self._replay.timer() if began is None else began
        self._replay.log(
            VENUE, kind, began=began, method="WS", path=self._path, symbols=(symbol,), status=status, fault=fault
        )


def _resolved(instrument: Instrument) -> dict[str, Any]:
    exchange, _, ticker = instrument.symbol.partition(":")
    columns = instrument.columns
    return {
        "name": ticker,
        "full_name": instrument.symbol,
        "pro_name": instrument.symbol,
        "description": columns.get("description"),
        "exchange": exchange,
        "listed_exchange": exchange,
        "type": columns.get("type"),
        "currency_code": columns.get("currency"),
        **{name: columns[name] for name in ("pricescale", "minmov", "minmove2", "fractional") if name in columns},
        **instrument.resolved,
    }


def _first_of(bars: list[Bar], count: int, period: str) -> int:
    """The oldest bar to send: of the newest `count`, or from `r,FROM:TO` (seconds) on; at most MOST_BARS."""
    newest = max(0, len(bars) - min(count, MOST_BARS))
    if not period:
        return newest
    start = int(period.removeprefix("r,").split(":")[0])
    asked = next((index for index, bar in enumerate(bars) if bar.opens >= start), len(bars))
    return max(len(bars) - MOST_BARS, asked)


def _timescale_update(chart: str, series_id: str, loaded: _Loaded, bars: list[Bar], start: int) -> str:
    # Written by hand: this is half a million rows a run, and their numbers are decimal text already.
    part = bars[start : start + ROWS_A_FRAME]
    rows = ",".join([f'{{"i":{index},"v":[{opens},{values}]}}' for index, (opens, values) in enumerate(part, start)])
    closes = part[-1].opens + loaded.span_s if part else 0
    tail = json.dumps({"index": start + len(part), "zoffset": 0, "changes": [], "marks": [], "index_diff": []})
    return frame(
        f'{{"m":"timescale_update","p":["{chart}",{{"{series_id}":{{"node":"replay","s":[{rows}],'
        f'"ns":{{"d":"","indexes":[]}},"t":"{loaded.key}","lbs":{{"bar_close_time":{closes}}}}}}},{tail}]}}'
    )
