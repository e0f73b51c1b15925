"""Faults that stand in the place of an answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from asof.upstream.faults.plan import Plan
from asof.upstream.limits import Meter
from asof.upstream.wire import Answer, Venue


def instead(name: str, venue: Venue, plan: Plan, meter: Meter, now: datetime) -> Answer | None:
    """What the fault `name` answers with, None where the venue itself answers. May pause the venue's meter."""
    times = plan.faults
    match name:
        case "429-retry-after":
            meter.pause(times.retry_after_s, banned=False)
            return Answer(_TOO_MANY, status=429, headers={"Retry-After": str(max(1, round(times.retry_after_s)))})
        case "429-retry-after-date":
            meter.pause(times.retry_after_s, banned=False)
            until = format_datetime(now + timedelta(seconds=times.retry_after_s), usegmt=True)
            return Answer(_TOO_MANY, status=429, headers={"Retry-After": until})
        case "429-bare":
            bodies: tuple[Any, ...] = ({**_TOO_MANY, "data": []}, {**_TOO_MANY, "code": 50011}, {"msg": "slow down"})
            return Answer(bodies[plan.turn(len(bodies))], status=429)
        case "418-ban" | "bybit-403":
            seconds = times.ban_s if name == "418-ban" else times.bybit_pause_s
            return venue.refuse(meter.pause(seconds, banned=True))
        case "451":
            message = "Service unavailable from a restricted location according to 'b. Eligibility'."
            return Answer({"code": 0, "msg": message}, status=451)
        case "403-html":
            return Answer(_page("403 Forbidden", "Request blocked."), status=403, html=True)
        case "empty-200":
            return Answer("", html=True)
        case "error-200":
            return Answer(_ERRORS[venue.name])
        case "502-page":
            return Answer(_page("502 Bad Gateway", "nginx"), status=502, html=True)
        case "503-page":
            return Answer(_page("503 Service Temporarily Unavailable", "nginx"), status=503, html=True)
        case "redirect":
            # Loopback, and nobody listens there: a client that follows must not reach anyone's server.
            return Answer("", status=302, headers={"Location": "http://127.0.0.2:9/elsewhere"}, html=True)
        case "deep-json":
            return Answer("[" * 100_000 + "]" * 100_000, headers={"Content-Type": "application/json"}, html=True)
        case _:
            return None


def _page(title: str, text: str) -> str:
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>{text}</body></html>"


_TOO_MANY = {"code": "50011", "msg": "Too Many Requests"}
_BINANCE = {"code": -1000, "msg": "An unknown error occurred while processing the request."}
_ERRORS: dict[str, dict[str, Any]] = {
    "scanner": {"totalCount": 0, "error": "Internal error", "data": None},
    "binance": _BINANCE,
    "binance-usdm": _BINANCE,
    "okx": {"code": "50026", "msg": "System error, please try again later.", "data": []},
    "bybit": {"retCode": 10016, "retMsg": "Internal server error", "result": {}, "retExtInfo": {}, "time": 0},
}
