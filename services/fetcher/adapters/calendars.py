"""Trading dates from exchange_calendars; the library is imported when first asked, because that takes a second."""

from __future__ import annotations

import threading
from datetime import datetime

import numpy as np

from services.fetcher.domain.sessions import Instants

_FROM = "1990-01-01"


class ExchangeCalendars:
    """Answers are kept; safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Instants | None] = {}

    def sessions(self, calendar: str, first: datetime, last: datetime) -> Instants | None:
        """Seconds of 00:00 UTC of every trading date from `first` to `last`; None for a calendar nobody knows."""
        with self._lock:
            if calendar not in self._known:
                self._known[calendar] = _load(calendar)
            known = self._known[calendar]
        if known is None:
            return None
        return known[(known >= int(first.timestamp())) & (known <= int(last.timestamp()))]


def _load(calendar: str) -> Instants | None:
    import exchange_calendars

    try:
        found = exchange_calendars.get_calendar(calendar, start=_FROM)
    except exchange_calendars.errors.InvalidCalendarName:
        return None
    except ValueError:
        # Some calendars begin later than we ask; their own beginning is then all there is.
        found = exchange_calendars.get_calendar(calendar)
    return np.asarray(found.sessions.as_unit("s").asi8, dtype=np.int64)
