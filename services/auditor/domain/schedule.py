"""Schedules: which runs and refreshes are due when, and which that were expected did not come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from services.auditor.domain.cron import read_cron
from services.auditor.domain.model import Frozen
from shared.errors import ContractError
from shared.events import Interval, Name

IsSession = Callable[[str, date], bool]


class Schedule(Frozen):
    """One entry of the schedules file; its name is the profile of its runs.

    kind       run: publish the candidates; refresh: the metadata of every active symbol; expect: somebody else
               publishes, and the auditor only notices when nobody does
    calendar   an exchange calendar: due on its sessions only (by the date in `timezone`)
    grace_s    how late a run may come before it is missed
    """

    name: Name
    kind: Literal["run", "refresh", "expect"] = "run"
    cron: str
    timezone: str = "UTC"
    calendar: str | None = None
    candidates: str | None = None
    grace_s: Annotated[float, Field(gt=0)] = 900
    interval: Interval = "1d"
    rules: Name = "screener"
    stages: tuple[Literal["metadata", "bars", "ratings"], ...] = ("metadata", "bars", "ratings")
    bars: Literal["hydrate", "lakehouse"] = "hydrate"
    strict: bool = False
    workers: Annotated[int, Field(ge=1, le=32)] | None = None

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        try:
            read_cron(value)
        except ContractError as fault:
            raise ValueError(str(fault)) from fault
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as fault:
            raise ValueError(f"{value!r} is no time zone") from fault
        return value

    @model_validator(mode="after")
    def _has_candidates(self) -> Schedule:
        if (self.kind == "run") != (self.candidates is not None):
            raise ValueError("a run needs `candidates` (a file), and nothing else does")
        return self

    def run_id(self, due: datetime) -> str:
        return f"{self.name.replace('.', '-')[:46]}-{due:%Y%m%dT%H%MZ}"

    def after(self, instant: datetime, is_session: IsSession) -> datetime:
        """The first time after `instant` at which it is due."""
        zone, cron, due = ZoneInfo(self.timezone), read_cron(self.cron), instant
        for _ in range(10_000):
            due = cron.after(due, zone)
            if self.calendar is None or is_session(self.calendar, due.astimezone(zone).date()):
                return due
        raise ContractError(f"schedule {self.name} never meets a session of {self.calendar}", fix="check its cron")


class Due(Frozen):
    """One time of one schedule. `missed`: too late to start it now."""

    schedule: Schedule
    at: datetime
    missed: bool


def due_since(schedule: Schedule, last: datetime, now: datetime, is_session: IsSession) -> list[Due]:
    """Every time after `last` that has come, oldest first. After a long outage these are many, all but one missed."""
    found: list[Due] = []
    at = schedule.after(last, is_session)
    while at <= now and len(found) < 1000:
        found.append(Due(schedule=schedule, at=at, missed=now - at > timedelta(seconds=schedule.grace_s)))
        at = schedule.after(at, is_session)
    return found


def read_schedules(content: dict[str, Any]) -> list[Schedule]:
    return [Schedule.model_validate({"name": name, **fields}) for name, fields in content.items()]
