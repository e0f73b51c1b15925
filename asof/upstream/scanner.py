"""TradingView's scanner: `POST /{market}/scan` for many symbols at once, `GET /symbol` for one.

What was recorded is served and everything else is null: prices and volume come from the last bar by the clock, ratings
and indicators only from a recorded row.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from asof.upstream.columns import is_known
from asof.upstream.filters import UnknownOperation, matches, sort_key
from asof.upstream.limits import Over, Rule
from asof.upstream.source import Instrument, View
from asof.upstream.wire import Answer, Asked, Route, Venue

DEFAULT_RANGE = (0, 50)
_OF_LAST_BAR = {"open": 0, "high": 1, "low": 2, "close": 3, "volume": 4}

# Nothing is published. The replay holds a client to the pace that is known to be safe, 1 request/s and 2 at once, with
# a tenth of slack for jitter, and answers past it with what has been seen: empty bodies for half a minute.
RULE = Rule(allowance=66, window_s=60, at_once=2, penalty_s=30, names_the_wait=False)


def venue() -> Venue:
    routes = (
        Route("scan", "POST", "/{market}/scan", answer=scan, symbols=_tickers, weigh=lambda asked: 1),
        Route("symbol", "GET", "/symbol", answer=one_symbol, symbols=_asked_symbol, weigh=lambda asked: 1),
    )
    return Venue("scanner", "/scanner", routes, RULE, refuse)


def refuse(over: Over) -> Answer:
    if over.reason == "at_once" or over.wait_s is not None:
        wait = {} if over.wait_s is None else {"Retry-After": str(max(1, ceil(over.wait_s)))}
        return Answer("<html><title>429 Too Many Requests</title></html>", status=429, headers=wait, html=True)
    return Answer("", html=True)


def scan(asked: Asked, view: View) -> Answer:
    """`{"totalCount": n, "data": [{"s": symbol, "d": [value of each column]}]}`; an unknown symbol is not in it."""
    body = asked.body
    if not _has_shape(body):
        return _bad_request("Cannot parse request body")
    columns = body.get("columns") or ["name"]
    conditions = body.get("filter") or []
    sorting = body.get("sort") or {}
    for column in (*columns, *(item["left"] for item in conditions), sorting.get("sortBy", "name")):
        if not isinstance(column, str) or not is_known(column):
            return _bad_request(f'Unknown field "{column}"')
    try:
        start, stop = body.get("range") or DEFAULT_RANGE
        chosen = _sorted(
            [
                item
                for item in _candidates(asked, view)
                if matches(conditions, lambda column, item=item: _value(item, column, view))  # type: ignore[misc]
            ],
            sorting,
            view,
        )
    except UnknownOperation as fault:
        return _bad_request(f'Unknown operation "{fault}"')
    except (TypeError, ValueError, KeyError) as fault:
        return _bad_request(f"Invalid request: {fault}")
    rows = [{"s": item.symbol, "d": [_value(item, column, view) for column in columns]} for item in chosen[start:stop]]
    return Answer({"totalCount": len(chosen), "data": rows})


def one_symbol(asked: Asked, view: View) -> Answer:
    """One flat object of the asked fields; for an unknown symbol 404, with `no_404` the same body and 200."""
    fields = asked.query.get("fields", "name,description,type,exchange").split(",")
    for column in fields:
        if not is_known(column):
            return _bad_request(f'Unknown field "{column}"')
    found = view.instrument(asked.query.get("symbol", ""))
    if found is None:
        quiet = asked.query.get("no_404", "").lower() in ("true", "1")
        return Answer({"code": "symbol_not_exists"}, status=200 if quiet else 404)
    return Answer({column: _value(found, column, view) for column in fields})


def _candidates(asked: Asked, view: View) -> list[Instrument]:
    wanted = asked.body.get("symbols") or {}
    tickers = wanted.get("tickers") or []
    types = set((wanted.get("query") or {}).get("types") or [])
    if tickers:
        found = [item for item in map(view.instrument, dict.fromkeys(tickers)) if item is not None]
    else:
        found = view.instruments()
    market = asked.parameters["market"]
    return [
        item
        for item in found
        if (market in ("global", item.market)) and (not types or item.columns.get("type") in types)
    ]


def _sorted(items: list[Instrument], sorting: Mapping[str, Any], view: View) -> list[Instrument]:
    if "sortBy" not in sorting:
        return items
    values = {item.symbol: _value(item, sorting["sortBy"], view) for item in items}
    key = sort_key(values, descending=sorting.get("sortOrder", "asc") == "desc")
    return sorted(items, key=lambda item: key(item.symbol))


def _value(item: Instrument, column: str, view: View) -> Any:
    if column in item.columns:
        return item.columns[column]
    if column in _OF_LAST_BAR:
        bar = view.last_bar(item.symbol)
        values = bar.values.split(",") if bar is not None else []
        return float(values[_OF_LAST_BAR[column]]) if _OF_LAST_BAR[column] < len(values) else None
    return None


def _bad_request(error: str) -> Answer:
    return Answer({"totalCount": 0, "error": error, "data": None}, status=400)


def _has_shape(body: Any) -> bool:
    """Whether every part of a scan is of the type that the rest of this file takes for granted."""
    if not isinstance(body, dict):
        return False
    parts = {name: value for name, value in body.items() if value is not None}
    types = {"columns": list, "filter": list, "sort": dict, "symbols": dict, "range": list}
    if any(not isinstance(parts[name], kind) for name, kind in types.items() if name in parts):
        return False
    asked = parts.get("symbols", {})
    query = asked.get("query") or {}
    if not isinstance(query, dict):
        return False
    lists = (asked.get("tickers") or [], query.get("types") or [], parts.get("columns", []))
    numbers = parts.get("range", list(DEFAULT_RANGE))
    return (
        all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)
        and all(isinstance(item, dict) and {"left", "operation"} <= item.keys() for item in parts.get("filter", []))
        and len(numbers) == 2
        and all(isinstance(number, int) and number >= 0 for number in numbers)
    )


def _tickers(asked: Asked) -> tuple[str, ...]:
    return tuple((asked.body.get("symbols") or {}).get("tickers") or ()) if _has_shape(asked.body) else ()


def _asked_symbol(asked: Asked) -> tuple[str, ...]:
    return (asked.query["symbol"],) if "symbol" in asked.query else ()
