"""Bars of an existing house: what is sound is stored, what is not is named, and nothing that is stored changes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from services.fetcher.takeover import import_bars
from shared.bars import PRICES, BarsTable
from shared.errors import NotFoundError
from shared.paths import Home
from tests.fixtures_dir import FIXTURES, needs_fixtures
from tests.unit.features import made

NOW = datetime(2022, 1, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "data")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    for place in ("bars", "bars/1h"):
        (folder / place).mkdir(parents=True)
    return folder


def taken(old: Path, home: Home, **asked):
    return import_bars(old, home, clock=lambda: NOW, **asked)


def stored(home: Home, symbol: str, interval: str = "1d") -> pd.DataFrame:
    return BarsTable.open(home.bars_table(interval, symbol)).read()


def test_a_dry_run_says_what_would_be_taken_and_writes_nothing(old, home):
    made.bars(30).to_parquet(old / "bars" / "PSE%3AJFC.parquet")
    (report,) = taken(old, home)
    assert (report.interval, report.symbols, report.rows, report.added, report.refused) == ("1d", 1, 30, 30, {})
    assert not home.root.exists()


def test_every_way_to_lay_out_bars_is_understood_and_comes_back_exactly(old, home):
    bars = {name: made.bars(30, seed=n) for n, name in enumerate(["PSE:JFC", "PSE:BDO", "X:NAIVE", "CME_MINI:ES1!"])}
    bars["PSE:JFC"].to_parquet(old / "bars" / "PSE%3AJFC.parquet")
    bars["PSE:BDO"].reset_index().rename(columns=str.upper).to_parquet(old / "bars" / "PSE_BDO.parquet")
    bars["X:NAIVE"].tz_localize(None).iloc[::-1].to_parquet(old / "bars" / "X:NAIVE.parquet")
    columns = bars["CME_MINI:ES1!"].reset_index(names="date").assign(symbol="CME_MINI:ES1!")
    columns.to_parquet(old / "bars" / "any name.parquet")
    hourly = made.bars(48, seed=9, freq="h")
    hourly.to_parquet(old / "bars" / "1h" / "PSE_JFC.parquet")
    both = pd.concat([made.bars(5).assign(symbol="A:ONE"), made.bars(5, seed=2).assign(symbol="A:TWO")])
    both.to_parquet(old / "bars.parquet")
    daily, hours = sorted(taken(old, home, apply=True), key=lambda report: report.rows)[::-1]
    assert (daily.symbols, daily.added, daily.refused) == (6, 130, {})
    assert (hours.interval, hours.added) == ("1h", 48)
    for symbol, frame in bars.items():
        pd.testing.assert_frame_equal(stored(home, symbol), frame[list(PRICES)], check_freq=False)
    pd.testing.assert_frame_equal(stored(home, "PSE:JFC", "1h"), hourly[list(PRICES)], check_freq=False)


def test_the_same_house_again_adds_nothing_and_more_bars_only_themselves(old, home):
    frame = made.bars(40)
    path = old / "bars" / "PSE_JFC.parquet"
    frame.iloc[:30].to_parquet(path)
    taken(old, home, apply=True)
    (again,) = taken(old, home, apply=True)
    assert (again.added, again.unchanged) == (0, 30)
    assert BarsTable.open(home.bars_table("1d", "PSE:JFC")).info().version == 1
    frame.to_parquet(path)
    (more,) = taken(old, home, apply=True)
    assert (more.added, more.unchanged) == (10, 30)
    pd.testing.assert_frame_equal(stored(home, "PSE:JFC"), frame, check_freq=False)


def test_stored_bars_are_never_changed_by_an_import(old, home):
    frame = made.bars(30)
    BarsTable.open(home.bars_table("1d", "PSE:JFC")).append(frame.iloc[10:20], run_id="fetched")
    other = frame.copy()
    other.iloc[12, 3] += 0.01
    other.to_parquet(old / "bars" / "PSE_JFC.parquet")
    (report,) = taken(old, home, apply=True)
    assert report.refused == {"PSE:JFC": ("1 bars differ from those that are stored",)}
    pd.testing.assert_frame_equal(stored(home, "PSE:JFC"), frame.iloc[10:20], check_freq=False)


def _negative(frame):
    frame.iloc[5, 3] = -1.0


def _infinite(frame):
    frame.iloc[5, 1] = np.inf


def _crossed(frame):
    frame.iloc[5, 1], frame.iloc[5, 2] = frame.iloc[5, 2], frame.iloc[5, 1] + 1


def _half(frame):
    frame.iloc[5, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (_negative, "prices that are not positive and finite: 1 (2021-01-09 00:00)"),
        (_infinite, "prices that are not positive and finite: 1 (2021-01-09 00:00)"),
        (_half, "prices that are not positive and finite: 1 (2021-01-09 00:00)"),
        (_crossed, "high below low: 1 (2021-01-09 00:00)"),
        (lambda frame: pd.concat([frame, frame.iloc[3:5]]), "two bars of one stamp: 2 (2021-01-07 00:00, …)"),
        (lambda frame: frame.shift(freq="2h"), "daily bars that are not of 00:00 UTC of their trading date: 30"),
        (lambda frame: frame.shift(freq="400D"), "bars that have not begun: 30"),
        (lambda frame: frame.iloc[:0], "it has no bars"),
        (lambda frame: frame.drop(columns="high"), "the file holds no bars (no high"),
        (lambda frame: frame.astype(str) + "x", "the file holds no bars"),
        (lambda frame: frame.reset_index(drop=True), "no stamps"),
        (lambda frame: frame.set_axis(frame.index.asi8, axis=0).rename_axis("ts"), "the stamps in ts are numbers"),
    ],
)
def test_a_broken_symbol_is_named_with_its_flaw_and_stops_no_other(old, home, change, flaw):
    frame = made.bars(30)
    changed = change(frame)
    (frame if changed is None else changed).to_parquet(old / "bars" / "PSE_JFC.parquet")
    made.bars(30).to_parquet(old / "bars" / "PSE_SM.parquet")
    (report,) = taken(old, home, apply=True)
    ((_, flaws),) = report.refused.items()
    assert any(flaw in text for text in flaws), flaws
    assert (report.symbols, report.added) == (1, 30)
    assert stored(home, "PSE:JFC").empty
    assert len(stored(home, "PSE:SM")) == 30


def test_files_that_are_none_and_names_that_are_no_symbols_are_named(old, home):
    (old / "bars" / "PSE_JFC.parquet").write_bytes(b"not parquet")
    for name in ("A_B_C", "JFC", "..%2F..%2Fx", "pse_jfc"):
        made.bars(5).to_parquet(old / "bars" / f"{name}.parquet")
    (old / "bars" / "nightly").mkdir()
    made.bars(5).to_parquet(old / "bars" / "nightly" / "PSE_SM.parquet")
    daily, nightly = taken(old, home, apply=True)
    assert sorted(daily.refused) == [
        "..%2F..%2Fx.parquet",
        "A_B_C.parquet",
        "JFC.parquet",
        "PSE_JFC.parquet",
        "pse_jfc.parquet",
    ]
    assert "PSE_SM.parquet" in nightly.refused
    assert not home.root.exists()


def test_a_house_without_bars_is_refused(tmp_path, home):
    with pytest.raises(NotFoundError, match="has no bars"):
        taken(tmp_path, home)


@needs_fixtures
def test_real_bars_come_over_and_a_real_reverse_split_is_the_gates_to_judge(old, home):
    """Recorded daily bars, as another house would hold them; DOGE's +392 % in a day is among them, and AIG's split."""
    coins = sorted((FIXTURES / "bars" / "binance_spot_1d").glob("*.csv"))
    for path in coins:
        frame = pd.read_csv(path)
        frame["ts"] = pd.to_datetime(frame.pop("open_time_ms"), unit="ms", utc=True)
        frame.to_parquet(old / "bars" / f"BINANCE_{path.stem}.parquet")
    shares = sorted((FIXTURES / "bars" / "us_equity_1d").glob("*.csv"))
    for path in shares:
        pd.read_csv(path).to_parquet(old / "bars" / f"NYSE_{path.stem}.parquet")
    files = [*coins, *shares]
    (report,) = import_bars(old, home, apply=True, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert report.symbols + len(report.refused) == len(files)
    assert report.symbols >= len(files) - 1, report.refused
    assert report.added > 10_000
