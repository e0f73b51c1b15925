"""Series become bars that may be stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fetcher.domain.faults import Garbled
from services.fetcher.domain.series import clean, every_step, make_rows, missing_sessions
from services.fetcher.domain.sessions import DAY_S, read_hours

MANILA = read_hours("Asia/Manila", "0930-1530")
ALWAYS = read_hours(None, "24x7")
OPEN = int(datetime(2021, 12, 13, 1, 30, tzinfo=UTC).timestamp())
LATE = datetime(2030, 1, 1, tzinfo=UTC)


def rows(*starts, close=4.0):
    return make_rows([[s, 1.0, 5.0, 0.5, close + i, 100.0] for i, s in enumerate(starts)])


def test_a_daily_bar_stands_at_midnight_utc_of_its_trading_date():
    series = clean(rows(OPEN, OPEN + DAY_S), interval="1d", hours=MANILA, cutoff=LATE)
    assert series.index.tolist() == [OPEN - OPEN % DAY_S, OPEN - OPEN % DAY_S + DAY_S]
    assert series.warnings == ()


def test_the_forming_bar_is_dropped_and_the_closed_one_kept():
    closes = datetime.fromtimestamp(OPEN, UTC) + timedelta(days=1, hours=6)
    before = clean(rows(OPEN, OPEN + DAY_S), interval="1d", hours=MANILA, cutoff=closes - timedelta(seconds=1))
    after = clean(rows(OPEN, OPEN + DAY_S), interval="1d", hours=MANILA, cutoff=closes)
    assert (len(before.index), len(after.index)) == (1, 2)


def test_an_intraday_bar_is_final_when_its_interval_is_over():
    start = OPEN - OPEN % 14400
    cutoff = datetime.fromtimestamp(start + 2 * 14400 - 1, UTC)
    series = clean(rows(start, start + 14400), interval="4h", hours=ALWAYS, cutoff=cutoff)
    assert series.index.tolist() == [start]


def test_a_bar_sent_twice_is_taken_once_and_the_last_one_wins():
    series = clean(rows(OPEN, OPEN), interval="1d", hours=MANILA, cutoff=LATE)
    assert series.values[:, 3].tolist() == [5.0]
    assert series.warnings[0].startswith("duplicates: 1 ")


def test_bars_off_the_grid_of_a_market_that_never_closes_are_reported():
    midnight = OPEN - OPEN % DAY_S
    series = clean(rows(midnight, midnight + DAY_S + 60), interval="1d", hours=ALWAYS, cutoff=LATE)
    assert series.warnings[0].startswith("unaligned: 1 ")


def test_a_row_without_prices_is_left_out_and_said_so():
    raw = make_rows([[OPEN, 1, 2, 0.5, None, 3], [OPEN + DAY_S, 1, 2, 0.5, 1, 3]])
    series = clean(raw, interval="1d", hours=MANILA, cutoff=LATE)
    assert len(series.index) == 1
    assert "no prices: 1" in series.warnings[0]


def test_a_bar_without_volume_keeps_its_prices():
    series = clean(make_rows([[OPEN, 1, 2, 0.5, 1]]), interval="1d", hours=MANILA, cutoff=LATE)
    assert series.values[0, :4].tolist() == [1, 2, 0.5, 1]
    assert np.isnan(series.values[0, 4])


@pytest.mark.parametrize("raw", [[[1, 2, 3]], [[OPEN, 1, 2, 3, 4, 5, 6]], [[OPEN, "x", 1, 1, 1, 1]], ["abcdef"]])
def test_a_row_of_another_shape_is_never_shifted(raw):
    with pytest.raises(Garbled):
        make_rows(raw)


@pytest.mark.parametrize("start", [OPEN * 1000, -5, 0, float("nan")])
def test_a_start_that_is_no_instant_in_seconds_is_refused(start):
    with pytest.raises(Garbled):
        clean(rows(start), interval="1d", hours=MANILA, cutoff=LATE)


def test_daily_bars_of_unknown_hours_are_refused_unless_they_start_at_midnight():
    with pytest.raises(Garbled):
        clean(rows(OPEN), interval="1d", hours=None, cutoff=LATE)
    assert len(clean(rows(OPEN - OPEN % DAY_S), interval="1d", hours=None, cutoff=LATE).index) == 1


@given(st.permutations(range(12)))
def test_any_order_of_arrival_gives_the_same_series(order):
    raw = rows(*(OPEN + day * DAY_S for day in range(12)))
    straight = clean(raw, interval="1d", hours=MANILA, cutoff=LATE)
    shuffled = clean(raw[list(order)], interval="1d", hours=MANILA, cutoff=LATE)
    assert np.array_equal(straight.index, shuffled.index)
    assert np.array_equal(straight.values, shuffled.values)


def test_sessions_without_a_bar_are_counted_and_named():
    index = np.array([0, 1, 4, 5], dtype=np.int64) * DAY_S
    gap = missing_sessions(index, every_step(index, "1d"))
    assert gap == "gaps: 2 sessions without a bar (1970-01-03, 1970-01-04)"
    assert missing_sessions(index[:2], every_step(index[:2], "1d")) is None
