"""Time is passed in. A clock is a function that returns an aware UTC datetime; reads accept text and fill in UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

from shared.errors import ContractError

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    return datetime.now(UTC)


def parse_instant(value: str | date | datetime, *, name: str = "instant") -> datetime:
    """An aware UTC datetime from ISO 8601 text, a date, or a datetime; what has no zone is UTC.

    Raises ContractError, naming `name`, for anything else.
    """
    if isinstance(value, datetime):
        parsed = value
    elif isinstance(value, date):
        parsed = datetime(value.year, value.month, value.day, tzinfo=UTC)
    else:
        try:
            parsed = datetime.fromisoformat(value.strip())
        except (ValueError, AttributeError) as fault:
            raise ContractError(
                f"{name} {value!r} is no instant",
                cause=str(fault),
                fix="give ISO 8601, for example 2021-06-01T00:00:00Z",
            ) from fault
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def format_instant(value: datetime) -> str:
    """ISO 8601 in UTC with a `Z`; microseconds only where there are any. Refuses a naive datetime."""
    if value.tzinfo is None:
        raise ContractError(f"{value!r} has no time zone", fix="pass an aware datetime")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
