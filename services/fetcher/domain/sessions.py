"""When a bar's session is over, and on which trading date it falls.

A session is written as `0930-1600` (local to the exchange), `24x7`, or several spans (`0930-1200,1300-1600`, with an
optional `:days` after each); one that starts later than it ends (`1700-1600`) belongs to the date it ends on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pandas as pd

from services.fetcher.domain.faults import Untrusted

DAY_S = 86_400
ALWAYS = "24x7"
_SPAN = re.compile(r"(\d{2})(\d{2})-(\d{2})(\d{2})")
_INTERVAL = re.compile(r"(\d{0,3})(m|h|d|w)")
_UNIT_S = {"m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S}

Instants = npt.NDArray[np.int64]  # seconds since 1970, UTC


@dataclass(frozen=True, slots=True)
class Hours:
    """An exchange's hours: `opens` and `closes` in minutes of the local day; both None when it never closes."""

    timezone: ZoneInfo
    opens: int | None
    closes: int | None

    @property
    def overnight(self) -> bool:
        return self.opens is not None and self.closes is not None and self.opens >= self.closes


def read_hours(timezone: str | None, session: str | None) -> Hours | None:
    """None when either is unknown; Untrusted when a zone or a session is given that nobody can read."""
    if session is not None and session.startswith(ALWAYS):
        return Hours(ZoneInfo("UTC"), None, None)
    if timezone is None or session is None:
        return None
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
        raise Untrusted(f"{timezone!r} is no time zone", cause=str(fault)) from fault
    spans = _SPAN.findall(session)
    if not spans:
        raise Untrusted(f"session {session!r} is no span like 0930-1600")
    opens, closes = (int(spans[0][0]) * 60 + int(spans[0][1])), (int(spans[-1][2]) * 60 + int(spans[-1][3]))
    return Hours(zone, None, None) if opens == closes == 0 else Hours(zone, opens, closes)


def interval_seconds(interval: str) -> int:
    """The length of a bar in seconds; months are refused, since no venue here serves them the same way."""
    match = _INTERVAL.fullmatch(interval)
    if match is None:
        raise Untrusted(f"interval {interval!r} is not minutes (m), hours (h), days (d) or weeks (w)")
    return int(match[1] or 1) * _UNIT_S[match[2]]


def is_daily(interval: str) -> bool:
    return interval_seconds(interval) % DAY_S == 0


def trading_dates(starts: Instants, hours: Hours | None) -> Instants:
    """00:00 UTC of the trading date of bars that start at `starts`, as seconds."""
    if hours is None or hours.opens is None:
        return starts - starts % DAY_S
    local = _local(starts, hours.timezone)
    minute = (local % DAY_S) // 60
    days = local - local % DAY_S
    if hours.overnight:
        days = np.where(minute >= hours.opens, days + DAY_S, days)
    return days


def closes_of(dates: Instants, hours: Hours | None, interval: str) -> Instants:
    """The instants at which daily (or longer) bars of these trading dates are final."""
    last = dates + interval_seconds(interval) - DAY_S
    if hours is None or hours.closes is None:
        return last + DAY_S
    naive = pd.to_datetime(last + hours.closes * 60, unit="s")
    # A close inside a clock change is taken at the later reading: a bar is never called final too early.
    aware = naive.tz_localize(hours.timezone, ambiguous=np.zeros(len(naive), bool), nonexistent="shift_forward")
    return _seconds(aware)


def _local(instants: Instants, zone: ZoneInfo) -> Instants:
    aware = pd.to_datetime(instants, unit="s", utc=True).tz_convert(zone)
    return _seconds(aware.tz_localize(None))


def _seconds(index: Any) -> Instants:
    return np.asarray(index.as_unit("s").asi8, dtype=np.int64)


def bars_since(last: datetime, now: datetime, interval: str, overlap: int) -> int:
    """How many bars to ask for so that everything after `last` and `overlap` bars before it come."""
    elapsed = max(now - last, timedelta(0)).total_seconds()
    return int(elapsed // interval_seconds(interval)) + 1 + overlap


def from_seconds(seconds: int) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
