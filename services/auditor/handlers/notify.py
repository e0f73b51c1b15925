"""Telling people: what is due goes to every channel; a channel that fails is itself reported, and stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.auditor.domain.alert_book import told_line
from services.auditor.domain.alerts import alert
from services.auditor.handlers.desk import Desk, Events
from services.auditor.ports import Channel
from shared.errors import TransientError
from shared.events import Alert

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=2), timedelta(minutes=10)


@dataclass
class Pause:
    """A failing channel is left alone for a while, longer each time."""

    since: datetime
    until: datetime
    length: timedelta = _FIRST_PAUSE


@dataclass
class Notifier:
    channels: Sequence[Channel]
    paused: dict[str, Pause] = field(default_factory=dict)


async def notify(*, desk: Desk, notifier: Notifier) -> Events:
    """Send what is due. The alerts about channels go to the stream, and to the channels that work."""
    now = desk.clock()
    by_name: Mapping[str, Channel] = {
        channel.name: channel
        for channel in notifier.channels
        if channel.name not in notifier.paused or notifier.paused[channel.name].until <= now
    }
    if not by_name:
        return []
    due = await asyncio.to_thread(_due, desk, list(by_name))
    made: list[Alert] = []
    for name, wanted in due.items():
        made += await _send(desk, notifier, by_name[name], wanted)
    await asyncio.to_thread(desk.alerts.note, made)
    return [desk.event(one) for one in made]


def _due(desk: Desk, names: list[str]) -> dict[str, list[Alert]]:
    wanted: dict[str, list[Alert]] = {}
    with desk.alerts.open() as book:
        for name, one in book.due(names, desk.clock()):
            if (one.labels["alertname"], one.labels.get("channel")) != ("ChannelFailing", name):
                wanted.setdefault(name, []).append(one)
    return wanted


async def _send(desk: Desk, notifier: Notifier, channel: Channel, wanted: list[Alert]) -> list[Alert]:
    for one in wanted:
        try:
            await channel.send(one)
        except TransientError as fault:
            return [_failing(desk, notifier, channel.name, fault)]
        await asyncio.to_thread(desk.alerts.add, [told_line(one, channel.name, desk.clock())])
    pause = notifier.paused.pop(channel.name, None)
    return [] if pause is None else [_recovered(desk, channel.name, pause)]


def _failing(desk: Desk, notifier: Notifier, name: str, fault: TransientError) -> Alert:
    now = desk.clock()
    pause = notifier.paused.get(name)
    if pause is None:
        pause = notifier.paused[name] = Pause(now, now + _FIRST_PAUSE)
    else:
        pause.length = min(pause.length * 2, _LONGEST_PAUSE)
        pause.until = now + pause.length
    return alert(
        _labels(name),
        summary=f"alerts do not get through {name}: {fault.what}",
        error=fault.cause or fault.what,
        next_command="asof config",
        starts_at=pause.since,
    )


def _recovered(desk: Desk, name: str, pause: Pause) -> Alert:
    return alert(
        _labels(name),
        summary=f"alerts get through {name} again",
        error="none",
        next_command="asof alerts",
        starts_at=pause.since,
        ends_at=desk.clock(),
    )


def _labels(name: str) -> dict[str, str]:
    return {"alertname": "ChannelFailing", "channel": name, "severity": "warning"}
