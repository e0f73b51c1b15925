"""The state of one running replay, and the gate of every request: count, refuse, answer, spoil, delay, log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import format_datetime

from starlette.requests import Request
from starlette.responses import Response

from asof.upstream.clock import ReplayClock
from asof.upstream.faults.answers import instead
from asof.upstream.faults.changes import changed, lasting, spoiled_bars
from asof.upstream.faults.delivery import delivered
from asof.upstream.faults.plan import Plan
from asof.upstream.limits import Meter
from asof.upstream.record import Record, Seen
from asof.upstream.source import Source, View
from asof.upstream.wire import Answer, Asked, Route, Venue
from shared.clock import format_instant


@dataclass(frozen=True)
class Replay:
    """What the endpoints share. Everything that changes is in `clock`, `meters`, `record` and `plan`."""

    source: Source
    clock: ReplayClock
    record: Record
    meters: Mapping[str, Meter]
    plan: Plan
    latency_s: float
    timer: Callable[[], float]
    started: float

    def view(self) -> View:
        return View(self.source, self.clock.seconds())

    def headers(self) -> dict[str, str]:
        """On every answer: the served time, and that this is a replay."""
        return {"Date": format_datetime(self.clock.now(), usegmt=True), "X-Asof-Replay": "1"}

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.lower().encode(), value.encode()) for name, value in self.headers().items()]

    def log(
        self,
        venue: str,
        kind: str,
        *,
        began: float,
        path: str,
        status: int,
        method: str = "GET",
        symbols: tuple[str, ...] = (),
        weight: int = 1,
        refused: str | None = None,
        told_to_wait: bool = False,
        fault: str | None = None,
    ) -> None:
        ended = self.timer()
        self.record.add(
            Seen(
                at_s=round(began - self.started, 6),
                clock=format_instant(self.clock.now()),
                venue=venue,
                kind=kind,
                method=method,
                path=path,
                symbols=symbols,
                weight=weight,
                status=status,
                duration_s=round(ended - began, 6),
                refused=refused,
                told_to_wait=told_to_wait,
                fault=fault,
            )
        )


def endpoint(replay: Replay, venue: Venue, route: Route) -> Callable[[Request], Awaitable[Response]]:
    meter = replay.meters[venue.name]

    async def handle(request: Request) -> Response:
        began = replay.timer()
        asked, identity = await _read(request)
        weight = route.weigh(asked)
        told_to_wait = meter.was_told_to_wait()
        over = meter.enter(route.kind, weight)
        fault: str | None = None
        try:
            if over is not None:
                answer = venue.refuse(over)
            else:
                answer, fault = _answer(replay, venue, route, asked, identity)
            await asyncio.sleep(replay.latency_s)
        finally:
            if over is None:
                meter.leave()
        headers = {**venue.headers(meter.used(route.kind)), **answer.headers}
        kind = "text/html" if answer.html else "application/json"
        body = encode(answer)
        spoiled = _delivered(replay, fault, body, request, answer.status, headers, kind)
        replay.log(
            venue.name,
            route.kind,
            began=began,
            method=asked.method,
            path=asked.path,
            symbols=route.symbols(asked),
            weight=weight,
            status=answer.status,
            refused=over.reason if over is not None else None,
            told_to_wait=told_to_wait,
            fault=fault,
        )
        return spoiled or Response(body, answer.status, headers, media_type=kind)

    return handle


def _answer(replay: Replay, venue: Venue, route: Route, asked: Asked, identity: str) -> tuple[Answer, str | None]:
    """What the venue says and the name of the fault that it meets, if any."""
    plan, view = replay.plan, replay.view()
    chosen = plan.choose(venue.name, route.kind, identity)
    if chosen is None:
        return lasting(plan, venue.name, route.kind, asked, route.answer(asked, view))
    replaced = instead(chosen.name, venue, plan, replay.meters[venue.name], replay.clock.now())
    if replaced is not None:
        return replaced, chosen.name
    view = replace(view, spoil=spoiled_bars(chosen.name, plan, view.now, identity))
    answer, refused = lasting(plan, venue.name, route.kind, asked, route.answer(asked, view))
    if refused is not None:
        return answer, refused
    return changed(chosen.name, plan, route.kind, asked, answer), chosen.name


def _delivered(
    replay: Replay, fault: str | None, body: bytes, request: Request, status: int, headers: Mapping[str, str], kind: str
) -> Response | None:
    if fault is None:
        return None
    # What goes past the framework gets the replay's own headers here; the framework adds them to everything else.
    headers = {**headers, **replay.headers()} if fault == "wrong-length" else headers
    hold_s = replay.plan.faults.hold_s
    return delivered(fault, body, request=request, status=status, headers=headers, kind=kind, hold_s=hold_s)


async def _read(request: Request) -> tuple[Asked, str]:
    """What is asked, and what makes a second attempt the same request."""
    raw = await request.body()
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None  # the venue answers a broken body with its own error
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    asked = Asked(request.method, path, request.path_params, dict(request.query_params), body)
    return asked, f"{path} {raw.decode(errors='replace')}"


def encode(answer: Answer) -> bytes:
    if answer.html:
        return str(answer.payload).encode()
    return json.dumps(answer.payload, separators=(",", ":"), ensure_ascii=False).encode()
