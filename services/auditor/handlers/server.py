"""What the server shows before anything is lost: a group that nobody declared, and memory that runs out."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from datetime import datetime

from services.auditor.domain.alerts import alert
from services.auditor.handlers.desk import Desk, Events
from services.auditor.ports import Server, ServerState
from shared.errors import TransientError
from shared.events import Alert

_UNDECLARED = "UndeclaredGroup"
_FULL = {"alertname": "RedisFull", "severity": "page"}
# Shares of the server's memory: full from the one on, and until there is clearly room again.
_FULL_FROM, _ROOM_BELOW = 0.9, 0.8
_MIB = 1 << 20


@dataclass
class ServerWatch:
    """`server` is set when the service starts."""

    server: Server | None = None


async def watch_server(*, desk: Desk, watch: ServerWatch) -> Events:
    """Begin and end alerts. The book on disk says which of them last, so that a restart or a second auditor is no news.

    While a full server takes no writes, channels are told from the book; the events are published once it does.
    """
    if watch.server is None:
        return []
    try:
        state = await watch.server.state()
    except TransientError:
        return []  # nothing begins or ends unseen; that Redis does not answer is said by LagUnknown
    made = await asyncio.to_thread(_judge, desk, state)
    return [desk.event(one) for one in made]


def _judge(desk: Desk, state: ServerState) -> list[Alert]:
    now = desk.clock()
    with desk.alerts.open() as book:
        lasting = [row.alert for row in book.firing() if row.alert.labels["alertname"] in (_UNDECLARED, "RedisFull")]
    found = [_undeclared(stream, group, now) for stream, group in state.undeclared]
    limit = state.limit * (_ROOM_BELOW if any(one.labels == _FULL for one in lasting) else _FULL_FROM)
    if state.limit and state.used >= limit:
        found.append(_full(state, now))
    known, still = {one.fingerprint for one in lasting}, {one.fingerprint for one in found}
    made = [one for one in found if one.fingerprint not in known]
    made += [_ended(one, now) for one in lasting if one.fingerprint not in still]
    desk.alerts.note(made)
    return made


def _undeclared(stream: str, group: str, now: datetime) -> Alert:
    return alert(
        {"alertname": _UNDECLARED, "group": group, "stream": stream, "severity": "warning"},
        summary=f"shared/streams.py declares no group {group} on {stream}: declare it, or remove it",
        error="trimming does not wait for it: what it has not read may be gone",
        next_command=f"redis-cli XGROUP DESTROY {stream} {shlex.quote(group)}",
        starts_at=now,
    )


def _full(state: ServerState, now: datetime) -> Alert:
    return alert(
        _FULL,
        summary="Redis runs out of memory: what it refuses waits in the services",
        error=f"{state.used / _MIB:,.0f} MiB are used, writes are refused from {state.limit / _MIB:,.0f} MiB on",
        next_command="asof doctor",
        starts_at=now,
    )


def _ended(one: Alert, now: datetime) -> Alert:
    if one.labels == _FULL:
        summary = "Redis has room again"
    else:
        summary = f"the group {one.labels['group']} on {one.labels['stream']} is gone or declared"
    return alert(one.labels, summary=summary, error="none", next_command="none", starts_at=one.starts_at, ends_at=now)
