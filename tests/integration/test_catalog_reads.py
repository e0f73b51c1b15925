"""The bulk reads: join, at, and renaming, against one read at a time."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from services.catalog import MetadataCatalog
from shared.errors import ContractError

T = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> MetadataCatalog:
    """Forty symbols with some late events, some symbols beginning late, over thirty days."""
    cat = MetadataCatalog.open(tmp_path_factory.mktemp("reads") / "symbols", clock=lambda: T + timedelta(days=60))
    chance = random.Random(3)
    for number in range(25):
        records = [
            {"symbol": f"PSE:S{which}", "sector": f"{chance.randrange(4)}", "pricescale": chance.randrange(3)}
            for which in chance.sample(range(40), 12)
        ]
        at = T + timedelta(days=chance.uniform(0, 30))
        cat.upsert_symbols(records, effective_at=at, known_at=T + timedelta(days=30 + number))
    return cat


def trades(cat: MetadataCatalog, count: int = 400) -> pd.DataFrame:
    chance = np.random.default_rng(4)
    symbols = sorted(set(cat.history()["symbol"]))
    stamps = pd.DatetimeIndex([T + timedelta(days=float(day)) for day in chance.uniform(-1, 40, count)]).as_unit("us")
    return pd.DataFrame(
        {"symbol": chance.choice(symbols, count), "ts": stamps, "qty": np.arange(count)},
        index=chance.permutation(count) * 7,
    )


def one_by_one(cat: MetadataCatalog, frame: pd.DataFrame, field: str, known_at: Any = None) -> list[Any]:
    found = [
        cat.get_instrument(row.symbol, as_of=row.ts.to_pydatetime(), known_at=known_at) for row in frame.itertuples()
    ]
    return [None if one is None else one[field] for one in found]


@pytest.mark.parametrize("known", [None, T + timedelta(days=40)])
@pytest.mark.parametrize("as_category", [False, True])
def test_a_join_says_for_each_row_what_one_read_says_and_keeps_order_and_index(
    cat: MetadataCatalog, known: Any, as_category: bool
) -> None:
    frame = trades(cat)
    if known is not None:
        frame = frame[frame["symbol"].isin(cat.history(known_at=known)["symbol"])]
    asked = frame.astype({"symbol": "category"}) if as_category else frame
    joined = cat.join(asked, known_at=known)
    assert joined.index.equals(frame.index)
    assert joined["qty"].tolist() == frame["qty"].tolist()
    for field in ("sector", "pricescale", "valid_from", "valid_until"):
        plain = [None if pd.isna(value) else value for value in joined[field]]
        assert plain == one_by_one(cat, frame, field, known)
    assert joined["sector"].isna().any()  # before a symbol's first version


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_join_takes_instants_of_any_unit_and_zone(cat: MetadataCatalog, unit: str) -> None:
    frame = trades(cat)
    frame["ts"] = frame["ts"].dt.floor("s")
    other = frame.assign(ts=frame["ts"].dt.tz_convert("Asia/Manila").dt.as_unit(unit))
    assert cat.join(other)["sector"].equals(cat.join(frame)["sector"])


def test_a_join_on_other_names_with_some_columns_marks_those_that_clash(cat: MetadataCatalog) -> None:
    frame = trades(cat).rename(columns={"symbol": "ticker", "ts": "when"}).assign(sector="mine")
    joined = cat.join(frame, on=("ticker", "when"), columns=["sector", "active"])
    assert list(joined.columns) == ["ticker", "when", "qty", "sector", "sector_catalog", "active"]
    assert set(joined["sector"]) == {"mine"}


def test_a_join_of_nothing_is_nothing_with_all_columns(cat: MetadataCatalog) -> None:
    joined = cat.join(trades(cat).head(0))
    assert len(joined) == 0
    assert "tick_size" in joined.columns


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.assign(ts=frame["ts"].dt.tz_localize(None)), "tz_localize"),
        (lambda frame: frame.assign(ts=frame["ts"].astype(str)), "no time zone"),
        (lambda frame: frame.assign(ts=frame["ts"].where(frame["qty"] != 3)), "no instant"),
        (lambda frame: frame.assign(symbol="PSE:NEVER"), "PSE:NEVER"),
        (lambda frame: frame.assign(symbol=pd.Categorical(["PSE:NEVER"] * len(frame))), "PSE:NEVER"),
        (lambda frame: frame.assign(symbol=frame["symbol"].where(frame["qty"] != 3)), "no symbol"),
        (lambda frame: frame.drop(columns="ts"), "'ts'"),
    ],
)
def test_a_join_that_cannot_be_answered_says_what_is_wrong_and_how_to_put_it_right(
    cat: MetadataCatalog, change: Any, said: str
) -> None:
    with pytest.raises(ContractError, match=said) as fault:
        cat.join(change(trades(cat)))
    assert fault.value.fix


def test_a_join_with_a_column_that_does_not_exist_names_those_that_do(cat: MetadataCatalog) -> None:
    with pytest.raises(ContractError, match="tick") as fault:
        cat.join(trades(cat), columns=["tick"])
    assert "tick_size" in str(fault.value)


def test_a_category_that_no_row_uses_is_not_asked_for(cat: MetadataCatalog) -> None:
    frame = trades(cat)
    frame["symbol"] = pd.Categorical(frame["symbol"], categories=[*sorted(set(frame["symbol"])), "PSE:NEVER"])
    assert len(cat.join(frame)) == len(frame)


@pytest.mark.parametrize("known", [None, T + timedelta(days=40)])
def test_at_has_every_symbols_version_at_that_instant_ordered_by_symbol(cat: MetadataCatalog, known: Any) -> None:
    for days in (-1, 3, 15.5, 50):
        instant = T + timedelta(days=days)
        frame = cat.at(instant, known_at=known)
        assert frame["symbol"].tolist() == sorted(frame["symbol"])
        expected = {}
        for symbol in sorted(set(cat.history()["symbol"])):
            one = cat.get_instrument(symbol, as_of=instant, known_at=known)
            if one is not None:
                expected[symbol] = (one["sector"], one["valid_from"])
        assert (
            dict(zip(frame["symbol"], zip(frame["sector"], frame["valid_from"], strict=True), strict=True)) == expected
        )


def test_history_of_one_symbol_is_its_part_of_the_whole(cat: MetadataCatalog) -> None:
    whole = cat.history()
    for symbol in ("PSE:S1", "PSE:S7", "PSE:S39"):
        part = whole[whole["symbol"] == symbol].reset_index(drop=True)
        pd.testing.assert_frame_equal(cat.history(symbol), part)
    assert cat.history("PSE:NEVER").empty
    assert list(cat.history("PSE:NEVER").dtypes) == list(whole.dtypes)


def test_a_ticker_that_changes_is_retired_and_begins_anew_with_its_attributes(tmp_path: Path) -> None:
    cat = MetadataCatalog.open(tmp_path / "symbols", clock=lambda: T)
    cat.upsert_symbols([{"symbol": "NASDAQ:FB", "sector": "Tech", "tick_size": 0.01}], effective_at="2022-01-01")
    result = cat.rename_symbol("NASDAQ:FB", "NASDAQ:META", effective_at="2022-06-09")
    assert (result.inserted, result.changed, result.version) == (("NASDAQ:META",), ("NASDAQ:FB",), 2)
    assert cat.get_instrument("NASDAQ:FB", as_of="2022-06-09")["active"] is False
    found = cat.get_instrument("NASDAQ:META", as_of="2022-06-09")
    assert (found["renamed_from"], found["sector"], found["tick_size"]) == ("NASDAQ:FB", "Tech", 0.01)
    assert cat.get_instrument("NASDAQ:META", as_of="2022-06-08") is None
    assert cat.active() == ["NASDAQ:META"]
    assert list(cat.rename_symbol("NASDAQ:NONE", "NASDAQ:X").rejected) == ["NASDAQ:NONE"]
