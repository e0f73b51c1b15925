"""Real histories, replayed in any order, end in the table that the oracle makes of the same events."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from services.catalog import MetadataCatalog
from services.catalog.domain.decide import Batch
from services.catalog.domain.schema import SYMBOLS
from services.catalog.domain.takeover import take_over
from services.fetcher.adapters.pse import band_of
from shared.errors import NotFoundError
from tests.fixtures_dir import FIXTURES, needs_fixtures
from tests.oracles.catalog_bruteforce import Told, versions

KNOWN = datetime(2026, 9, 1, tzinfo=UTC)
HOURS = {
    **{key: {"timezone": "UTC", "session": "24x7"} for key in ("BINANCE", "OKX", "BYBIT", "COINBASE", "KRAKEN")},
    **{key: {"timezone": "Unknown", "session": "Unknown"} for key in ("BINANCEUS", "OANDA", "USA")},
    "PSE": {"timezone": "Asia/Manila", "session": "0930-1530"},
}
Event = tuple[str, datetime, dict[str, Any]]


def load(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def binance(name: str, at: datetime) -> Iterable[Event]:
    for one in load(name)["symbols"]:
        filters = {item["filterType"]: item for item in one["filters"]}
        yield f"BINANCE:{one['symbol']}", at, {
            "base": one["baseAsset"],
            "quote": one["quoteAsset"],
            "tick_size": float(filters["PRICE_FILTER"]["tickSize"]),
            "lot_size": float(filters["LOT_SIZE"]["stepSize"]),
            "active": one["status"] == "TRADING",
        }  # fmt: skip


def okx(name: str, at: datetime) -> Iterable[Event]:
    for one in load(name)["data"]:
        yield f"OKX:{one['instId'].replace('-', '')}", at, {
            "base": one["baseCcy"] or None,
            "tick_size": float(one["tickSz"]),
            "lot_size": float(one["lotSz"]),
            "active": one["state"] == "live",
        }  # fmt: skip


def bybit(name: str, at: datetime) -> Iterable[Event]:
    for one in load(name)["result"]["list"]:
        yield f"BYBIT:{one['symbol']}", at, {
            "base": one["baseCoin"],
            "tick_size": float(one["priceFilter"]["tickSize"]),
            "active": one["status"] == "Trading",
        }  # fmt: skip


def lean(at: datetime, *markets: str) -> Iterable[Event]:
    """What LEAN knows of these markets, or of all."""
    with (FIXTURES / "lean" / "symbol-properties-database.crypto.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["market_ticker"] and (not markets or row["market"] in markets):
                yield f"{row['market'].upper()}:{row['market_ticker']}", at, {
                    "quote": row["quote_currency"],
                    "tick_size": float(row["minimum_price_variation"]),
                    "lot_size": float(row["lot_size"]),
                    "description": row["description"],
                }  # fmt: skip


HISTORIES = {
    "Binance and LEAN": lambda: [
        *binance("binance/spot_exchangeInfo_20211012.json", datetime(2021, 10, 12, tzinfo=UTC)),
        *lean(datetime(2023, 1, 1, tzinfo=UTC), "binance"),
        *binance("binance/spot_exchangeInfo_BTCUSDT_20250823_NOTIONAL.json", datetime(2025, 8, 23, tzinfo=UTC)),
        *binance("binance/spot_exchangeInfo_20211012.json", datetime(2025, 9, 1, tzinfo=UTC)),
    ],
    "OKX": lambda: [
        *okx("okx/instruments_SPOT_20220513.json", datetime(2022, 5, 13, tzinfo=UTC)),
        *okx("okx/instruments_SWAP_20220513.json", datetime(2022, 5, 13, tzinfo=UTC)),
        *okx("okx/nautilus_http_get_instruments_spot.json", datetime(2025, 1, 1, tzinfo=UTC)),
        *okx("okx/nautilus_http_get_instruments_swap.json", datetime(2025, 1, 1, tzinfo=UTC)),
    ],
    "LEAN, every market": lambda: [
        *lean(datetime(2023, 1, 1, tzinfo=UTC)),
        *lean(datetime(2024, 1, 1, tzinfo=UTC), "kraken", "coinbase", "oanda"),
        *binance("binance/spot_exchangeInfo_20211012.json", datetime(2025, 9, 1, tzinfo=UTC)),
        *bybit("bybit/v5_instruments-info_spot_20260809.json", datetime(2026, 8, 8, tzinfo=UTC)),
    ],
    "Bybit": lambda: [
        *bybit("bybit/nautilus_http_get_instruments_spot.json", datetime(2023, 12, 1, tzinfo=UTC)),
        *bybit("bybit/nautilus_http_get_instruments_linear.json", datetime(2024, 12, 1, tzinfo=UTC)),
        *bybit("bybit/v5_instruments-info_spot_20260809.json", datetime(2026, 8, 8, tzinfo=UTC)),
        *bybit("bybit/v5_instruments-info_linear_20260809.json", datetime(2026, 8, 9, tzinfo=UTC)),
    ],
}


def records(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [{"symbol": symbol, **fields} for symbol, _, fields in events]


def compare(
    cat: MetadataCatalog, events: Iterable[Event], known: Callable[[datetime], datetime] = lambda at: KNOWN
) -> int:
    """The whole table against the oracle; the number of versions."""
    told: dict[str, list[Told]] = {}
    for symbol, at, fields in events:
        told.setdefault(symbol, []).append(Told(at, known(at), fields))
    attributes = list(SYMBOLS.attributes)
    expected = [
        (symbol, one.valid_from, one.valid_until, one.last_confirmed, one.fields)
        for symbol in sorted(told)
        for one in versions(told[symbol], attributes, defaults=HOURS[symbol.partition(":")[0]])
    ]
    frame = cat.history()
    plain = {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns}
    found = [
        (symbol, start, end, confirmed, {name: plain[name][place] for name in attributes})
        for place, (symbol, start, end, confirmed) in enumerate(
            zip(plain["symbol"], plain["valid_from"], plain["valid_until"], plain["last_confirmed"], strict=True)
        )
    ]
    assert found == expected
    assert cat.audit() == []
    return len(found)


def put(cat: MetadataCatalog, events: Iterable[Event]) -> None:
    """One call for each instant, in the order given."""
    batches: dict[datetime, list[Mapping[str, Any]]] = {}
    for symbol, at, fields in events:
        batches.setdefault(at, []).append({"symbol": symbol, **fields})
    for at, records in batches.items():
        result = cat.upsert_symbols(records, effective_at=at, known_at=KNOWN)
        assert not result.rejected


@needs_fixtures
@pytest.mark.parametrize("name", HISTORIES)
def test_instrument_lists_of_different_dates_replay_to_the_oracles_table_in_any_order(
    name: str, tmp_path: Path
) -> None:
    # One list may name a symbol twice (spot and swap); the last word of a call is the event.
    events = list({(symbol, at): (symbol, at, fields) for symbol, at, fields in HISTORIES[name]()}.values())
    instants = sorted({at for _, at, _ in events})
    for number, order in enumerate((instants, instants[::-1], random.Random(1).sample(instants, len(instants)))):
        cat = MetadataCatalog.open(tmp_path / str(number), clock=lambda: KNOWN)
        put(cat, sorted(events, key=lambda event: order.index(event[1])))
        assert compare(cat, events) > len({symbol for symbol, _, _ in events})


def test_a_year_of_price_bands_replays_to_the_oracles_table_with_every_quiet_day_remembered(tmp_path: Path) -> None:
    from asof.upstream.pse import pse_source

    try:
        source = pse_source(tmp_path / "cache")
    except NotFoundError:
        pytest.skip("the exchange's data is not installed")
    days: dict[datetime, list[Event]] = {}
    for symbol in ("PSE:JFC", "PSE:MEG", "PSE:SCC", "PSE:ALI"):
        series = source.series[(symbol, "1d")]
        closes = [Decimal(row.split(",")[3]) for row in series.rows.decode().splitlines()]
        for opens, price in [*zip(series.opens, closes, strict=True)][-250:]:
            band = band_of(price)
            assert band is not None
            at = datetime.fromtimestamp(opens, UTC)
            days.setdefault(at, []).append((symbol, at, {"tick_size": float(band[0]), "lot_size": float(band[1])}))
    events = [event for at in sorted(days) for event in days[at]]
    cat = MetadataCatalog.open(tmp_path / "table", clock=lambda: KNOWN)
    cat.apply([Batch("upsert", records(days[at]), at, at) for at in sorted(days)])
    assert compare(cat, events, known=lambda at: at) < len(events) / 10
    backwards = MetadataCatalog.open(tmp_path / "backwards", clock=lambda: KNOWN)
    backwards.apply([Batch("upsert", records(days[at]), KNOWN, at) for at in sorted(days, reverse=True)])
    compare(backwards, events)


def test_an_own_export_is_sound_by_the_rules_for_other_houses(tmp_path: Path) -> None:
    cat = MetadataCatalog.open(tmp_path / "table", clock=lambda: KNOWN)
    for number in (3, 1, 2, 0):
        at = KNOWN - timedelta(days=10 - number)
        cat.upsert_symbols([{"symbol": "PSE:JFC", "sector": f"S{number}"}], effective_at=at)
    frame = pd.read_parquet(cat.export(tmp_path / "symbols.parquet"))
    plain = frame.astype(object).where(frame.notna(), None)
    assert take_over(plain.to_dict("records"), SYMBOLS).count == 4
