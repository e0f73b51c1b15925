"""The reclaimer of one subscription: delivers again what failed, and takes over what a dead worker left.

FastStream's own (`min_idle_time`) takes one entry at a time, knows no delivery count and waits the same idle time for
a failed entry as for a dead worker's (docs/adr/0010-bus-on-faststream.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import ResponseError

from shared.bus.entries import Entry
from shared.bus.groups import held_by, is_lost
from shared.bus.names import died_here
from shared.bus.settings import BusSettings
from shared.bus.worker import Worker

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")

# Two replicas may see the same dead consumer: the first claim resets the idle time and makes the second one void.
_DEAD_IDLE_MS = 200
# An entry that was delivered so often without an end may kill its process: it is then handled alone.
_SUSPECT = 3


class Reclaimer:
    def __init__(self, worker: Worker, consumer: str, redis: Redis, settings: BusSettings) -> None:
        self._worker = worker
        self._consumer = consumer
        self._redis = redis
        self._settings = settings
        self._scan_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self._deliver_due()
                if time.monotonic() >= self._scan_at:
                    self._scan_at = time.monotonic() + self._settings.reclaim_every_s
                    await self._take_over_abandoned(stopping)
            except ResponseError as fault:
                # The watch makes a lost group again and says so; there is nothing pending in it until then.
                if not is_lost(fault):
                    raise
            await self._pause(stopping)

    async def _pause(self, stopping: asyncio.Event) -> None:
        """Sleep until the next delivery is due or the next look is, or something fails or stops."""
        self._worker.failed.clear()
        due = [held.retry_at for held in self._worker.held.values() if held.retry_at is not None]
        wait = max(0.0, min([self._scan_at, *due]) - time.monotonic())
        waits = [asyncio.ensure_future(self._worker.failed.wait()), asyncio.ensure_future(stopping.wait())]
        await asyncio.wait(waits, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        for waiting in waits:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting

    async def _deliver_due(self) -> None:
        now = time.monotonic()
        due = {
            entry_id: held
            for entry_id, held in self._worker.held.items()
            if held.retry_at is not None and held.retry_at <= now
        }
        for consumer in {held.consumer for held in due.values()}:
            waited = {entry_id: held.deliveries for entry_id, held in due.items() if held.consumer == consumer}
            # This process may have been stopped for a while: what was taken over is left to its new owner.
            owned = await held_by(self._redis, self._worker.stream, self._worker.group, consumer)
            ours = {entry_id: count for entry_id, count in waited.items() if entry_id in owned}
            entries = await self._claim(consumer, ours, min_idle_ms=0)
            for entry_id in waited:
                self._worker.held.pop(entry_id, None)
            await self._handle(entries)

    async def _take_over_abandoned(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            limit = self._worker.ahead() * self._worker.subscription.concurrency
            found = await self._abandoned(limit)
            calm = {entry_id: count for entry_id, (count, _) in found.items() if count < _SUSPECT}
            suspects = [entry_id for entry_id in found if entry_id not in calm]
            taken = await self._take(calm, found)
            await self._handle(taken)
            for entry_id in suspects:
                alone = await self._take({entry_id: found[entry_id][0]}, found)
                taken += alone
                for entry in alone:
                    if entry.deliveries > self._settings.max_unfinished:
                        await self._worker.give_up_unhandled(entry)
                    else:
                        await self._handle([entry])
            if len(taken) < limit:
                return

    async def _abandoned(self, limit: int) -> dict[bytes, tuple[int, int]]:
        """Pending entries that nobody works on: how often each was delivered, and the idle time that proves it."""
        stream, group = self._worker.stream, self._worker.group
        idle_ms = int(self._settings.min_idle_s * 1000)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xpending_range(stream, group, min="-", max="+", count=limit, idle=idle_ms)
            pipe.xinfo_consumers(stream, group)
            lapsed, consumers = await pipe.execute()
        found = {row["message_id"]: (row["times_delivered"], idle_ms) for row in lapsed}
        for consumer in consumers:
            if consumer["pending"] and died_here(consumer["name"].decode()):
                rows = await self._redis.xpending_range(
                    stream, group, min="-", max="+", count=limit, consumername=consumer["name"], idle=_DEAD_IDLE_MS
                )
                found.update({row["message_id"]: (row["times_delivered"], _DEAD_IDLE_MS) for row in rows})
        return {entry_id: row for entry_id, row in found.items() if entry_id not in self._worker.held}

    async def _take(self, deliveries: dict[bytes, int], found: dict[bytes, tuple[int, int]]) -> list[Entry]:
        taken: list[Entry] = []
        for idle_ms in {found[entry_id][1] for entry_id in deliveries}:
            share = {entry_id: count for entry_id, count in deliveries.items() if found[entry_id][1] == idle_ms}
            taken += await self._claim(self._consumer, share, min_idle_ms=idle_ms)
        if taken:
            self._worker.metrics.taken_over.inc(len(taken))
            log.info("took over abandoned entries", stream=self._worker.stream, entries=len(taken))
        return taken

    async def _claim(self, consumer: str, deliveries: dict[bytes, int], *, min_idle_ms: int) -> list[Entry]:
        if not deliveries:
            return []
        ids: list[Any] = list(deliveries)
        claimed: Any = await self._redis.xclaim(self._worker.stream, self._worker.group, consumer, min_idle_ms, ids)
        return [
            Entry(entry_id, fields, consumer, deliveries[entry_id] + 1)
            for entry_id, fields in claimed
            if fields is not None  # trimmed away by somebody else than the bus: there is nothing left to apply
        ]

    async def _handle(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        if self._worker.subscription.concurrency == 1:
            await self._worker.handle(entries)
            return
        slots = asyncio.Semaphore(self._worker.subscription.concurrency)

        async def one(entry: Entry) -> Any:
            async with slots:
                await self._worker.handle([entry])

        await asyncio.gather(*(one(entry) for entry in entries))
