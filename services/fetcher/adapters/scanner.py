"""TradingView's scanner over HTTP: one request describes many symbols, columns and rows matched by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.fetcher.adapters.http import Answer, HttpUpstream
from services.fetcher.adapters.text import printable, safe_text
from services.fetcher.domain.discovery import Discovery
from services.fetcher.domain.faults import (
    BadRequest,
    Garbled,
    ServerFault,
    UnknownSymbol,
    Untrusted,
    UpstreamError,
)
from services.fetcher.domain.record import Described, FieldValue
from services.fetcher.domain.ticks import decimal_or_none
from services.fetcher.ports import Found
from shared.errors import PipelineError
from shared.symbols import check_symbol

log = structlog.get_logger(__name__)

# catalog field -> scanner column
TEXT = {
    "description": "description",
    "type": "type",
    "subtype": "subtype",
    "sector": "sector",
    "industry": "industry",
    "country": "country",
    "currency": "currency",
    "base": "base_currency",
    "timezone": "timezone",
    "session": "session",
}
INTEGERS = {"pricescale": "pricescale", "minmov": "minmov", "minmove2": "minmove2"}
FLAGS = {"fractional": "fractional"}
LAST_PRICE = "close"
COLUMNS = (*TEXT.values(), *INTEGERS.values(), *FLAGS.values(), LAST_PRICE)

_UNKNOWN_FIELD = re.compile(r'Unknown field "([^"]{1,80})"')
_MAX_DROPPED = 3
_DROPPED_FOR = timedelta(hours=1)
_PAGE = 1000
_MAX_FOUND = 20_000


class Scanner:
    name = "scanner"

    def __init__(self, upstream: HttpUpstream, market: str) -> None:
        self._upstream = upstream
        self._path = f"/{market}/scan"
        self._dropped: dict[str, datetime] = {}

    async def describe(self, symbols: Sequence[str]) -> Mapping[str, Described | UpstreamError]:
        """Every symbol once: described, or the fault it met. Raises what concerns all of them."""
        try:
            answer, columns = await self._scan(symbols)
        except BadRequest as fault:
            if len(symbols) == 1:
                return {symbols[0]: fault}
            # One symbol the scanner cannot read refuses the whole list: halve it until that one stands alone.
            middle = len(symbols) // 2
            return {**await self._half(symbols[:middle]), **await self._half(symbols[middle:])}
        return self._match(symbols, answer, columns)

    async def _half(self, symbols: Sequence[str]) -> Mapping[str, Described | UpstreamError]:
        try:
            return await self.describe(symbols)
        except UpstreamError as fault:
            return dict.fromkeys(symbols, fault)  # the other half is not to blame

    async def discover(self, asked: Discovery, screener: Sequence[str]) -> Found:
        """Page through what matches. A page without anything new ends it: the universe may change while it is read."""
        most = asked.top or _MAX_FOUND
        found: dict[str, Described] = {}
        refused: set[str] = set()
        while len(found) < most:
            start = len(found) + len(refused)
            answer, columns = await self._ask(
                f"/{asked.market}/scan",
                {
                    "filter": asked.filters(),
                    "sort": {"sortBy": asked.sort, "sortOrder": asked.order},
                    "options": {"lang": "en"},
                    "range": [start, start + min(_PAGE, most - len(found))],
                },
                (*COLUMNS, *(column for column in screener if column not in COLUMNS)),
            )
            fresh = {
                symbol: cells
                for symbol, cells in self._rows(answer).items()
                if symbol not in found and symbol not in refused
            }
            for symbol, cells in fresh.items():
                try:
                    check_symbol(symbol)
                    found[symbol] = self._described(symbol, cells, columns, answer, screener)
                except PipelineError as fault:
                    log.warning("row_refused", host=self._upstream.host, reason=printable(str(fault)))
                    refused.add(symbol)
            if not fresh or len(found) + len(refused) >= _total(answer):
                break
        complete = not refused and len(found) >= _total(answer)
        return Found(tuple(found.values()), complete)

    async def _scan(self, symbols: Sequence[str]) -> tuple[Answer, tuple[str, ...]]:
        query = {
            "symbols": {"tickers": list(symbols), "query": {"types": []}},
            "options": {"lang": "en"},
            "range": [0, len(symbols)],
        }
        return await self._ask(self._path, query, COLUMNS)

    async def _ask(
        self, path: str, query: Mapping[str, Any], columns: tuple[str, ...]
    ) -> tuple[Answer, tuple[str, ...]]:
        """The answer, and the columns it has: one that the scanner does not know is dropped, asked again, recorded.

        What was dropped stays out for an hour, so that it costs one request and not one a batch.
        """
        host = self._upstream.host
        columns = tuple(column for column in columns if column not in self._dropped)
        for _ in range(_MAX_DROPPED + 1):
            answer = await self._upstream.json(
                "POST", path, body={**query, "columns": list(columns)}, accept=(200, 400)
            )
            error = answer.data.get("error") if isinstance(answer.data, dict) else None
            if not error:
                if answer.status != 200:
                    raise BadRequest(f"{answer.status}: refused without a reason", host=host, status=answer.status)
                for column, since in list(self._dropped.items()):
                    if abs(answer.observed_at - since) >= _DROPPED_FOR:
                        del self._dropped[column]
                return answer, columns
            unknown = _UNKNOWN_FIELD.search(str(error))
            if unknown is None or unknown[1] not in columns:
                words = f"the scanner says: {printable(str(error))}"
                if answer.status == 200:
                    raise ServerFault(words, host=host, status=answer.status)
                raise BadRequest(words, host=host, status=answer.status)
            log.warning("scanner_column_dropped", column=unknown[1], host=host)
            self._dropped[unknown[1]] = answer.observed_at
            columns = tuple(column for column in columns if column != unknown[1])
        raise BadRequest("the scanner keeps refusing columns", host=host, status=400)

    def _rows(self, answer: Answer) -> dict[str, Any]:
        host = self._upstream.host
        data = answer.data.get("data") if isinstance(answer.data, dict) else None
        if data is None:
            raise Garbled("the scanner sent no data and no error", host=host, status=answer.status)
        if not isinstance(data, list):
            raise Garbled("the scanner's data is no list", host=host, status=answer.status)
        return {row["s"]: row.get("d") for row in data if isinstance(row, dict) and isinstance(row.get("s"), str)}

    def _match(
        self, symbols: Sequence[str], answer: Answer, columns: tuple[str, ...]
    ) -> dict[str, Described | UpstreamError]:
        host, rows = self._upstream.host, self._rows(answer)
        found: dict[str, Described | UpstreamError] = {}
        for symbol in symbols:
            if symbol not in rows:
                found[symbol] = UnknownSymbol(
                    "the scanner does not know it", symbol=symbol, host=host, status=answer.status
                )
                continue
            try:
                found[symbol] = self._described(symbol, rows[symbol], columns, answer)
            except UpstreamError as fault:
                found[symbol] = fault
        return found

    def _described(
        self, symbol: str, cells: Any, columns: tuple[str, ...], answer: Answer, screener: Sequence[str] = ()
    ) -> Described:
        host = self._upstream.host
        if not isinstance(cells, list) or len(cells) != len(columns):
            # Which cells are missing cannot be known, so none of them is used.
            sent = len(cells) if isinstance(cells, list) else "no"
            raise Garbled(f"the row has {sent} cells for {len(columns)} columns", symbol=symbol, host=host)
        row = dict(zip(columns, cells, strict=True))
        fields: dict[str, FieldValue] = {
            name: safe_text(row.get(column), name, symbol=symbol, host=host) for name, column in TEXT.items()
        }
        fields |= {name: _integer(row.get(column), name, symbol, host) for name, column in INTEGERS.items()}
        fields |= {name: _flag(row.get(column), name, symbol, host) for name, column in FLAGS.items()}
        if fields["base"] is not None:
            fields["quote"] = fields["currency"]
        return Described(
            symbol=symbol,
            fields=fields,
            last_price=decimal_or_none(row.get(LAST_PRICE)),
            observed_at=answer.observed_at,
            source=self.name,
            screener={column: _value(row.get(column), column, symbol, host) for column in screener},
        )


def _total(answer: Answer) -> int:
    total = answer.data.get("totalCount")
    return total if isinstance(total, int) else _MAX_FOUND


def _value(value: Any, name: str, symbol: str, host: str) -> FieldValue:
    """A screener value: a number, a flag, a short text, or null."""
    return value if isinstance(value, bool | int | float) else safe_text(value, name, symbol=symbol, host=host)


def _integer(value: Any, name: str, symbol: str, host: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise Untrusted(f"{name} is {str(value)[:40]!r}, not a whole number", symbol=symbol, host=host)
    return int(value)


def _flag(value: Any, name: str, symbol: str, host: str) -> bool | None:
    # Sent as true and false, or as "true" and "false".
    if value is None or value == "":
        return None
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise Untrusted(f"{name} is {str(value)[:40]!r}, neither true nor false", symbol=symbol, host=host)
