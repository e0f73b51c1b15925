"""Alerts that end when nobody is there to say so: what lasts by the alert book, looked at again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from services.auditor.domain.alerts import alert
from services.auditor.domain.chain import Entry
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.facts import last_decision
from services.auditor.handlers.verdict import head_hash
from shared.clock import parse_instant
from shared.events import Alert

# A letter of no run that is decided is an occurrence: it is told for so long after the last one.
_LETTERS_LAST = timedelta(days=1)


def recovered(desk: Desk) -> Events:
    """The end of each lasting alert whose cause is gone. The book is the memory, so that a restart forgets none."""
    with desk.alerts.open() as book:
        lasting = [row.alert for row in book.firing() if row.alert.labels["alertname"] in _CHECKS]
    ended = [(one, _CHECKS[one.labels["alertname"]](desk, one)) for one in lasting]
    return [desk.event(_end(desk, one, why)) for one, why in ended if why is not None]


def _end(desk: Desk, one: Alert, why: str) -> Alert:
    return alert(
        one.labels,
        summary=why,
        error="none",
        next_command="none",
        starts_at=one.starts_at,
        ends_at=desk.clock(),
        run_id=one.run_id,
        ledger_head=head_hash(desk),
    )


def _ledger_whole(desk: Desk, one: Alert) -> str | None:
    return "the ledger is whole again" if desk.ledger.broken() is None else None


def _run_readable(desk: Desk, one: Alert) -> str | None:
    decided = last_decision(desk, one.labels["run_id"])
    readable = decided is not None and parse_instant(decided.time) > one.starts_at
    return f"run {one.labels['run_id']} could be read again, and is decided" if readable else None


def _merged(desk: Desk, one: Alert) -> str | None:
    run_id = one.labels["run_id"]
    decided = last_decision(desk, run_id)
    merged = decided is not None and is_merged(desk, decided)
    return f"run {run_id} is in the store" if merged else None


def is_merged(desk: Desk, decided: Entry) -> bool:
    """Whether the promotion that this decision granted is in the store."""
    promoted = desk.ledger.of_run(decided.run_id or "", "promoted")
    return any(entry.n > decided.n for entry in promoted)


def _letter_dealt_with(desk: Desk, one: Alert) -> str | None:
    if one.run_id is not None:
        decided = last_decision(desk, one.run_id)
        if decided is not None and decided.data["decision"] == "granted":
            return f"run {one.run_id}, of which {one.labels['group']} could not apply an event, is granted"
    last = datetime.fromisoformat(one.annotations.get("last", one.starts_at.isoformat()))
    if desk.clock() - last >= _LETTERS_LAST:
        return f"{one.labels['group']} gave up on nothing more of {one.labels['stream']} for a day"
    return None


_CHECKS: Mapping[str, Callable[[Desk, Alert], str | None]] = {
    "LedgerBroken": _ledger_whole,
    "RunUnreadable": _run_readable,
    "PromotionStale": _merged,
    "DeadLetter": _letter_dealt_with,
}
