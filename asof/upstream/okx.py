"""OKX v5: public instruments and history candles, newest first."""

from __future__ import annotations

from math import ceil

from asof.upstream.limits import Over, Rule
from asof.upstream.source import Bar, View
from asof.upstream.wire import Answer, Asked, Route, Venue, not_recorded

RULE = Rule(allowance=20, window_s=2, each_endpoint=True, names_the_wait=False)
_MOST, _DEFAULT = 300, 100
# `1D` follows Hong Kong and cannot be made from UTC days, so that it is not served.
_INTERVALS = {"1m": "1m", "5m": "5m", "15m": "15m", "1H": "1h", "4H": "4h", "1Dutc": "1d", "1Wutc": "1w"}
_KINDS = ("SPOT", "SWAP", "FUTURES")


def venue() -> Venue:
    routes = (
        Route("instruments", "GET", "/api/v5/public/instruments", _instruments, _symbol, lambda asked: 1),
        Route("history-candles", "GET", "/api/v5/market/history-candles", _candles, _symbol, lambda asked: 1),
    )
    return Venue("okx", "/okx", routes, RULE, _refuse)


def scanner_symbol(instrument_id: str) -> str:
    """`BTC-USDT` → `OKX:BTCUSDT`, `BTC-USDT-SWAP` → `OKX:BTCUSDT.P`, `BTC-USD-220624` → `OKX:BTCUSD220624`."""
    base, quote, *rest = (*instrument_id.split("-"), "")[:3]
    return f"OKX:{base}{quote}{'.P' if rest == ['SWAP'] else ''.join(rest)}"


def _refuse(over: Over) -> Answer:
    return Answer({"code": "50011", "msg": "Too Many Requests", "data": []}, status=429, headers=_wait(over))


def _wait(over: Over) -> dict[str, str]:
    return {} if over.wait_s is None else {"Retry-After": str(max(1, ceil(over.wait_s)))}


def _instruments(asked: Asked, view: View) -> Answer:
    kind = asked.query.get("instType", "")
    if kind not in _KINDS:
        return _error("51000" if kind else "50014", f"Parameter instType {'error' if kind else 'can not be empty'}")
    payload = view.payload(f"okx/{kind}")
    if payload is None:
        return not_recorded(f"okx/{kind}")
    wanted = asked.query.get("instId")
    listed = [item for item in payload["data"] if wanted in (None, item["instId"])]
    return Answer({**payload, "data": listed}) if listed else _UNKNOWN


def _candles(asked: Asked, view: View) -> Answer:
    wanted, interval = asked.query.get("instId", ""), _INTERVALS.get(asked.query.get("bar", "1m"))
    if interval is None:
        return _error("51000", "Parameter bar error")
    symbol = scanner_symbol(wanted)
    if view.instrument(symbol) is None:
        return _UNKNOWN
    try:
        limit = min(asked.whole_number("limit", _DEFAULT), _MOST)
        older_than = asked.whole_number("after", 2**62)
        newer_than = asked.whole_number("before", -1)
    except ValueError:
        return _error("51000", "Parameter after, before or limit error")
    bars = [bar for bar in view.bars(symbol, interval) if newer_than < bar.opens * 1000 < older_than]
    still_open = view.now - view.span_s(symbol, interval)
    rows = [_row(bar, bar.opens > still_open) for bar in reversed(bars[-limit:])]
    return Answer({"code": "0", "msg": "", "data": rows})


def _row(bar: Bar, forming: bool) -> list[str]:
    # Volume in the quote's currency is not recorded: zero.
    first, high, low, close, volume = bar.values.split(",")
    return [str(bar.opens * 1000), first, high, low, close, volume, "0", "0", "0" if forming else "1"]


def _symbol(asked: Asked) -> tuple[str, ...]:
    return (asked.query["instId"],) if "instId" in asked.query else ()


def _error(code: str, message: str) -> Answer:
    return Answer({"code": code, "msg": message, "data": []}, status=400 if code == "50014" else 200)


_UNKNOWN = _error("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.")
