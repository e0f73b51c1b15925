"""Faults that change what an answer says: rows, columns, bars. Nothing that is passed in is changed itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asof.upstream.faults.plan import Plan
from asof.upstream.source import Bar
from asof.upstream.wire import Answer, Asked

_SHARE = 0.2
_ODD_S = 1234  # no interval has its bars open at such a second


def spoiled_bars(name: str, plan: Plan, now: float, identity: str) -> Callable[[list[Bar], int], list[Bar]] | None:
    """What the fault does to a series before it is written, or None when it leaves bars alone."""

    def some(bars: list[Bar]) -> set[int]:
        # The newest bar stays: what is after the end of a series is no gap.
        return plan.some(bars[:-1], 0.05, name, identity)

    def gaps(bars: list[Bar], span_s: int) -> list[Bar]:
        gone = some(bars)
        return [bar for index, bar in enumerate(bars) if index not in gone]

    def duplicates(bars: list[Bar], span_s: int) -> list[Bar]:
        twice = some(bars)
        return [bar for index, bar in enumerate(bars) for _ in range(2 if index in twice else 1)]

    def unaligned(bars: list[Bar], span_s: int) -> list[Bar]:
        odd = some(bars)
        return [bar._replace(opens=bar.opens + _ODD_S) if index in odd else bar for index, bar in enumerate(bars)]

    def forming(bars: list[Bar], span_s: int) -> list[Bar]:
        if not bars:
            return bars
        opens = int(bars[-1].opens + (now - bars[-1].opens) // 86_400 * 86_400)
        close = bars[-1].values.split(",")[3]
        is_open = bars[-1].opens < opens <= now < opens + span_s
        return [*bars, Bar(opens, f"{close},{close},{close},{close},0")] if is_open else bars

    known = {"gaps": gaps, "duplicates": duplicates, "unaligned": unaligned, "forming-candle": forming}
    return known.get(name)


def spoiled_rows(name: str, plan: Plan, bars: list[Bar], identity: str) -> list[Bar]:
    """The same for the websocket, where a row is text: a null close, or a row that ends early."""
    if name not in ("nulls", "short-rows"):
        return bars
    chosen = plan.some(bars, 0.05, name, identity)
    return [_spoiled_row(bar, name) if index in chosen else bar for index, bar in enumerate(bars)]


def _spoiled_row(bar: Bar, name: str) -> Bar:
    values = bar.values.split(",")
    return bar._replace(values=",".join(values[:2] if name == "short-rows" else [*values[:3], "null", *values[4:]]))


def lasting(plan: Plan, venue: str, kind: str, asked: Asked, answer: Answer) -> tuple[Answer, str | None]:
    """The answer as the lasting faults leave it, and the name of the one that replaced it, if one did."""
    for fault in plan.lasting:
        if not fault.can_happen(venue, kind) or answer.status != 200:
            continue
        if fault.name.startswith("unknown-column"):
            column = plan.lasting_choice(fault.name, set(_columns(asked)) - {"name"})
            if column in _columns(asked):
                error = {"totalCount": 0, "error": f'Unknown field "{column}"', "data": None}
                return Answer(error, status=200 if fault.name.endswith("200") else 400), fault.name
        elif fault.name == "bad-symbol":
            worst = plan.lasting_choice(fault.name, _tickers(asked))
            if any(ticker == worst or plan.draw("bad-symbol", ticker) < 0.001 for ticker in _tickers(asked)):
                return Answer({"totalCount": 0, "error": "Invalid symbol", "data": None}, status=400), fault.name
        elif fault.name == "notional" and "symbols" in answer.payload:
            symbols = [_with_notional(item) for item in answer.payload["symbols"]]
            answer = Answer({**answer.payload, "symbols": symbols}, answer.status, answer.headers)
    return answer, None


def changed(name: str, plan: Plan, kind: str, asked: Asked, answer: Answer) -> Answer:
    """The answer as a passing fault leaves it. Most faults change none, and an error stays an error."""
    change = _CHANGES.get(name)
    if change is None or answer.status != 200:
        return answer
    payload = change(plan, kind, asked, answer.payload)
    return Answer(payload, answer.status, answer.headers)


_Change = Callable[[Plan, str, Asked, Any], Any]


def _rows_of(kind: str, payload: Any) -> list[Any]:
    match kind:
        case "klines":
            return payload if isinstance(payload, list) else []
        case "exchangeInfo":
            return list(payload.get("symbols", ()))
        case "instruments-info" | "kline":
            return list(payload["result"].get("list", ()))
        case _:
            return list(payload.get("data") or ())


def _with_rows(kind: str, payload: Any, rows: list[Any]) -> Any:
    match kind:
        case "klines":
            return rows
        case "exchangeInfo":
            return {**payload, "symbols": rows}
        case "instruments-info" | "kline":
            return {**payload, "result": {**payload["result"], "list": rows}}
        case _:
            return {**payload, "data": rows}


def _each_chosen(spoil: Callable[[Any], Any], name: str) -> _Change:
    def change(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
        rows = _rows_of(kind, payload)
        chosen = plan.some(rows, _SHARE, name, asked.path)
        spoiled = [spoil(row) if index in chosen else row for index, row in enumerate(rows)]
        return _with_rows(kind, payload, spoiled) if rows else payload

    return change


def _nulled(row: Any) -> Any:
    if isinstance(row, list):
        return [*row[:4], None, *row[5:]]
    if "d" in row:
        return {**row, "d": [None if index % 3 == 1 else value for index, value in enumerate(row["d"])]}
    return _numbers_replaced(row, None)


def _shortened(row: Any) -> Any:
    return row[:3] if isinstance(row, list) else {**row, "d": row["d"][: len(row["d"]) // 2]}


_STEPS = frozenset(("tickSize", "stepSize", "tickSz", "lotSz", "minSz", "qtyStep", "basePrecision"))


def _numbers_replaced(row: Any, value: str | None) -> Any:
    if isinstance(row, Mapping):
        return {key: value if key in _STEPS else _numbers_replaced(item, value) for key, item in row.items()}
    return [_numbers_replaced(item, value) for item in row] if isinstance(row, list) else row


def _emptied(row: Any) -> Any:
    # Binance writes "no step" as zero, the others as an empty text.
    return _numbers_replaced(row, "0.00000000" if "filters" in row else "")


def _with_notional(item: Mapping[str, Any]) -> dict[str, Any]:
    filters = [
        {
            "filterType": "NOTIONAL",
            "minNotional": rule.get("minNotional"),
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        }
        if rule["filterType"] == "MIN_NOTIONAL"
        else rule
        for rule in item["filters"]
    ]
    return {**item, "filters": filters}


def _reordered(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
    rows = _rows_of(kind, payload)
    order = sorted(range(len(rows)), key=lambda index: plan.draw("reordered", str(index)))
    return _with_rows(kind, payload, [rows[index] for index in order]) if rows else payload


def _missing(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
    rows = _rows_of(kind, payload)
    gone = plan.some(rows, 0, "missing-symbol", asked.path)
    return _with_rows(kind, payload, [row for index, row in enumerate(rows) if index not in gone]) if rows else payload


def _data_null(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
    return {**payload, "data": None}


def _cursor_repeats(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
    if not payload["result"].get("nextPageCursor"):
        return payload
    return {**payload, "result": {**payload["result"], "nextPageCursor": asked.query.get("cursor") or "0"}}


def _count_changes(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
    rows = _rows_of(kind, payload)
    fewer = rows[: max(1, len(rows) - 1)]
    if kind == "scan":
        return {**payload, "totalCount": max(0, payload["totalCount"] - 1), "data": fewer}
    return _with_rows(kind, payload, fewer) if rows else payload


def _control_characters(plan: Plan, kind: str, asked: Asked, payload: Any) -> Any:
    rows = _rows_of(kind, payload)
    hidden = (
        [value + "\x1b[2J\u202e\x00" if isinstance(value, str) else value for value in rows[0]["d"]] if rows else []
    )
    return _with_rows(kind, payload, [{"s": "MADE:\x1b]0;x\x07", "d": hidden}, *rows]) if rows else payload


def _columns(asked: Asked) -> list[str]:
    return list(asked.body.get("columns") or ()) if isinstance(asked.body, dict) else []


def _tickers(asked: Asked) -> list[str]:
    return list((asked.body.get("symbols") or {}).get("tickers") or ()) if isinstance(asked.body, dict) else []


_CHANGES: dict[str, _Change] = {
    "missing-symbol": _missing,
    "data-null": _data_null,
    "nulls": _each_chosen(_nulled, "nulls"),
    "short-rows": _each_chosen(_shortened, "short-rows"),
    "reordered": _reordered,
    "empty-numerics": _each_chosen(_emptied, "empty-numerics"),
    "cursor-repeats": _cursor_repeats,
    "count-changes": _count_changes,
    "control-characters": _control_characters,
}
