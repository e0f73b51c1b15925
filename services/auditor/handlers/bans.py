"""Upstreams that refuse us altogether: said at once, because every run after this one will meet the same."""

from __future__ import annotations

from collections.abc import Iterable

from services.auditor.domain.alerts import alert
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.verdict import head_hash
from shared.events import Alert, Event, FetchAttempted

_BANS = frozenset(("banned", "region_blocked"))


def ban_alerts(desk: Desk, attempts: Iterable[Event[FetchAttempted]]) -> Events:
    """An alert for each host that banned us; its end, when the same kind of work succeeds again without a ban."""
    made: list[Alert] = []
    for event in sorted(attempts, key=lambda event: event.time):
        banned = {
            failure.host or "unknown": failure for failure in event.data.failures.values() if failure.code in _BANS
        }
        for host, failure in sorted(banned.items()):
            made.append(
                alert(
                    _labels(host, event.data.kind),
                    summary=f"{host} refuses us ({failure.code}): no {event.data.kind} comes from there",
                    error=failure.message,
                    next_command=failure.fix or f"asof retry {event.data.run_id}",
                    starts_at=event.time,
                    run_id=event.data.run_id,
                    ledger_head=head_hash(desk),
                )
            )
        if not banned and event.data.fetched:
            made += _ended(desk, event)
    return [desk.event(one) for one in made]


def _ended(desk: Desk, event: Event[FetchAttempted]) -> list[Alert]:
    with desk.alerts.open() as book:
        lasting = [row.alert for row in book.firing()]
    return [
        alert(
            one.labels,
            summary=f"{one.labels['host']} answers again: {event.data.kind} came",
            error="none",
            next_command="none",
            starts_at=one.starts_at,
            ends_at=event.time,
            ledger_head=head_hash(desk),
        )
        for one in lasting
        if one.labels["alertname"] == "UpstreamBanned" and one.labels["kind"] == event.data.kind
    ]


def _labels(host: str, kind: str) -> dict[str, str]:
    return {"alertname": "UpstreamBanned", "host": host, "kind": kind, "severity": "page"}
