"""Recorded markets with their real dirt: judged by name, and rated without a crash."""

from __future__ import annotations

import io
import zipfile
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from asof.upstream.pse import locate
from services.features.adapters.calendars import ExchangeCalendars
from services.features.domain.bars_batch import BarsBatch
from services.features.domain.rating import rate
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.sessions import Market
from services.features.domain.validation import IngestionValidator
from services.features.domain.validation_features import FEATURES
from shared.errors import NotFoundError
from tests.fixtures_dir import FIXTURES, needs_fixtures
from tests.unit.features import made

CALENDARS = ExchangeCalendars()


def recorded(folder):
    frames = {}
    for path in sorted((FIXTURES / "bars" / folder).glob("*.csv")):
        frame = pd.read_csv(path)
        if "open_time_ms" in frame:
            index = pd.to_datetime(frame.pop("open_time_ms"), unit="ms", utc=True).dt.normalize()
        else:
            index = pd.to_datetime(frame.pop("date"), utc=True)
        frames[f"X:{path.stem}"] = frame.set_index(pd.DatetimeIndex(index, name="ts")).astype("float64")
    return frames


@pytest.fixture(scope="module")
def manila():
    """The 257 stocks of the Philippine Stock Exchange, read from the wheel's own file."""
    try:
        folder = locate()
    except NotFoundError as fault:
        pytest.skip(str(fault))
    packed = zipfile.ZipFile(folder / "merged_stock_data.zip")
    table = pd.read_csv(io.BytesIO(packed.read(packed.namelist()[0])), header=[0, 1], index_col=0)
    table = table[table.index != "dt"]
    table = table.set_axis(pd.to_datetime(table.index, utc=True)).apply(pd.to_numeric)
    frames = {}
    for name in table.columns.get_level_values(0).unique():
        frame = table[name].dropna(subset=["close"]).rename(columns={"value": "volume"})
        frames[f"PSE:{name}"] = frame.assign(volume=frame["volume"] / frame["close"].where(frame["close"] > 0, 1.0))
    assert sum(map(len, frames.values())) == 538_408
    return frames


def test_the_philippine_stocks_that_moved_too_far_are_dropped_by_name_and_the_dirt_is_counted(manila):
    report = IngestionValidator().validate(manila)
    assert {symbol: finding.message[:68] for symbol, finding in report.rejected.items()} == {
        "PSE:COSCO": "close went from 0.175 to 17.86 on 2013-05-14, +10,106%, more than +5",
        "PSE:DITO": "close went from 0.04 to 4.6 on 2010-09-20, +11,400%, more than +500%",
        "PSE:GREEN": "close went from 0.0082 to 0.69 on 2014-10-30, +8,315%, more than +50",
        "PSE:MARC": "close went from 0.023 to 2.22 on 2010-10-12, +9,552%, more than +500",
        "PSE:OM": "close went from 0.01 to 1.1 on 2011-07-29, +10,900%, more than +500%",
        "PSE:PA": "close went from 0.038 to 6.51 on 2019-12-04, +17,032%, more than +50",
    }
    assert Counter(reason for reason in report.set_aside if reason) == {
        "all zero": 37,
        "open or close outside low to high": 25,
        "negative or infinite volume": 2,
    }


def test_every_philippine_stock_is_staged_or_refused_by_name_and_none_is_both(manila):
    market = Market("Asia/Manila", "0930-1530", CALENDARS.sessions("XPHS"))
    result = rate(
        BarsBatch.of(dict(sorted(manila.items()))),
        markets=dict.fromkeys(manila, market),
        ticks={},
        rules="screener",
        as_of=made.stamp("2021-12-15T08:00:00"),
        interval="1d",
    )
    assert set(result.staged) | set(result.refused) == set(manila)
    assert not set(result.staged) & set(result.refused)
    kinds = Counter(refusal.finding.code for refusal in result.refused.values())
    assert kinds["toxic"] == 6
    assert set(kinds) <= {"toxic", "stale", "nan_density"}
    # What is staged is what the stock has alone.
    batch = result.report.batch
    for symbol in ("PSE:JFC", "PSE:ABSP"):
        rows = batch.of_symbols({symbol})
        alone = TechnicalRatings.compute(result.report.bars(symbol))
        for name in FEATURES:
            usable = result.values[name][rows & result.report.usable]
            assert np.array_equal(usable, alone[name], equal_nan=True)


@needs_fixtures
def test_doges_best_day_survives():
    report = IngestionValidator().validate(recorded("binance_spot_1d"))
    assert report.rejected == {}
    bars = report.bars("X:DOGEUSDT")["close"]
    assert bars.pct_change().max() > 2.0


@needs_fixtures
def test_a_series_of_two_funds_under_one_name_is_toxic_and_its_neighbours_go_on():
    frames = recorded("us_equity_1d")
    report = IngestionValidator().validate(frames)
    assert list(report.rejected) == ["X:USO"]
    assert report.rejected["X:USO"].message.startswith("close went from 0.06 to 68 on 2006-04-10, +113,233%")
    assert set(report.accepted) == set(frames) - {"X:USO"}


@needs_fixtures
def test_every_recorded_series_rates_alone_as_it_does_among_the_others():
    frames = {**recorded("binance_spot_1d"), **recorded("us_equity_1d")}
    result = rate(
        BarsBatch.of(dict(sorted(frames.items()))),
        markets={},
        ticks={},
        rules="screener",
        as_of=made.stamp("2100-01-01"),
        interval="1d",
    )
    batch = result.report.batch
    for symbol, frame in frames.items():
        if symbol in result.report.rejected:
            continue
        assert result.refused[symbol].finding.code == "stale"
        usable = batch.of_symbols({symbol}) & result.report.usable
        if usable.sum() == len(frame):
            alone = TechnicalRatings.compute(frame)
            for name in FEATURES:
                assert np.array_equal(result.values[name][usable], alone[name], equal_nan=True)
