"""A folder of recorded payloads and bars as a source. docs/upstream.md has its layout.

A payload's name ends in the day it was recorded, and it is served from the end of that day on. A list without a date is
served at any time. Files that are not of this layout are not read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asof.upstream import bybit, okx
from asof.upstream.listings import instruments_of
from asof.upstream.source import Bar, Instrument, Payload, Series, Source
from shared.clock import parse_instant
from shared.errors import ContractError, NotFoundError

_LISTS = {
    "binance/spot": ("binance", "spot_exchangeInfo"),
    "binance/usdm": ("binance", "usdm_exchangeInfo"),
    "okx/SPOT": ("okx", "instruments_SPOT"),
    "okx/SWAP": ("okx", "instruments_SWAP"),
    "okx/FUTURES": ("okx", "instruments_FUTURES"),
    "bybit/spot": ("bybit", "v5_instruments-info_spot"),
    "bybit/linear": ("bybit", "v5_instruments-info_linear"),
    "bybit/inverse": ("bybit", "v5_instruments-info_inverse"),
}
# A folder of bars is `bars/PLACE_INTERVAL`; a file in it is named as the place names the instrument.
_PLACES: dict[str, Callable[[str], str]] = {
    "binance_spot": lambda name: f"BINANCE:{name}",
    "binance_usdm": lambda name: f"BINANCE:{name}.P",
    "okx": okx.scanner_symbol,
    "bybit_spot": lambda name: bybit.scanner_symbol("spot", name),
    "bybit_linear": lambda name: bybit.scanner_symbol("linear", name),
    "bybit_inverse": lambda name: bybit.scanner_symbol("inverse", name),
}
_SPANS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14_400, "1d": 86_400, "1w": 604_800}
_HEADER = ["open_time_ms", "open", "high", "low", "close", "volume"]


def folder_source(folder: Path) -> Source:
    """What the folder holds. Raises NotFoundError for an empty one, ContractError for a file it cannot read."""
    payloads = {name: found for name, place in _LISTS.items() if (found := tuple(_payloads(folder, *place)))}
    instruments = {item.symbol: item for item in instruments_of(payloads)}
    instruments |= {item.symbol: _merged(instruments.get(item.symbol), item) for item in _recorded_rows(folder)}
    source = Source(instruments, dict(_bars(folder)), payloads)
    if not source.instruments and not source.series:
        raise NotFoundError(
            f"{folder} holds nothing to serve", cause="no list, row or bar of the layout", fix="see docs/upstream.md"
        )
    return source


def _payloads(folder: Path, exchange: str, stem: str) -> Iterator[Payload]:
    named = re.compile(re.escape(stem) + r"(?:_(\d{8}))?\.json")
    for path in sorted((folder / exchange).glob(f"{stem}*.json")):
        match = named.fullmatch(path.name)
        if match is not None:
            yield Payload(_json(path), _end_of(match[1], path) if match[1] else None)


def _end_of(day: str, path: Path) -> float:
    try:
        return (datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)).timestamp()
    except ValueError as fault:
        raise ContractError(f"{path} names no day", cause=str(fault), fix="end its name in _YYYYMMDD.json") from fault


def _recorded_rows(folder: Path) -> Iterator[Instrument]:
    """`scanner/MARKET.json`: a list of `{"s": symbol, "columns": {…}, "listed": instant?, "delisted": instant?}`."""
    for path in sorted((folder / "scanner").glob("*.json")):
        for row in _json(path):
            since, until = (_instant(row.get(name), path) for name in ("listed", "delisted"))
            yield Instrument(row["s"], path.stem, row["columns"], since, until)


def _merged(derived: Instrument | None, recorded: Instrument) -> Instrument:
    if derived is None:
        return recorded
    columns = {**derived.columns, **recorded.columns}  # a recorded value stands over a derived one
    listed = derived.listed if recorded.listed is None else recorded.listed
    delisted = derived.delisted if recorded.delisted is None else recorded.delisted
    return Instrument(recorded.symbol, recorded.market, columns, listed, delisted, derived.resolved)


def _instant(text: Any, path: Path) -> float | None:
    return parse_instant(text, name=f"an instant in {path}").timestamp() if text is not None else None


def _bars(folder: Path) -> Iterator[tuple[tuple[str, str], Series]]:
    for place in sorted((folder / "bars").glob("*_*")):
        name, _, interval = place.name.rpartition("_")
        if name in _PLACES and interval in _SPANS:
            for path in sorted(place.glob("*.csv")):
                yield (_PLACES[name](path.stem), interval), _series(path, _SPANS[interval])


def _series(path: Path, span_s: int) -> Series:
    with path.open(encoding="ascii", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header != _HEADER:
            raise ContractError(f"{path} is no table of bars", cause=f"its header is {header}", fix=",".join(_HEADER))
        return Series.of((Bar(int(opens) // 1000, ",".join(values)) for opens, *values in rows), span_s=span_s)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as fault:
        raise ContractError(f"{path} is no JSON", cause=str(fault), fix="record it again, or remove it") from fault
