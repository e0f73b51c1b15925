"""Publishing, and the one transaction that ends an entry: outputs added, input acknowledged, its id remembered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError

from shared.bus.outbox import Outbox, Outgoing, orphaned
from shared.bus.wire import encode
from shared.events import Event

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

# The server refuses writes for now; nothing was applied, because a transaction is refused as a whole.
REFUSED_FOR_NOW = (OutOfMemoryError, BusyLoadingError, ReadOnlyError)
_REFUSED_WAIT_S = 0.25
# Longer than what a server that syncs every second may lose.
CONFIRM_AFTER_S = 3.0

log = structlog.get_logger("asof.bus")


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A publication that no input would bring back, and the entry ids that it was given."""

    kept: Path
    outgoing: Sequence[Outgoing]
    ids: tuple[bytes, ...]
    since: float


class Bus:
    """What a service may use besides its handlers: `publish`, the Redis client for leases and limiters, and for figures
    of its own the registry behind /metrics."""

    def __init__(self, redis: Redis, outbox: Outbox, blocked: Blocked, registry: CollectorRegistry) -> None:
        self.redis = redis
        self.registry = registry
        self._outbox = outbox
        self._blocked = blocked
        self._unconfirmed: deque[Unconfirmed] = deque()

    @property
    def blocked_s(self) -> float | None:
        """For how long the server has been refusing writes; None when it takes them."""
        return None if self._blocked.since is None else time.monotonic() - self._blocked.since

    async def publish(self, events: Sequence[Event[Any]], *, trace: str | None = None) -> None:
        """Add all events in one transaction. They are on disk before it begins, so a crash does not lose them."""
        if events:
            await self.commit([Outgoing(event.stream, encode(event, trace=trace)) for event in events])

    async def commit(
        self,
        outgoing: Sequence[Outgoing],
        finish: Callable[[Pipeline], Any] | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Add `outgoing` and do what `finish` queues, all or nothing; wait while the server takes no writes.

        With `finish` it ends an input, which a server that loses its last writes brings back. Without, nothing would:
        the events stay in the outbox until `confirm` has seen them once more.
        """
        kept = self._outbox.write(outgoing) if outgoing else None
        ids: list[bytes] = []

        async def transact() -> None:
            async with self.redis.pipeline(transaction=True) as pipe:
                for item in outgoing:
                    fields: dict[Any, Any] = dict(item.fields)
                    pipe.xadd(item.stream, fields)
                if finish is not None:
                    finish(pipe)
                ids[:] = (await pipe.execute())[: len(outgoing)]

        await self._blocked.until_accepted(transact)
        if kept is None:
            return
        if finish is not None or again:
            self._outbox.sent(kept)
        else:
            self._unconfirmed.append(Unconfirmed(kept, outgoing, tuple(ids), time.monotonic()))

    async def confirm(self, *, after_s: float = CONFIRM_AFTER_S) -> None:
        """Publish again, once, what a killed server has lost of the events without an input.

        An append-only file that is synced every second may lack up to two seconds of what was answered.
        """
        while self._unconfirmed and self._unconfirmed[0].since + after_s <= time.monotonic():
            oldest = self._unconfirmed[0]
            async with self.redis.pipeline(transaction=False) as pipe:
                for item, entry_id in zip(oldest.outgoing, oldest.ids, strict=True):
                    pipe.xrange(item.stream, min=entry_id, max=entry_id)
                rows = await pipe.execute()
            missing = [item for item, row in zip(oldest.outgoing, rows, strict=True) if not row]
            if missing:
                log.warning("the server has lost events; they are published again", events=len(missing))
                await self.commit(missing, again=True)
            self._outbox.sent(oldest.kept)
            self._unconfirmed.popleft()

    async def count(self, key: str, name: bytes) -> int:
        """Add one to a counter of the hash `key`; its new value."""
        value = 0

        async def increment() -> None:
            nonlocal value
            value = int(await self.redis.hincrby(key, name.decode("ascii")))

        await self._blocked.until_accepted(increment)
        return value

    async def adopt(self, folder: Path) -> int:
        """Publish what dead processes of this service left in their outboxes; returns the number of events."""
        count = 0
        with orphaned(folder) as left:
            for path, outgoing in left:
                await self.commit(outgoing, again=True)
                Outbox.sent(path)
                count += len(outgoing)
        if count:
            log.warning("published what a dead process left in its outbox", events=count)
        return count


class Blocked:
    """Back-pressure: while the server refuses writes the caller waits, and `since` says for how long."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.cause = ""

    async def until_accepted(self, transact: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await transact()
            except REFUSED_FOR_NOW as fault:
                if self.since is None:
                    self.since, self.cause = time.monotonic(), str(fault)
                    log.error("redis refuses writes; waiting", cause=str(fault), fix="asof doctor")
                await asyncio.sleep(_REFUSED_WAIT_S)
                continue
            if self.since is not None:
                log.warning("redis accepts writes again", waited_s=round(time.monotonic() - self.since, 3))
                self.since = None
            return
