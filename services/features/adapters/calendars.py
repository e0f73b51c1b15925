"""Trading sessions from exchange_calendars; the library is imported when first asked, because that takes a second."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd

from services.features.domain.sessions import Sessions, Stamps

_FROM = "1990-01-01"


class ExchangeCalendars:
    """Answers are kept; safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Sessions | None] = {}

    def sessions(self, calendar: str) -> Sessions | None:
        with self._lock:
            if calendar not in self._known:
                self._known[calendar] = _load(calendar)
            return self._known[calendar]


def _load(calendar: str) -> Sessions | None:
    import exchange_calendars

    try:
        found = exchange_calendars.get_calendar(calendar, start=_FROM)
    except exchange_calendars.errors.InvalidCalendarName:
        return None
    except ValueError:
        # Some calendars begin later than we ask; their own beginning is then all there is.
        found = exchange_calendars.get_calendar(calendar)
    return Sessions(_stamps(found.sessions), _stamps(found.opens), _stamps(found.closes))


def _stamps(instants: pd.DatetimeIndex | pd.Series) -> Stamps:
    return np.asarray(pd.DatetimeIndex(instants).as_unit("us").asi8, dtype=np.int64)
