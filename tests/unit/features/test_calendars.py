"""Sessions from exchange_calendars, and calendars that are none or contradict themselves."""

from __future__ import annotations

import exchange_calendars
import numpy as np
import pytest
from structlog.testing import capture_logs

from services.features.adapters.calendars import ExchangeCalendars
from tests.unit.features.made import stamp


def test_a_calendar_has_its_sessions_since_1990_and_half_days_close_early():
    sessions = ExchangeCalendars().sessions("XNYS")
    assert sessions.dates[0] == stamp("1990-01-02")
    day = np.searchsorted(sessions.dates, stamp("2021-11-26"))
    assert sessions.opens[day] == stamp("2021-11-26T14:30:00")
    assert sessions.closes[day] == stamp("2021-11-26T18:00:00")
    assert (np.diff(sessions.dates) > 0).all()
    assert (sessions.opens < sessions.closes).all()


@pytest.mark.parametrize("name", ["", "NOPE", "../XNYS", "x" * 5000])
def test_a_name_that_is_none_has_no_sessions(name):
    assert ExchangeCalendars().sessions(name) is None


def test_a_calendar_that_contradicts_itself_is_one_that_nobody_knows(monkeypatch):
    def contradicts(name, **bounds):
        raise ValueError("Special dates […] are not sessions.")

    monkeypatch.setattr(exchange_calendars, "get_calendar", contradicts)
    with capture_logs() as logs:
        assert ExchangeCalendars().sessions("XTAE") is None
    assert [(line["event"], line["calendar"]) for line in logs] == [("calendar_unusable", "XTAE")]


def test_every_calendar_of_the_library_can_be_asked_for():
    """Tel Aviv's is broken in some versions of the library: then its answer is None, not a crash."""
    for name in ("XTAE", "XNYS", "XLON", "XTKS", "XPHS", "CMES", "24/7"):
        ExchangeCalendars().sessions(name)


def test_an_answer_is_kept(monkeypatch):
    calendars = ExchangeCalendars()
    known = calendars.sessions("XNYS")
    monkeypatch.setattr(exchange_calendars, "get_calendar", None)
    assert calendars.sessions("XNYS") is known
