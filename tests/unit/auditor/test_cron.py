from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from services.auditor.domain.cron import read_cron
from shared.errors import ContractError


def times(text: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    instant = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        instant = read_cron(text).after(instant, ZoneInfo(zone))
        found.append(f"{instant:%a %Y-%m-%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 1 * * *", ["Sat 2021-12-18 01:00", "Sun 2021-12-19 01:00"]),
        ("*/20 9-10 * * *", ["Fri 2021-12-17 09:40", "Fri 2021-12-17 10:00"]),
        ("30 1 * * mon-fri", ["Mon 2021-12-20 01:30", "Tue 2021-12-21 01:30"]),
        ("0 0 1 jan,jul *", ["Sat 2022-01-01 00:00", "Fri 2022-07-01 00:00"]),
        ("0 0 13 * 5", ["Fri 2021-12-24 00:00", "Fri 2021-12-31 00:00"]),
        ("0 0 * * 7", ["Sun 2021-12-19 00:00", "Sun 2021-12-26 00:00"]),
        ("5/25 12 * * *", ["Fri 2021-12-17 12:05", "Fri 2021-12-17 12:30"]),
        ("0 0 29 2 *", ["Thu 2024-02-29 00:00", "Tue 2028-02-29 00:00"]),
    ],
)
def test_the_next_times_of_a_cron_text(text: str, expected: list[str]) -> None:
    assert times(text, "2021-12-17T09:25:30", 2) == expected


def test_a_wall_clock_time_stays_when_the_zone_changes_its_offset() -> None:
    assert times("0 9 * * *", "2021-11-05T20:00:00", 3, "America/New_York") == [
        "Sat 2021-11-06 13:00",
        "Sun 2021-11-07 14:00",
        "Mon 2021-11-08 14:00",
    ]


def test_an_hour_that_comes_twice_is_due_once() -> None:
    assert times("30 1 * * *", "2021-11-06T20:00:00", 2, "America/New_York") == [
        "Sun 2021-11-07 05:30",
        "Mon 2021-11-08 06:30",
    ]


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* * * * fry", "*/0 * * * *", "5-1 * * * *", "a-b * * * *"]
)
def test_what_is_no_cron_text_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        read_cron(text)


def test_a_date_that_never_comes_is_refused_instead_of_searched_for_ever() -> None:
    with pytest.raises(ContractError, match="never matches"):
        times("0 0 31 2 *", "2021-12-17T00:00:00", 1)
