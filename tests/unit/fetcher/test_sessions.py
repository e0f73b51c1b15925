"""Trading dates and closes of sessions."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from services.fetcher.domain.faults import Untrusted
from services.fetcher.domain.sessions import (
    bars_since,
    closes_of,
    from_seconds,
    interval_seconds,
    read_hours,
    trading_dates,
)


def seconds(*instants: str) -> np.ndarray:
    return np.array([int(datetime.fromisoformat(i).replace(tzinfo=UTC).timestamp()) for i in instants], dtype=np.int64)


def test_a_manila_morning_belongs_to_the_date_it_has_in_manila():
    hours = read_hours("Asia/Manila", "0930-1530")
    dates = trading_dates(seconds("2021-12-15T01:30"), hours)
    assert from_seconds(dates[0]) == datetime(2021, 12, 15, tzinfo=UTC)
    assert from_seconds(closes_of(dates, hours, "1d")[0]) == datetime(2021, 12, 15, 7, 30, tzinfo=UTC)


def test_an_auckland_session_is_not_dated_by_the_utc_day_before():
    hours = read_hours("Pacific/Auckland", "1000-1645")
    dates = trading_dates(seconds("2021-12-14T21:00"), hours)
    assert from_seconds(dates[0]) == datetime(2021, 12, 15, tzinfo=UTC)


def test_a_futures_session_that_starts_in_the_evening_belongs_to_the_next_day():
    hours = read_hours("America/Chicago", "1700-1600")
    dates = trading_dates(seconds("2021-12-12T23:00"), hours)  # Sunday, 17:00 in Chicago
    assert from_seconds(dates[0]) == datetime(2021, 12, 13, tzinfo=UTC)
    assert from_seconds(closes_of(dates, hours, "1d")[0]) == datetime(2021, 12, 13, 22, 0, tzinfo=UTC)


def test_closes_follow_daylight_saving_time():
    hours = read_hours("America/New_York", "0930-1600")
    dates = seconds("2021-03-12T00:00", "2021-03-15T00:00")
    assert [from_seconds(s).hour for s in closes_of(dates, hours, "1d")] == [21, 20]


def test_a_market_that_never_closes_is_final_at_the_end_of_the_utc_day():
    hours = read_hours(None, "24x7")
    assert from_seconds(closes_of(seconds("2021-12-15T00:00"), hours, "1d")[0]) == datetime(2021, 12, 16, tzinfo=UTC)


def test_a_lunch_break_does_not_end_the_session():
    hours = read_hours("Asia/Tokyo", "0900-1130,1230-1530")
    assert hours is not None
    assert (hours.opens, hours.closes) == (540, 930)


@pytest.mark.parametrize(
    ("zone", "session"), [("Mars/Olympus", "0930-1600"), ("UTC", "whenever"), ("../etc", "0930-1600")]
)
def test_what_nobody_can_read_is_refused(zone, session):
    with pytest.raises(Untrusted):
        read_hours(zone, session)


def test_unknown_hours_stay_unknown():
    assert read_hours("Asia/Manila", None) is None
    assert read_hours(None, "0930-1530") is None


def test_the_bars_asked_for_reach_back_over_the_overlap():
    last, now = datetime(2021, 12, 10, tzinfo=UTC), datetime(2021, 12, 15, 8, tzinfo=UTC)
    assert bars_since(last, now, "1d", 10) == 16
    assert bars_since(now, last, "1d", 10) == 11


def test_intervals_are_seconds_and_months_are_refused():
    assert [interval_seconds(i) for i in ("1m", "4h", "1d", "d", "1w")] == [60, 14400, 86400, 86400, 604800]
    with pytest.raises(Untrusted):
        interval_seconds("1M")
