"""The schedule job: publish what is due, as anyone would, and notice what was expected and did not come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from services.auditor.domain.alerts import alert
from services.auditor.domain.schedule import Due, IsSession, Schedule, due_since
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.verdict import head_hash
from services.auditor.ports import Schedules
from shared.clock import format_instant
from shared.errors import PipelineError
from shared.events import Alert, Command, Event, RunCandidates


async def keep_schedule(*, desk: Desk, schedules: Schedules, is_session: IsSession) -> Events:
    return await asyncio.to_thread(_keep_schedule, desk, schedules, is_session)


def _keep_schedule(desk: Desk, schedules: Schedules, is_session: IsSession) -> Events:
    now, done = desk.clock(), schedules.carried_out()
    before = dict(done)
    events: Events = []
    for schedule in schedules.schedules:
        last = done.setdefault(schedule.name, now)
        for due in due_since(schedule, last, now, is_session):
            watched = schedule.kind == "expect" and not due.missed
            if watched:
                break  # it may still come
            events += _carry_out(desk, schedules, due)
            done[schedule.name] = due.at
    desk.note_alerts(events)
    if done != before:
        schedules.carry_out(done)
    return events


def _carry_out(desk: Desk, schedules: Schedules, due: Due) -> Events:
    schedule = due.schedule
    if _came(desk, schedule, due.at):
        return _mended(desk, due)
    if due.missed:
        desk.ledger.append(
            "missed",
            key=f"missed:{schedule.name}:{format_instant(due.at)}",
            time=desk.clock(),
            data={"schedule": schedule.name, "due": format_instant(due.at), "grace_s": schedule.grace_s},
        )
        return [desk.event(_missed(desk, due))]
    try:
        return [_start(desk, schedules, schedule, due.at), *_mended(desk, due)]
    except PipelineError as fault:
        return [desk.event(_missed(desk, due, cause=str(fault)))]


def _mended(desk: Desk, due: Due) -> Events:
    """Ends the alert of an earlier time that was missed, if there is one."""
    ended = _missed(desk, due, ended=True)
    with desk.alerts.open() as book:
        lasts = any(row.alert.fingerprint == ended.fingerprint for row in book.firing())
    return [desk.event(ended)] if lasts else []


def _start(desk: Desk, schedules: Schedules, schedule: Schedule, due: datetime) -> Event[Any]:
    if schedule.kind == "refresh":
        command = Command(
            command_id=schedule.run_id(due),
            kind="refresh",
            run_id=schedule.run_id(due),
            arguments={"profile": schedule.name, **({"workers": schedule.workers} if schedule.workers else {})},
            requested_by="schedule",
        )
        return desk.event(command, time=due)
    run = RunCandidates(
        candidates=schedules.candidates(schedule),
        run_id=schedule.run_id(due),
        profile=schedule.name,
        interval=schedule.interval,
        rules=schedule.rules,
        stages=schedule.stages,
        bars=schedule.bars,
        strict=schedule.strict,
        workers=schedule.workers,
        requested_by="schedule",
    )
    return desk.event(run, time=due)


def _came(desk: Desk, schedule: Schedule, due: datetime) -> bool:
    """A run of this profile was opened since it was due (or a moment before, by somebody else's clock)."""
    since = due - timedelta(seconds=60)
    opened = (entry for entry in desk.ledger.of_kind("opened") if entry.data["profile"] == schedule.name)
    return any(datetime.fromisoformat(entry.time) >= since for entry in opened)


def _missed(desk: Desk, due: Due, *, ended: bool = False, cause: str | None = None) -> Alert:
    schedule = due.schedule
    latest = due.at + timedelta(seconds=schedule.grace_s)
    labels: Mapping[str, str] = {"alertname": "ScheduleMissed", "profile": schedule.name, "severity": "page"}
    if ended:
        summary = f"a run of {schedule.name} has come"
    else:
        summary = f"expected a run of {schedule.name} by {format_instant(latest)}, none came"
    how = "asof run FILE --profile " + schedule.name if schedule.kind != "refresh" else "asof refresh"
    return alert(
        labels,
        summary=summary,
        error="none" if ended else cause or f"it was due at {format_instant(due.at)} ({schedule.cron})",
        next_command="none" if ended else f"asof doctor && {how}",
        starts_at=due.at,
        ends_at=desk.clock() if ended else None,
        ledger_head=head_hash(desk),
    )
