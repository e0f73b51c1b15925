"""Runs and their results: what opens a run, and what is noted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from services.auditor.domain.alerts import alert
from services.auditor.domain.manifest import check_same, open_run
from services.auditor.domain.notes import Note, note_of
from services.auditor.handlers.bans import ban_alerts
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.verdict import Ruling, head_hash, settle
from services.auditor.ports import HeldRun
from shared.clock import format_instant
from shared.errors import ContractError
from shared.events import DeadLetter, Event, FeaturesPromoted, FetchAttempted, RunCandidates


async def open_(event: Event[RunCandidates], *, desk: Desk) -> Events:
    """Open a run durably. The same content again is the same run; other content under its id is refused."""
    return await asyncio.to_thread(lambda: out(desk, [_open(event, desk)]))


async def note(events: Sequence[Event[Any]], *, desk: Desk) -> Events:
    """Note what the other services report, and decide every run that is thereby over."""
    return await asyncio.to_thread(lambda: out(desk, *_note(events, desk)))


def out(desk: Desk, rulings: Sequence[Ruling | None], others: Events | None = None) -> Events:
    """What a handler returns: nothing of it may fail any more, so that what is marked as sent is sent."""
    made = [ruling for ruling in rulings if ruling is not None]
    events = [*(others or ()), *(event for ruling in made for event in ruling.events)]
    desk.note_alerts(events)
    desk.mark_sent(ruling.entry.n for ruling in made if ruling.entry is not None)
    return events


def _open(event: Event[RunCandidates], desk: Desk) -> Ruling | None:
    asked = event.data
    run_id = asked.run_id or event.runid
    if run_id is None:
        raise ContractError("a run without a run_id", fix="publish it on run-candidates, where the bus gives it one")
    with desk.runs.hold(run_id) as run:
        if run.manifest is None:
            _create(desk, run, event)
        else:
            check_same(run.manifest, asked)
        _enter_opening(desk, run)
        return settle(desk, run)


def _create(desk: Desk, run: HeldRun, event: Event[RunCandidates]) -> None:
    asked = event.data
    candidates = to_json(asked.candidates, indent=1) + b"\n"
    manifest = open_run(
        asked,
        run_id=run.run_id,
        event_id=event.id,
        event_time=event.time,
        now=desk.clock(),
        base=desk.tables.current(asked.interval, asked.rules),
        candidates=desk.runs.candidates_ref(run.run_id, candidates),
        deadlines=desk.deadline_policy,
        default_exchange=desk.default_exchange,
    )
    run.create(manifest, candidates)


def _enter_opening(desk: Desk, run: HeldRun) -> None:
    manifest = run.manifest
    assert manifest is not None, "it was just created or found"
    desk.ledger.append(
        "opened",
        key=f"opened:{run.run_id}",
        run_id=run.run_id,
        time=manifest.opened_at,
        data={
            "manifest": run.manifest_ref().model_dump(mode="json", exclude_none=True),
            "candidates": manifest.candidates.model_dump(mode="json", exclude_none=True),
            "content_sha256": manifest.content_sha256,
            "event_id": manifest.event_id,
            "profile": manifest.profile,
            "expected": len(manifest.expected),
            "malformed": len(manifest.malformed),
            "base": manifest.base.model_dump(),
            "requested_by": manifest.requested_by,
        },
    )


def _note(events: Sequence[Event[Any]], desk: Desk) -> tuple[list[Ruling | None], Events]:
    by_run: dict[str, list[Event[Any]]] = {}
    others: Events = []
    for event in events:
        if isinstance(event.data, DeadLetter):
            others.append(_letter_alert(desk, event))
        if event.data.run is not None:
            by_run.setdefault(event.data.run, []).append(event)
    others += ban_alerts(desk, [event for event in events if isinstance(event.data, FetchAttempted)])
    rulings: list[Ruling | None] = []
    for run_id, own in by_run.items():
        notes: list[Note] = [note_of(event) for event in own]
        with desk.runs.hold(run_id) as run:
            run.append(run.journal.fresh(notes))
            rulings.append(settle(desk, run))
            for event in own:
                if isinstance(event.data, FeaturesPromoted):
                    _enter_promotion(desk, run, event.data, event)
    return rulings, others


def _enter_promotion(desk: Desk, run: HeldRun, promoted: FeaturesPromoted, event: Event[Any]) -> None:
    desk.ledger.append(
        "promoted",
        key=f"promoted:{run.run_id}:{promoted.feature_version}",
        run_id=run.run_id,
        time=event.time,
        data=promoted.model_dump(mode="json", exclude={"run_id"}),
    )
    run.write_extract(desk.ledger.extract(run.run_id))


def _letter_alert(desk: Desk, event: Event[Any]) -> Event[Any]:
    letter: DeadLetter = event.data
    made = alert(
        {
            "alertname": "DeadLetter",
            "stream": letter.origin,
            "group": letter.group,
            "code": letter.error.code,
            "severity": "page",
        },
        summary=f"{letter.group} could not apply {letter.origin} {letter.entry_id} "
        f"after {letter.deliveries} deliveries",
        error=letter.error.message,
        next_command=letter.error.fix or "asof dead-letters",
        starts_at=event.time,
        run_id=letter.run_id,
        ledger_head=head_hash(desk),
        entry_id=letter.entry_id,
        last=format_instant(event.time),
    )
    return desk.event(made, time=event.time)
