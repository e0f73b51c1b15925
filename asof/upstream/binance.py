"""Binance spot (`/api/v3`) and USD-M futures (`/fapi/v1`): exchangeInfo, klines, their weights and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from asof.upstream.limits import Over, Rule
from asof.upstream.source import Bar, View
from asof.upstream.wire import Answer, Asked, Route, Venue, not_recorded

# A weight budget for each minute of the host. Who goes on after being told to stop is banned, from two minutes up.
SPOT_RULE = Rule(allowance=6000, window_s=60, fixed=True, ban_after=10, ban_s=120)
USDM_RULE = Rule(allowance=2400, window_s=60, fixed=True, ban_after=10, ban_s=120)
_SPOT_MOST, _USDM_MOST, _DEFAULT = 1000, 1500, 500
_INTERVALS = frozenset(("1m", "5m", "15m", "1h", "4h", "1d", "1w"))


def spot() -> Venue:
    routes = (
        Route("exchangeInfo", "GET", "/api/v3/exchangeInfo", _spot_info, _named_symbols, lambda asked: 20),
        Route("klines", "GET", "/api/v3/klines", _klines("", _SPOT_MOST), _named_symbols, lambda asked: 2),
    )
    return Venue("binance", "/binance", routes, SPOT_RULE, _refuse("binance", SPOT_RULE), _used)


def usdm() -> Venue:
    routes = (
        Route("exchangeInfo", "GET", "/fapi/v1/exchangeInfo", _usdm_info, lambda asked: (), lambda asked: 1),
        Route("klines", "GET", "/fapi/v1/klines", _klines(".P", _USDM_MOST), _named_symbols, _usdm_klines_weight),
    )
    return Venue("binance-usdm", "/binance-usdm", routes, USDM_RULE, _refuse("binance-usdm", USDM_RULE), _used)


def _used(weight: int) -> Mapping[str, str]:
    return {"X-MBX-USED-WEIGHT-1M": str(weight)}


def _refuse(name: str, rule: Rule) -> Callable[[Over], Answer]:
    def refuse(over: Over) -> Answer:
        wait = {} if over.wait_s is None else {"Retry-After": str(max(1, ceil(over.wait_s)))}
        if over.banned:
            until = f"Way too much request weight used; IP banned until {int(over.until * 1000)}."
            return Answer({"code": -1003, "msg": f"{until} Please use WebSocket Streams."}, status=418, headers=wait)
        limit = f"current limit of IP is {rule.allowance} request weight per 1 MINUTE."
        return Answer({"code": -1003, "msg": f"Too much request weight used; {limit}"}, status=429, headers=wait)

    return refuse


def _spot_info(asked: Asked, view: View) -> Answer:
    payload = view.payload("binance/spot")
    if payload is None:
        return not_recorded("binance/spot")
    listed = payload["symbols"]
    wanted = _named_symbols(asked)
    if wanted:
        by_name = {item["symbol"]: item for item in listed}
        if any(name not in by_name for name in wanted):
            return _INVALID_SYMBOL  # one bad symbol fails the whole list, and it is not named
        listed = [by_name[name] for name in wanted]
    return Answer({**payload, "serverTime": int(view.now * 1000), "symbols": listed})


def _usdm_info(asked: Asked, view: View) -> Answer:
    payload = view.payload("binance/usdm")
    return (
        Answer({**payload, "serverTime": int(view.now * 1000)}) if payload is not None else not_recorded("binance/usdm")
    )


def _klines(suffix: str, most: int) -> Callable[[Asked, View], Answer]:
    def klines(asked: Asked, view: View) -> Answer:
        name, interval = asked.query.get("symbol", ""), asked.query.get("interval", "")
        if not name or not interval:
            missing = "symbol" if not name else "interval"
            return _error(-1102, f"Mandatory parameter '{missing}' was not sent, was empty/null, or malformed.")
        if interval not in _INTERVALS:
            return _error(-1120, "Invalid interval.")
        symbol = f"BINANCE:{name}{suffix}"
        if view.instrument(symbol) is None:
            return _INVALID_SYMBOL
        try:
            limit = min(asked.whole_number("limit", _DEFAULT), most)
            start = asked.whole_number("startTime", -1)
            end = asked.whole_number("endTime", int(view.now * 1000))
        except ValueError:
            return _error(-1100, "Illegal characters found in a parameter.")
        if limit < 1:
            return _error(-1130, "Data sent for parameter 'limit' is not valid.")
        bars = [bar for bar in view.bars(symbol, interval) if start <= bar.opens * 1000 <= end]
        chosen = bars[:limit] if "startTime" in asked.query else bars[-limit:]
        return Answer([_kline(bar, view.span_s(symbol, interval)) for bar in chosen])

    return klines


def _kline(bar: Bar, span_s: int) -> list[Any]:
    # Quote volume, trades and the taker's part are not recorded: zero.
    first, high, low, close, volume = bar.values.split(",")
    closes = (bar.opens + span_s) * 1000 - 1
    return [bar.opens * 1000, first, high, low, close, volume, closes, "0", 0, "0", "0", "0"]


def _usdm_klines_weight(asked: Asked) -> int:
    try:
        limit = asked.whole_number("limit", _DEFAULT)
    except ValueError:
        return 1
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def _named_symbols(asked: Asked) -> tuple[str, ...]:
    if "symbol" in asked.query:
        return (asked.query["symbol"],)
    try:
        return tuple(map(str, json.loads(asked.query.get("symbols", "[]"))))
    except (ValueError, TypeError):
        return ("",)  # answered as an invalid symbol


def _error(code: int, message: str) -> Answer:
    return Answer({"code": code, "msg": message}, status=400)


_INVALID_SYMBOL = _error(-1121, "Invalid symbol.")
