"""What steers and shows a running replay, under `/_replay`, for callers on this machine only."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asof.upstream.gate import Replay
from shared.clock import format_instant, parse_instant
from shared.errors import ContractError


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def routes(replay: Replay) -> list[Route]:
    """`clock`, `limits`, `log` and `stats`; a call from another machine gets 403, a wrong value 400 with the reason."""

    async def read_clock(request: Request) -> Response:
        return JSONResponse({"now": format_instant(replay.clock.now())})

    async def set_clock(request: Request) -> Response:
        body = await _body(request)
        instant: datetime | None = parse_instant(body["now"], name="now") if body.get("now") is not None else None
        replay.clock.set(instant)
        return JSONResponse({"now": format_instant(replay.clock.now())})

    async def set_limits(request: Request) -> Response:
        body = await _body(request)
        factor, enforced = body.get("factor", 1.0), body.get("enforced", True)
        if not isinstance(factor, int | float) or factor <= 0 or not isinstance(enforced, bool):
            raise ContractError("limits need a factor above 0 and enforced true or false", fix='post {"factor": 0.5}')
        for meter in replay.meters.values():
            meter.factor, meter.enforced = float(factor), enforced
        return JSONResponse({"factor": factor, "enforced": enforced})

    async def log(request: Request) -> Response:
        last = request.query_params.get("last")
        seen = replay.record.entries(
            venue=request.query_params.get("venue"), last=int(last) if last and last.isdigit() else None
        )
        return JSONResponse([asdict(entry) for entry in seen])

    async def clear(request: Request) -> Response:
        replay.record.clear()
        return JSONResponse({})

    async def stats(request: Request) -> Response:
        sums = replay.record.stats()
        for venue, meter in replay.meters.items():
            if venue in sums:
                sums[venue]["peak_in_flight"] = meter.peak_in_flight
        return JSONResponse(sums)

    wanted = (
        ("clock", read_clock, "GET"),
        ("clock", set_clock, "POST"),
        ("limits", set_limits, "POST"),
        ("log", log, "GET"),
        ("log", clear, "DELETE"),
        ("stats", stats, "GET"),
    )
    return [Route(f"/_replay/{name}", _guarded(handler), methods=[method]) for name, handler, method in wanted]


def _guarded(handler: Any) -> Any:
    async def guarded(request: Request) -> Response:
        if request.client is None or not is_loopback(request.client.host):
            return JSONResponse({"error": "the replay is steered from its own machine only"}, status_code=403)
        try:
            response: Response = await handler(request)
        except ContractError as fault:
            return JSONResponse({"error": str(fault)}, status_code=400)
        return response

    return guarded


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as fault:
        raise ContractError(
            "the body is no JSON", cause=str(fault), fix='post {"now": "2021-12-15T08:00:00Z"}'
        ) from fault
    if not isinstance(body, dict):
        raise ContractError("the body is no JSON object", fix='post {"now": "2021-12-15T08:00:00Z"}')
    return body
