"""What every handler is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.auditor.domain.chain import Entry
from services.auditor.domain.coverage import Figures
from services.auditor.domain.manifest import DeadlinePolicy
from services.auditor.domain.waivers import Approvals
from services.auditor.ports import Alerts, Approvers, Bookmark, Ledger, Repairs, Reporter, Runs, Tables
from shared.clock import Clock
from shared.events import Alert, Event, Payload

SOURCE = "auditor"
Events = list[Event[Any]]


@dataclass
class Memory:
    """What one process remembers between two handlers; a restart loses it and nothing else."""

    sent: dict[int, datetime] = field(default_factory=dict)
    seen: dict[int, datetime] = field(default_factory=dict)
    deadlines: dict[str, datetime] = field(default_factory=dict)
    complete_since: dict[str, datetime] = field(default_factory=dict)
    ledger_alerted: datetime | None = None
    ticked: bool = False
    watched: int = 0
    unmerged: dict[str, Entry] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    newest: Figures | None = None  # of the run that was decided last


@dataclass(frozen=True)
class Desk:
    """The auditor's dependencies."""

    runs: Runs
    ledger: Ledger
    tables: Tables
    bookmark: Bookmark
    reporter: Reporter
    alerts: Alerts
    repairs: Repairs
    clock: Clock
    deadline_policy: DeadlinePolicy
    stale_after: timedelta = timedelta(minutes=5)
    attempts_grace: timedelta = timedelta(0)
    default_exchange: str | None = None
    approvals: Approvals = field(default_factory=Approvals)
    approvers: Approvers | None = None
    memory: Memory = field(default_factory=Memory)

    def event(self, payload: Payload, *, time: datetime | None = None) -> Event[Any]:
        return Event.of(payload, source=SOURCE, time=time or self.clock(), subject=payload.run)

    def note_alerts(self, events: Sequence[Event[Any]]) -> None:
        """Enter the alerts among these events, before anybody can have seen them."""
        self.alerts.note([event.data for event in events if isinstance(event.data, Alert)])

    def mark_sent(self, decisions: Iterable[int]) -> None:
        """Ledger entries whose events were handed to the bus by a handler that ended well."""
        now = self.clock()
        for n in decisions:
            self.memory.sent[n] = now
