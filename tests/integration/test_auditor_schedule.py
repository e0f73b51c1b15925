"""Schedules: due runs are published like anyone's, missed ones are noticed, entered and alerted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from services.auditor.adapters.schedule_files import ScheduleFiles, is_session
from services.auditor.handlers.scheduling import keep_schedule
from shared import events as e
from shared.errors import ContractError
from tests.integration.auditor_house import House

FILE = """
[crypto-daily]
cron = "0 1 * * *"
candidates = "crypto.json"
grace_s = 600

[weekly]
kind = "refresh"
cron = "0 2 * * sun"

[pse]
kind = "expect"
cron = "0 10 * * *"
timezone = "Asia/Manila"
calendar = "XPHS"
grace_s = 3600
"""


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "data", now=datetime(2021, 12, 17, 0, 30, tzinfo=UTC))
    (tmp_path / "schedules.toml").write_text(FILE)
    (tmp_path / "crypto.json").write_text(json.dumps(["BINANCE:BTCUSDT"]))
    return house


def keep(house: House, at: str) -> list[e.Event[Any]]:
    """The job at an instant, by an auditor that has just started."""
    house.now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    house.restart()
    files = ScheduleFiles(house.home, house.home.root.parent / "schedules.toml")
    return asyncio.run(keep_schedule(desk=house.desk, schedules=files, is_session=is_session))


def said(events: list[e.Event[Any]]) -> list[str]:
    return [
        event.data.annotations["summary"] if isinstance(event.data, e.Alert) else f"{event.stream} {event.runid}"
        for event in events
    ]


def test_a_due_run_is_published_once_with_its_profile(house: House) -> None:
    assert keep(house, "2021-12-17T00:30") == []
    (started,) = keep(house, "2021-12-17T01:00")
    assert started.data.run_id == "crypto-daily-20211217T0100Z"
    assert (started.data.profile, started.data.candidates) == ("crypto-daily", ["BINANCE:BTCUSDT"])
    assert keep(house, "2021-12-17T01:01") == []


def test_a_time_that_passed_while_nobody_ran_is_missed_and_the_next_one_ends_the_alert(house: House) -> None:
    keep(house, "2021-12-17T00:30")
    assert said(keep(house, "2021-12-17T01:30")) == [
        "expected a run of crypto-daily by 2021-12-17T01:10:00Z, none came"
    ]
    (missed,) = house.desk.ledger.of_kind("missed")
    assert missed.data["due"] == "2021-12-17T01:00:00Z"
    assert said(keep(house, "2021-12-18T01:00"))[:2] == [
        "run-candidates crypto-daily-20211218T0100Z",
        "a run of crypto-daily has come",
    ]


def test_a_refresh_is_asked_for_as_a_person_would(house: House) -> None:
    keep(house, "2021-12-19T01:05")
    (command,) = keep(house, "2021-12-19T02:00")
    assert (command.data.kind, command.data.requested_by) == ("refresh", "schedule")


def test_an_expected_run_of_somebody_else_is_only_watched(house: House) -> None:
    keep(house, "2021-12-17T01:30")
    assert keep(house, "2021-12-17T02:30") == []
    assert said(keep(house, "2021-12-17T03:01")) == ["expected a run of pse by 2021-12-17T03:00:00Z, none came"]
    house.now = datetime(2021, 12, 20, 2, 10, tzinfo=UTC)
    house.start(["PSE:JFC"], profile="pse")
    assert said(keep(house, "2021-12-20T03:01"))[-1] == "a run of pse has come"


def test_a_calendar_knows_its_holidays() -> None:
    assert is_session("XPHS", date(2021, 12, 17))
    assert not is_session("XPHS", date(2021, 12, 18))
    assert not is_session("XPHS", date(2021, 12, 31))
    with pytest.raises(ContractError, match="no exchange calendar"):
        is_session("NOPE", date(2021, 12, 17))


@pytest.mark.parametrize(
    "text",
    [
        '[a]\ncron = "0 1 * *"',
        '[a]\ncron = "0 1 * * *"',
        '[a]\ncron = "0 1 * * *"\ncandidates = "x"\ntypo = 1',
        "a = [",
    ],
)
def test_a_schedules_file_that_cannot_be_read_is_refused_at_the_start(house: House, text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ContractError):
        ScheduleFiles(house.home, file)


def test_candidates_outside_the_house_are_an_alert_and_no_run(house: House, tmp_path: Path) -> None:
    keep(house, "2021-12-17T00:30")
    (tmp_path / "schedules.toml").write_text(FILE.replace("crypto.json", "../../etc/passwd"))
    (alert,) = keep(house, "2021-12-17T01:00")
    assert "leads outside the allowed folders" in alert.data.error
