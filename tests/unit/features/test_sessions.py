"""When a bar is known, and how far a series is behind."""

from __future__ import annotations

import numpy as np
import pytest

from services.features.domain.sessions import (
    Market,
    available_at,
    date_text,
    interval_length,
    is_between_sessions,
    missing_sessions,
    sessions_behind,
)
from shared.errors import ContractError
from tests.unit.features import made
from tests.unit.features.made import CRYPTO, MANILA, NEW_YORK, stamp


def known(bar, market, interval="1d"):
    (at,) = available_at(np.array([stamp(bar)]), market, interval)
    return np.datetime_as_string(np.datetime64(int(at), "us"), unit="s")


def test_a_daily_bar_is_known_at_its_sessions_close_which_moves_with_summer_time():
    assert known("2021-03-12", NEW_YORK) == "2021-03-12T21:00:00"
    assert known("2021-03-15", NEW_YORK) == "2021-03-15T20:00:00"
    assert known("2021-11-05", NEW_YORK) == "2021-11-05T20:00:00"
    assert known("2021-11-08", NEW_YORK) == "2021-11-08T21:00:00"


def test_a_half_day_is_known_at_its_early_close():
    assert known("2021-11-26", NEW_YORK) == "2021-11-26T18:00:00"


def test_a_session_east_of_utc_closes_on_its_own_date():
    assert known("2021-12-15", MANILA)[:10] == "2021-12-15"


def test_where_the_market_never_closes_a_bar_is_known_at_the_next_midnight():
    assert known("2021-12-15", CRYPTO) == "2021-12-16T00:00:00"
    assert known("2021-12-15", Market("America/New_York", "24x7:1", NEW_YORK.sessions)) == "2021-12-16T00:00:00"


@pytest.mark.parametrize(
    ("zone", "end"),
    [
        ("Asia/Manila", "2021-07-15T16:00:00"),
        ("America/New_York", "2021-07-16T04:00:00"),
        ("Pacific/Kiritimati", "2021-07-15T10:00:00"),
        ("Etc/GMT+12", "2021-07-16T12:00:00"),
        ("UTC", "2021-07-16T00:00:00"),
    ],
)
def test_with_a_zone_and_no_calendar_a_bar_is_known_at_the_end_of_its_date_there(zone, end):
    assert known("2021-07-15", Market(zone)) == end


def test_with_neither_zone_nor_calendar_a_bar_is_known_fourteen_hours_after_its_utc_day():
    assert known("2021-07-15", Market()) == "2021-07-16T14:00:00"


def test_a_date_that_the_calendar_does_not_have_ends_with_its_date_in_the_zone():
    assert known("2021-07-04", NEW_YORK) == "2021-07-05T04:00:00"  # a Sunday
    assert known("1985-07-15", NEW_YORK) == "1985-07-16T04:00:00"  # before the calendar begins
    assert known("2093-07-15", NEW_YORK) == "2093-07-16T04:00:00"  # after it ends


def test_where_midnight_is_skipped_the_date_ends_with_the_change():
    """In Beirut the clock went from 00:00 to 01:00 on 2021-03-28."""
    assert known("2021-03-27", Market("Asia/Beirut")) == "2021-03-27T22:00:00"


def test_where_midnight_comes_twice_the_later_one_counts():
    """In Havana the clock went back from 01:00 to 00:00 on 2021-11-07."""
    assert known("2021-11-06", Market("America/Havana")) == "2021-11-07T05:00:00"


@pytest.mark.parametrize("name", ["Nowhere/Else", "", "../../etc/passwd", "UTC\0", "x" * 5000])
def test_a_zone_that_is_none_is_one_that_nobody_knows(name):
    assert known("2021-07-15", Market(name)) == "2021-07-16T14:00:00"


@pytest.mark.parametrize(
    ("bar", "interval", "end"),
    [
        ("2021-07-15T13:30:00", "1m", "2021-07-15T13:31:00"),
        ("2021-07-15T13:30:00", "15m", "2021-07-15T13:45:00"),
        ("2021-07-15T13:30:00", "4h", "2021-07-15T17:30:00"),
    ],
)
def test_a_bar_shorter_than_a_day_is_known_at_its_end(bar, interval, end):
    assert known(bar, NEW_YORK, interval) == end


def test_a_week_is_known_when_its_last_day_ended_and_never_before_its_last_session_closed():
    assert known("2021-07-12", CRYPTO, "1w") == "2021-07-19T00:00:00"
    assert known("2021-07-12", NEW_YORK, "1w") >= "2021-07-16T20:00:00"


def test_no_bar_is_known_before_its_day_began_in_any_zone():
    """A rating may be late, never early: the trading date itself is the least that has to pass."""
    stamps = np.array([stamp("2021-01-01") + day * 86_400_000_000 for day in range(730)])
    for market in (NEW_YORK, MANILA, CRYPTO, Market("Asia/Manila"), Market("America/New_York"), Market()):
        assert (available_at(stamps, market, "1d") > stamps).all()
        assert (np.diff(available_at(stamps, market, "1d")) > 0).all()


def test_stamps_may_come_in_any_order():
    stamps = np.array([stamp(day) for day in ("2021-07-15", "2021-03-12", "2021-07-15", "2021-11-26")])
    backwards = available_at(stamps[::-1], NEW_YORK, "1d")[::-1]
    assert (available_at(stamps, NEW_YORK, "1d") == backwards).all()


@pytest.mark.parametrize("interval", ["", "1x", "1M", "d1", "-1d", "1 d", "1001d"])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ContractError, match="is not minutes"):
        interval_length(interval)


@pytest.mark.parametrize(
    ("last", "as_of", "behind"),
    [
        ("2021-12-15", "2021-12-15T20:59:59", 0),  # its own session is still open
        ("2021-12-15", "2021-12-15T21:00:00", 0),
        ("2021-12-15", "2021-12-16T20:59:59", 0),
        ("2021-12-15", "2021-12-16T21:00:00", 1),
        ("2021-12-23", "2021-12-27T20:00:00", 0),  # 24 December 2021 was a holiday
        ("2021-12-23", "2021-12-27T21:00:00", 1),
        ("2021-12-15", "2021-12-01T00:00:00", 0),  # a bar from after as_of is not behind
    ],
)
def test_sessions_that_closed_after_the_last_bar_count(last, as_of, behind):
    assert sessions_behind(stamp(last), stamp(as_of), NEW_YORK) == behind


@pytest.mark.parametrize(
    ("market", "as_of", "behind"),
    [
        (Market(), "2021-12-16T12:00:00", 0),
        (Market(), "2021-12-17T12:00:00", 1),
        (Market(), "2021-12-20T12:00:00", 2),
        (CRYPTO, "2021-12-16T12:00:00", 0),
        (CRYPTO, "2021-12-20T12:00:00", 4),
    ],
)
def test_without_a_calendar_weekdays_count_and_every_day_of_a_market_that_never_closes(market, as_of, behind):
    assert sessions_behind(stamp("2021-12-15"), stamp(as_of), market) == behind


@pytest.mark.parametrize(
    ("instant", "date"),
    [
        ("2021-12-15T20:59:00", None),  # open
        ("2021-12-15T21:00:00", "2021-12-15"),
        ("2021-12-16T14:29:00", "2021-12-15"),
        ("2021-12-16T14:30:00", None),
        ("2021-12-18T12:00:00", "2021-12-17"),  # a Saturday
        ("1989-01-01T00:00:00", None),  # before the calendar
    ],
)
def test_between_two_sessions_a_screener_shows_the_one_that_closed(instant, date):
    found = is_between_sessions(stamp(instant), NEW_YORK)
    assert found == (None if date is None else stamp(date))


def test_without_a_calendar_nobody_can_say_what_a_screener_shows():
    assert is_between_sessions(stamp("2021-12-18"), Market("Asia/Manila")) is None


def absent(stamps, market, interval):
    return [date_text(int(one)) for one in missing_sessions(np.array([stamp(s) for s in stamps]), market, interval)]


def test_daily_sessions_between_the_first_and_the_last_bar_are_missed_by_date():
    assert absent(["2021-12-15", "2021-12-20"], NEW_YORK, "1d") == ["2021-12-16", "2021-12-17"]
    assert absent(["2021-12-23", "2021-12-27"], NEW_YORK, "1d") == []


def test_an_hour_within_a_session_is_enough_for_it():
    stamps = ["2021-12-15T19:30:00", "2021-12-16T14:30:00", "2021-12-20T14:30:00"]
    assert absent(stamps, NEW_YORK, "1h") == ["2021-12-17"]


def test_a_session_that_begins_on_the_utc_day_before_is_its_own_date():
    sydney = Market("Australia/Sydney", "1000-1600", made.CALENDARS.sessions("XASX"))
    # 10:00 in Sydney's summer is 23:00 UTC of the day before.
    assert absent(["2021-12-14T23:00:00", "2021-12-15T23:00:00", "2021-12-16T23:00:00"], sydney, "1h") == []


def test_a_week_covers_its_days():
    assert absent(["2021-12-06", "2021-12-13", "2021-12-27"], NEW_YORK, "1w") == [
        "2021-12-20", "2021-12-21", "2021-12-22", "2021-12-23",
    ]  # fmt: skip


def test_without_a_calendar_or_bars_no_session_is_missed():
    assert absent(["2021-12-15", "2021-12-20"], Market("America/New_York"), "1d") == []
    assert absent([], NEW_YORK, "1d") == []


def test_a_stamp_is_shown_as_its_date_and_with_its_time_where_it_has_one():
    assert date_text(stamp("2021-12-15")) == "2021-12-15"
    assert date_text(stamp("2021-12-15T14:30:00")) == "2021-12-15T14:30:00Z"
