"""What a service hands to the bus: handlers of streams, periodic jobs, and two hooks. No handler knows the bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import ContractError
from shared.events import Event
from shared.streams import STREAMS

if TYPE_CHECKING:
    from shared.bus.publishing import Bus

Handler = Callable[[Event[Any]], Awaitable[Sequence[Event[Any]]]]
BatchHandler = Callable[[Sequence[Event[Any]]], Awaitable[Sequence[Event[Any]]]]


@dataclass(frozen=True)
class Subscription:
    """One stream and the handler of its events.

    A handler returns the events to publish; its input is acknowledged with their publication. It raises TransientError
    to see the event again, TerminalError to have it dead-lettered, and DamagedState when no event is to blame: the
    service ends, and what it held stays pending. With `batch` it gets up to `max_records` events at
    once; when it raises, they are tried one by one, so that a poison event does not block its neighbours.
    `concurrency` is how many calls may run at once in one process. Without `batch`, `max_records` bounds what is read
    ahead, and a slow handler reads one event at a time, so that replicas share the work.
    """

    stream: str
    handler: Handler | BatchHandler
    batch: bool = False
    max_records: int = 64
    concurrency: int = 1


@dataclass(frozen=True)
class Job:
    """Work that no event starts: `run` is called every `every_s` seconds and returns the events to publish."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[Sequence[Event[Any]]]]


@dataclass(frozen=True)
class Service:
    """One service. Its consumer group is its `name`; its outbox and archive lie below `state`."""

    name: str
    subscriptions: tuple[Subscription, ...]
    state: Path
    jobs: tuple[Job, ...] = ()
    on_start: Callable[[Bus], Awaitable[None]] | None = None
    on_stop: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        for subscription in self.subscriptions:
            stream = STREAMS.get(subscription.stream)
            if stream is None or self.name not in stream.groups:
                # An undeclared group would be trimmed past: shared.streams decides who may rely on a stream.
                raise ContractError(
                    f"{self.name} may not consume {subscription.stream!r}",
                    cause="shared/streams.py declares no such group",
                    fix="declare it there",
                )
