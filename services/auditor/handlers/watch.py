"""The tick: what did not happen. Deadlines that passed, decisions nobody published, promotions nobody merged."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from services.auditor.domain.alerts import alert
from services.auditor.domain.chain import Entry
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.facts import artifact_of, newest_figures
from services.auditor.handlers.recovering import is_merged, recovered
from services.auditor.handlers.repairs import enter_repairs
from services.auditor.handlers.runs import out
from services.auditor.handlers.verdict import Ruling, events_of, head_hash, ledger_alert, settle
from shared.clock import parse_instant
from shared.errors import IntegrityError
from shared.events import Event

# A decision whose handler has not handed its events over after this long was left by a process that died.
_ORPHANED_AFTER = timedelta(seconds=3)
_REPEATED_AFTER = timedelta(minutes=10)


async def tick(*, desk: Desk) -> Events:
    """Close runs whose deadline has passed, finish what a killed auditor left, publish decisions nobody published, and
    enter repairs that were made meanwhile."""
    return await asyncio.to_thread(lambda: out(desk, *_tick(desk)))


def _tick(desk: Desk) -> tuple[list[Ruling | None], Events]:
    now = desk.clock()
    try:
        desk.ledger.refresh()
    except IntegrityError as fault:
        return [], _ledger_trouble(desk, str(fault.cause))
    desk.memory.ledger_alerted = None
    if not desk.memory.ticked:
        desk.memory.newest = desk.memory.newest or newest_figures(desk)
    enter_repairs(desk)
    orphans = [*_orphans(desk), *_stale(desk)]
    rulings: list[Ruling | None] = []
    for run_id in desk.ledger.open_runs():
        deadline = desk.memory.deadlines.get(run_id)
        if deadline is None or now >= deadline:
            try:
                with desk.runs.hold(run_id) as run:
                    rulings.append(settle(desk, run))
            except IntegrityError as fault:
                # One run's unreadable file is that run's trouble: said, tried again, and no end of the others.
                desk.memory.deadlines[run_id] = now + _REPEATED_AFTER
                orphans.append(_unreadable(desk, run_id, fault))
    # Last, so that what was just decided counts.
    return rulings, [*orphans, *recovered(desk)]


def _stale(desk: Desk) -> Events:
    """Promotions that were granted but are in no store yet: the features service is dead or cannot merge them."""
    memory, now = desk.memory, desk.clock()
    for entry in desk.ledger.of_kind("decided", after=memory.watched):
        memory.watched = entry.n
        if entry.data["decision"] == "granted" and entry.data["staged"] and entry.run_id is not None:
            memory.unmerged[entry.run_id] = entry
    events: Events = []
    for run_id, entry in list(memory.unmerged.items()):
        if is_merged(desk, entry):
            del memory.unmerged[run_id]
            memory.stale.discard(run_id)
        elif run_id not in memory.stale and now - parse_instant(entry.time) >= desk.stale_after:
            memory.stale.add(run_id)
            events.append(_stale_alert(desk, run_id, entry))
    return events


def _stale_alert(desk: Desk, run_id: str, entry: Entry) -> Event[Any]:
    made = alert(
        {"alertname": "PromotionStale", "run_id": run_id, "severity": "page"},
        summary=f"run {run_id}, granted at {entry.time}, is not in the store yet",
        error="the features service has not said that it merged the run",
        next_command=f"asof doctor && asof promote {run_id}",
        starts_at=parse_instant(entry.time),
        run_id=run_id,
        ledger_head=head_hash(desk),
    )
    return desk.event(made)


def _unreadable(desk: Desk, run_id: str, fault: IntegrityError) -> Event[Any]:
    made = alert(
        {"alertname": "RunUnreadable", "run_id": run_id, "severity": "page"},
        summary=f"run {run_id} cannot be decided: {fault.what}",
        error=str(fault.cause or fault.what),
        next_command=fault.fix or f"asof show {run_id}",
        starts_at=desk.clock(),
        run_id=run_id,
        ledger_head=head_hash(desk),
    )
    return desk.event(made)


def _ledger_trouble(desk: Desk, broken: str) -> Events:
    """Said at once, and again every ten minutes for as long as it lasts."""
    now, last = desk.clock(), desk.memory.ledger_alerted
    if last is not None and now - last < _REPEATED_AFTER:
        return []
    desk.memory.ledger_alerted = now
    return [desk.event(ledger_alert(desk, broken))]


def _orphans(desk: Desk) -> Events:
    """Events of decisions that are in the ledger but that no process is known to have published.

    At the start of a process these are all after the bookmark; later, those that another process left behind.
    """
    memory, now = desk.memory, desk.clock()
    starting, memory.ticked = not memory.ticked, True
    before = reached = desk.bookmark.read()
    events: Events = []
    settled = True  # everything up to here is out
    for entry in desk.ledger.of_kind("decided", after=reached):
        sent = memory.sent.get(entry.n)
        settled = settled and sent is not None and now - sent >= _ORPHANED_AFTER
        if settled:
            reached = entry.n
        elif sent is None and (starting or now - memory.seen.setdefault(entry.n, now) >= _ORPHANED_AFTER):
            events += _events_again(desk, entry)
            desk.mark_sent([entry.n])
    if reached > before:
        desk.bookmark.write(reached)
    return events


def _events_again(desk: Desk, entry: Entry) -> Events:
    """A decision's events, from the artifact it was made on; none when a later decision has replaced that artifact."""
    coverage = artifact_of(desk, entry)
    return [] if coverage is None else events_of(desk, entry, coverage)
