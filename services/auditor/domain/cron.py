"""Cron text: minute, hour, day of month, month, day of week, each `*`, a number, a name, lists, ranges and steps.

As in cron, when both days are restricted, either of them matches. Sunday is 0 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from shared.errors import ContractError

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_NONE: Mapping[str, int] = {}
_FIELDS = (
    ("minute", 0, 59, _NONE),
    ("hour", 0, 23, _NONE),
    ("day", 1, 31, _NONE),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_FARTHEST = timedelta(days=366 * 5)


@dataclass(frozen=True, slots=True)
class Cron:
    """Sets of the values that match. `days_either`: day and weekday are both restricted, so one of them is enough."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    days_either: bool

    def after(self, instant: datetime, zone: ZoneInfo) -> datetime:
        """The first matching minute strictly after `instant`, by the zone's wall clock.

        A time that the clock skips in spring is taken an hour later, one that comes twice in autumn the first time.
        """
        local = (instant.astimezone(zone) + timedelta(minutes=1)).replace(second=0, microsecond=0)
        end = local + _FARTHEST
        while local < end:
            if local.month not in self.months or not self._day(local):
                local = (local + timedelta(days=1)).replace(hour=0, minute=0)
            elif local.hour not in self.hours:
                local = (local + timedelta(hours=1)).replace(minute=0)
            elif local.minute not in self.minutes:
                local += timedelta(minutes=1)
            else:
                found = local.astimezone(instant.tzinfo)
                if found > instant:
                    return found
                local += timedelta(minutes=1)
        raise ContractError(f"cron {self.text!r} never matches", fix="check its day and month")

    def _day(self, local: datetime) -> bool:
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return day or weekday if self.days_either else day and weekday


def read_cron(text: str) -> Cron:
    """Raises ContractError that names the field that cannot be read."""
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ContractError(f"cron {text!r} has {len(parts)} fields, not 5", fix='for example "30 1 * * mon-fri"')
    sets = [
        _values(part, name, low, high, names) for part, (name, low, high, names) in zip(parts, _FIELDS, strict=True)
    ]
    weekdays = frozenset(day % 7 for day in sets[4])
    return Cron(text, sets[0], sets[1], sets[2], sets[3], weekdays, parts[2] != "*" and parts[4] != "*")


def _values(text: str, name: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            by = int(step) if step else 1
            start = low if span == "*" else _number(first, names)
            # `5/10` means from 5 on; `5` means 5 alone.
            open_end = high if span == "*" or step else start
            stop = _number(last, names) if dash else open_end
        except ValueError as fault:
            raise ContractError(f"{name} {text!r} of a cron text cannot be read", cause=str(fault)) from fault
        if not (low <= start <= stop <= high and by >= 1):
            raise ContractError(f"{name} {text!r} of a cron text is not within {low} to {high}")
        found.update(range(start, stop + 1, by))
    return frozenset(found)


def _number(text: str, names: Mapping[str, int]) -> int:
    return names[text] if text in names else int(text)
