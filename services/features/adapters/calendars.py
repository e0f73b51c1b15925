"""Trading sessions from exchange_calendars; the library is imported when first asked, because that takes a second."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import structlog

from services.features.domain.sessions import Sessions, Stamps

log = structlog.get_logger(__name__)
_FROM = "1990-01-01"
_SHOWN = 200


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

    # Some calendars begin later than we ask; their own beginning is then all there is.
    for start in (_FROM, None):
        try:
            found = exchange_calendars.get_calendar(calendar, start=start)
        except exchange_calendars.errors.InvalidCalendarName:
            return None
        except ValueError as fault:
            cause = str(fault)[:_SHOWN]
        else:
            break
    else:
        # A calendar that contradicts itself (XTAE of exchange-calendars 4.13) is one that nobody knows: bars are then
        # known at the end of their date, later than they were, and their symbols' neighbours go on.
        log.warning("calendar_unusable", calendar=calendar, cause=cause)
        return None
    return Sessions(_stamps(found.sessions), _stamps(found.opens), _stamps(found.closes))


def _stamps(instants: pd.DatetimeIndex | pd.Series) -> Stamps:
    return np.asarray(pd.DatetimeIndex(instants).as_unit("us").asi8, dtype=np.int64)
