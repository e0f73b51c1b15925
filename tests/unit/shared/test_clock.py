from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from shared.clock import format_instant, parse_instant
from shared.errors import ContractError

NINE = datetime(2021, 6, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    ["2021-06-01T09:00", "2021-06-01T09:00Z", "2021-06-01T17:00+08:00", NINE.replace(tzinfo=None), NINE],
)
def test_what_has_no_zone_is_utc_and_what_has_one_is_converted(value):
    assert parse_instant(value) == NINE
    assert parse_instant(value).tzinfo == UTC


def test_a_date_is_its_midnight():
    assert parse_instant(date(2021, 6, 1)) == parse_instant("2021-06-01") == datetime(2021, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", ["", "yesterday", None, 5])
def test_what_is_no_instant_is_named(value):
    with pytest.raises(ContractError, match=r"as_of .* is no instant"):
        parse_instant(value, name="as_of")


def test_text_is_utc_with_a_z():
    assert format_instant(NINE.astimezone(timezone(timedelta(hours=8)))) == "2021-06-01T09:00:00Z"
    with pytest.raises(ContractError, match="time zone"):
        format_instant(NINE.replace(tzinfo=None))
