"""What keeps a process honest while it works: heartbeats for what it holds, and readers that never stop unseen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import ResponseError

from shared.bus.address import Master
from shared.bus.groups import ensure_groups, held_by, is_lost, show_reader
from shared.bus.publishing import Bus
from shared.bus.reader import Reader
from shared.bus.settings import BusSettings
from shared.bus.worker import Worker

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")


async def watch(
    redis: Redis,
    readers: Sequence[Reader],
    buses: Sequence[Bus],
    settings: BusSettings,
    stopping: asyncio.Event,
    *,
    readers_are_seen: bool,
) -> None:
    """Runs until it is cancelled: what is still being handled after a stop needs its heartbeats too.

    `readers_are_seen`: the server itself sees who reads, as `check_server` found.
    """
    workers = list({id(reader.worker): reader.worker for reader in readers}.values())
    master = Master(redis)
    while True:
        if await master.follow():
            log.warning("another server is the master now")
        if not stopping.is_set():
            await revive(redis, readers)
            if not readers_are_seen:
                await show(redis, readers, settings)
        for worker in workers:
            try:
                await beat(redis, worker, settings)
            except ResponseError as fault:
                if not is_lost(fault):
                    raise
        for bus in buses:
            await bus.confirm()
        await asyncio.sleep(min(settings.heartbeat_s, settings.reclaim_every_s))


async def revive(redis: Redis, readers: Sequence[Reader]) -> None:
    """Read on after a FLUSHALL or a deleted stream: FastStream stops for good when its group is gone.

    The group is made again at the beginning, so what was published in between is read too.
    """
    for reader in readers:
        if not reader.running:
            worker = reader.worker
            log.error(
                "the consumer group was lost; it is made again",
                stream=worker.stream,
                group=worker.group,
                cause="the stream was deleted or the database flushed",
                fix="asof doctor, and asof retry for runs that were under way",
            )
            await ensure_groups(redis, [(worker.stream, worker.group)])
            worker.metrics.regrouped.inc()
            worker.lost_at = time.monotonic()
            await reader.start()


async def show(redis: Redis, readers: Sequence[Reader], settings: BusSettings) -> None:
    """For who looks from outside, as `asof doctor` does: those that read."""
    for reader in readers:
        if reader.running and reader.silent_s <= 2 * settings.block_s:
            try:
                await show_reader(redis, reader.worker.stream, reader.worker.group, reader.consumer)
            except ResponseError as fault:
                if not is_lost(fault):
                    raise


async def beat(redis: Redis, worker: Worker, settings: BusSettings) -> None:
    """Reset the idle time of what this process still holds, so that nobody takes it for abandoned.

    What was taken over meanwhile (this process was stopped for a while) is left to its new owner.
    """
    old = time.monotonic() - settings.heartbeat_s
    mine = {entry_id: held for entry_id, held in worker.held.items() if held.since <= old}
    for consumer in {held.consumer for held in mine.values()}:
        held_here: list[Any] = [entry_id for entry_id, held in mine.items() if held.consumer == consumer]
        owned = await held_by(redis, worker.stream, worker.group, consumer)
        if kept := [entry_id for entry_id in held_here if entry_id in owned]:
            await redis.xclaim(worker.stream, worker.group, consumer, 0, kept, justid=True)
        for entry_id in held_here:
            held = worker.held.get(entry_id)
            if entry_id not in owned and held is not None and held.retry_at is not None:
                del worker.held[entry_id]
