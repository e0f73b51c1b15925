"""Bybit v5: instruments-info, paged by a cursor, and kline, newest first."""

from __future__ import annotations

from typing import Any

from asof.upstream.limits import Over, Rule
from asof.upstream.source import Bar, View
from asof.upstream.wire import Answer, Asked, Route, Venue, not_recorded

RULE = Rule(allowance=600, window_s=5, penalty_s=600)
_MOST = 1000
_INTERVALS = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "D": "1d", "W": "1w"}
_CATEGORIES = ("spot", "linear", "inverse")


def venue() -> Venue:
    routes = (
        Route("instruments-info", "GET", "/v5/market/instruments-info", _instruments, _symbol, lambda asked: 1),
        Route("kline", "GET", "/v5/market/kline", _klines, _symbol, lambda asked: 1),
    )
    return Venue("bybit", "/bybit", routes, RULE, _refuse)


def scanner_symbol(category: str, name: str) -> str:
    """Spot `BTCUSDT` → `BYBIT:BTCUSDT`; the perpetual of that name → `BYBIT:BTCUSDT.P`; a dated one keeps its name."""
    return f"BYBIT:{name}" if category == "spot" or "-" in name else f"BYBIT:{name}.P"


def _refuse(over: Over) -> Answer:
    # Refused for ten minutes whatever it was, with a page of the host's own and no header that says how long.
    return Answer("<html><head><title>403 Forbidden</title></head>access too frequent</html>", status=403, html=True)


def _instruments(asked: Asked, view: View) -> Answer:
    category = asked.query.get("category", "")
    if category not in _CATEGORIES:
        return _error(10001, "params error: Category is invalid", view)
    payload = view.payload(f"bybit/{category}")
    if payload is None:
        return not_recorded(f"bybit/{category}")
    listed = payload["result"]["list"]
    if "symbol" in asked.query:
        listed = [item for item in listed if item["symbol"] == asked.query["symbol"]]
        if not listed:
            return _error(10001, "params error: Symbol Invalid", view)
    if category == "spot":  # comes whole, without a cursor
        return _answer({"category": category, "list": listed}, view)
    try:
        limit = asked.whole_number("limit", 500)
        start = asked.whole_number("cursor", 0)
    except ValueError:
        return _error(10001, "params error: cursor or limit is invalid", view)
    if not 1 <= limit <= _MOST or not 0 <= start <= len(listed):
        return _error(10001, "params error: cursor or limit is invalid", view)
    after = start + limit
    cursor = str(after) if after < len(listed) else ""
    return _answer({"category": category, "list": listed[start:after], "nextPageCursor": cursor}, view)


def _klines(asked: Asked, view: View) -> Answer:
    category, interval = asked.query.get("category", "linear"), _INTERVALS.get(asked.query.get("interval", ""))
    if category not in _CATEGORIES or interval is None:
        return _error(10001, "params error: Category or interval is invalid", view)
    name = asked.query.get("symbol", "")
    symbol = scanner_symbol(category, name)
    if view.instrument(symbol) is None:
        return _error(10001, "Not supported symbols", view)
    try:
        limit = min(asked.whole_number("limit", 200), _MOST)
        start = asked.whole_number("start", -1)
        end = asked.whole_number("end", 2**62)
    except ValueError:
        return _error(10001, "params error: start, end or limit is invalid", view)
    bars = [bar for bar in view.bars(symbol, interval) if start <= bar.opens * 1000 <= end]
    rows = [_row(bar) for bar in reversed(bars[-limit:])] if limit > 0 else []
    return _answer({"category": category, "symbol": name, "list": rows}, view)


def _row(bar: Bar) -> list[str]:
    # Turnover is not recorded: zero.
    first, high, low, close, volume = bar.values.split(",")
    return [str(bar.opens * 1000), first, high, low, close, volume, "0"]


def _symbol(asked: Asked) -> tuple[str, ...]:
    return (asked.query["symbol"],) if "symbol" in asked.query else ()


def _answer(result: dict[str, Any], view: View) -> Answer:
    return Answer({"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": int(view.now * 1000)})


def _error(code: int, message: str, view: View) -> Answer:
    body = {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": int(view.now * 1000)}
    return Answer(body)
