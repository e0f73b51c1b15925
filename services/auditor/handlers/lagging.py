"""Services that read nothing while events wait for them: said before a run's deadline turns them into gaps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.auditor.domain.alerts import alert
from services.auditor.handlers.desk import Desk, Events
from services.auditor.ports import Groups, GroupState
from shared.clock import format_instant
from shared.errors import TransientError
from shared.events import Alert

_UNKNOWN = {"alertname": "LagUnknown", "severity": "warning"}


@dataclass
class LagWatch:
    """`groups` is set when the service starts. What was delivered last to each group, and since when that stands."""

    stuck_after: timedelta
    groups: Groups | None = None
    standing: dict[tuple[str, str], tuple[str, datetime]] = field(default_factory=dict)
    stuck: dict[tuple[str, str], datetime] = field(default_factory=dict)
    unknown_since: datetime | None = None
    primed: bool = False


async def watch_lag(*, desk: Desk, watch: LagWatch) -> Events:
    if watch.groups is None:
        return []
    if not watch.primed:
        await asyncio.to_thread(_remember, desk, watch)
    try:
        states = await watch.groups.states()
    except TransientError as fault:
        made = _unknown(desk, watch, fault)
    else:
        made = [one for state in states if (one := _judge(desk, watch, state)) is not None]
        made += _known_again(desk, watch)
    await asyncio.to_thread(desk.alerts.note, made)
    return [desk.event(one) for one in made]


def _remember(desk: Desk, watch: LagWatch) -> None:
    """What an auditor before this one found, so that its alerts end too."""
    with desk.alerts.open() as book:
        lasting = [row.alert for row in book.firing()]
    for one in lasting:
        if one.labels["alertname"] == "ConsumerStuck":
            watch.stuck[one.labels["stream"], one.labels["group"]] = one.starts_at
        elif one.labels == _UNKNOWN:
            watch.unknown_since = one.starts_at
    watch.primed = True


def _unknown(desk: Desk, watch: LagWatch, fault: TransientError) -> list[Alert]:
    if watch.unknown_since is not None:
        return []
    watch.unknown_since = desk.clock()
    return [
        alert(
            _UNKNOWN,
            summary="nobody knows how far the services are behind",
            error=fault.cause or fault.what,
            next_command="asof doctor",
            starts_at=watch.unknown_since,
        )
    ]


def _known_again(desk: Desk, watch: LagWatch) -> list[Alert]:
    began, watch.unknown_since = watch.unknown_since, None
    if began is None:
        return []
    summary = "it is known again how far the services are behind"
    now = desk.clock()
    return [alert(_UNKNOWN, summary=summary, error="none", next_command="none", starts_at=began, ends_at=now)]


def _judge(desk: Desk, watch: LagWatch, state: GroupState) -> Alert | None:
    now, name = desk.clock(), (state.stream, state.group)
    # At first sight nobody knows whether it moves; that nothing waits says enough.
    delivered, since = watch.standing.setdefault(name, (state.delivered, now))
    if delivered != state.delivered or state.waiting == 0:
        watch.standing[name] = (state.delivered, now)
        began = watch.stuck.pop(name, None)
        return None if began is None else _alert(state, began, ends_at=now)
    if name in watch.stuck or now - since < watch.stuck_after:
        return None
    watch.stuck[name] = since
    return _alert(state, since, ends_at=None)


def _alert(state: GroupState, since: datetime, *, ends_at: datetime | None) -> Alert:
    lasts = ends_at is None
    if lasts:
        said = f"has read nothing from {state.stream} since {format_instant(since)}"
    else:
        said = f"reads {state.stream} again"
    return alert(
        {"alertname": "ConsumerStuck", "group": state.group, "stream": state.stream, "severity": "page"},
        summary=f"{state.group} {said}",
        error=f"{state.waiting:,} events wait for it" if lasts else "none",
        next_command=f"asof doctor; asof up {state.group}" if lasts else "none",
        starts_at=since,
        ends_at=ends_at,
    )
