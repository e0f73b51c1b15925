"""When a bar becomes known, and how many sessions a series is behind.

A daily bar stands at 00:00 UTC of its trading date and is known only when that session has closed. Where it is not
known when a session closes, the latest moment that it can is taken: a rating may be late, never early.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.errors import ContractError

Stamps = NDArray[np.int64]
"""Microseconds since 1970, UTC."""

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
ALWAYS: Final = "24x7"
# No zone is later than UTC-12: its date ends 12 hours after UTC's; two more for a session that runs over midnight.
_LATEST_END: Final = 14 * 3600 * SECOND
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTERVAL: Final = re.compile(r"(\d{0,3})(m|h|d|w)")
_UNIT: Final = {"m": 60 * SECOND, "h": 3600 * SECOND, "d": DAY, "w": 7 * DAY}


@dataclass(frozen=True, slots=True)
class Sessions:
    """A calendar's sessions in order: 00:00 UTC of each trading date, and when it opens and closes, half days too."""

    dates: Stamps
    opens: Stamps
    closes: Stamps


@dataclass(frozen=True, slots=True)
class Market:
    """What is known of when a symbol trades. `sessions` is None where nobody knows its calendar."""

    timezone: str | None = None
    session: str | None = None
    sessions: Sessions | None = None

    @property
    def never_closes(self) -> bool:
        return self.session is not None and self.session.startswith(ALWAYS)


def interval_length(interval: str) -> int:
    """Microseconds of one bar. Raises ContractError for what is not minutes, hours, days or weeks."""
    match = _INTERVAL.fullmatch(interval)
    if match is None:
        raise ContractError(
            f"interval {interval!r} is not minutes (m), hours (h), days (d) or weeks (w)", fix="use 1d, for example"
        )
    return int(match[1] or 1) * _UNIT[match[2]]


def available_at(stamps: Stamps, market: Market, interval: str) -> Stamps:
    """When the bars at these stamps (ascending or not) are known.

    Daily and longer: the close of the bar's last session; at the next midnight where the market never closes; at the
    end of the date in the market's zone where its calendar is unknown or does not have the date; at the end of the
    UTC day + 14 h where the zone is unknown too, or is no zone. Shorter: the end of the bar.
    """
    length = interval_length(interval)
    if length % DAY:
        return stamps + length
    last = stamps + length - DAY
    if market.never_closes:
        return last + DAY
    dates, where = np.unique(last, return_inverse=True)
    ends = _end_of_date(dates, market.timezone)
    if market.sessions is not None:
        ends = np.where(*_closes(dates, market.sessions, ends))
    return ends[where]


def _closes(dates: Stamps, sessions: Sessions, otherwise: Stamps) -> tuple[NDArray[np.bool_], Stamps, Stamps]:
    found = np.minimum(np.searchsorted(sessions.dates, dates), len(sessions.dates) - 1)
    return sessions.dates[found] == dates, sessions.closes[found], otherwise


def _end_of_date(dates: Stamps, timezone: str | None) -> Stamps:
    zone = None if timezone is None else known_zone(timezone)
    if zone is None:
        return dates + DAY + _LATEST_END
    midnight = pd.DatetimeIndex(pd.to_datetime(dates + DAY, unit="us"))
    # Where midnight falls into a clock change, the later reading is taken.
    local = midnight.tz_localize(zone, ambiguous=np.zeros(len(dates), bool), nonexistent="shift_forward")
    return np.asarray(local.as_unit("us").asi8, dtype=np.int64)


def known_zone(name: str) -> ZoneInfo | None:
    """None for a name that is no time zone: an upstream's word, which must not stop its symbol's neighbours."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def sessions_behind(last: int, as_of: int, market: Market) -> int:
    """How many daily sessions after the date `last` had closed by `as_of`: 0 for a series that is up to date.

    Without a calendar Monday to Friday count, and every day where the market never closes.
    """
    if market.sessions is not None:
        closed = np.searchsorted(market.sessions.closes, as_of, side="right")
        return max(0, int(closed - np.searchsorted(market.sessions.dates, last, side="right")))
    whole_days = as_of // DAY - last // DAY - 1
    if market.never_closes:
        return max(0, int(whole_days))
    first = np.datetime64(last // DAY + 1, "D")
    return max(0, int(np.busday_count(first, np.datetime64(as_of // DAY, "D"))))


def is_between_sessions(instant: int, market: Market) -> int | None:
    """The trading date whose close is the last one before `instant`, when no session is open then; else None.

    Between two sessions a screener's current value is that of the closed bar. Without a calendar nobody can say.
    """
    sessions = market.sessions
    if sessions is None:
        return None
    closed = int(np.searchsorted(sessions.closes, instant, side="right"))
    if closed == 0 or (closed < len(sessions.opens) and sessions.opens[closed] <= instant):
        return None
    return int(sessions.dates[closed - 1])


def missing_sessions(stamps: Stamps, market: Market, interval: str) -> Stamps:
    """The calendar's dates between the first and the last of these stamps (ascending) of which there is no bar.

    A daily bar or a longer one is of every date that it covers; a shorter one of the session in which it begins.
    """
    sessions = market.sessions
    if sessions is None or len(stamps) == 0:
        return np.empty(0, dtype=np.int64)
    length = interval_length(interval)
    first, last = stamps[0], stamps[-1]
    if length % DAY:
        due = (sessions.closes > first) & (sessions.opens <= last)
        begun = np.searchsorted(stamps, sessions.opens[due]) < np.searchsorted(stamps, sessions.closes[due])
    else:
        due = (sessions.dates >= first) & (sessions.dates <= last)
        before = np.searchsorted(stamps, sessions.dates[due], side="right") - 1
        begun = stamps[before] + length > sessions.dates[due]
    missing: Stamps = sessions.dates[due][~begun]
    return missing


def to_stamp(instant: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def date_text(stamp: int) -> str:
    """`2021-12-15`, with the time where it is not midnight."""
    at = pd.Timestamp(stamp, unit="us")
    return at.strftime("%Y-%m-%d") if stamp % DAY == 0 else at.isoformat() + "Z"
