"""What has to be done now and then, by each service for its own: trim, archive, remove the dead, measure.

A stream is trimmed by its publishers up to the slowest declared group: an entry that some declared group has not read
or not acknowledged stays, and while a declared group does not exist yet, everything stays. A group that shared.streams
does not declare holds nothing back and is reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import ResponseError

from shared.bus.archive import Archive
from shared.bus.contract import Service
from shared.bus.groups import group_name, is_lost
from shared.bus.leaving import REMOVE_IF_DONE
from shared.bus.metrics import Metrics
from shared.bus.names import died_here, seen_key
from shared.bus.publishing import Bus
from shared.bus.settings import BusSettings
from shared.streams import STREAMS, Stream, published_by

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")

Id = tuple[int, int]


async def keep_up(service: Service, bus: Bus, metrics: Metrics, settings: BusSettings, stopping: asyncio.Event) -> None:
    undeclared: set[tuple[str, str]] = set()
    while not stopping.is_set():
        await bus.adopt(service.state / "outbox")
        for subscription in service.subscriptions:
            with _until_regrouped():
                await measure(bus.redis, service.name, subscription.stream, metrics)
                await reap(bus.redis, service.name, subscription.stream, settings)
            await bus.redis.zremrangebyrank(seen_key(service.name, subscription.stream), 0, -settings.seen_kept - 1)
        for name in published_by(service.name):
            with _until_regrouped():
                archive = archive_of(service, STREAMS[name])
                undeclared |= await trim(bus.redis, STREAMS[name], archive, settings, undeclared)
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.upkeep_s):
                await stopping.wait()


@contextmanager
def _until_regrouped() -> Iterator[None]:
    """A group that is lost has nothing to trim or to measure; the watch makes it again and says so."""
    try:
        yield
    except ResponseError as fault:
        if not is_lost(fault):
            raise


def archive_of(service: Service, stream: Stream) -> Path | None:
    """Where `service` archives `stream`; None when it is not archived, or by another of its publishers."""
    kept = not stream.groups or stream.name == "dead-letters"
    return service.state / "archive" / f"{stream.name}.jsonl" if kept and stream.publishers[0] == service.name else None


async def trim(
    redis: Redis, stream: Stream, archive: Path | None, settings: BusSettings, known: set[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Remove what everybody is done with and is older than `keep_s`; returns the undeclared groups that it found."""
    groups = await _groups(redis, stream.name)
    if groups is None:
        return set()
    undeclared = {(stream.name, name) for name in groups if name not in stream.groups}
    for _, name in undeclared - known:
        log.error(
            "a group that shared/streams.py does not declare holds nothing back: what it has not read may be trimmed",
            stream=stream.name,
            group=name,
            fix="declare it there, or XGROUP DESTROY it",
        )
    archived_by_us = not stream.groups or stream.name == "dead-letters"
    if archived_by_us and archive is None:
        return undeclared  # its archivist trims it
    keep_s = settings.keep_s
    bounds: list[Id] = []
    if archive is not None:
        with Archive(archive) as file:
            bounds.append(await file.take_all(redis, stream.name))
        keep_s = settings.archive_keep_s
    for name in stream.groups:
        if name not in groups:
            return undeclared
        bounds.append(await _done_up_to(redis, stream.name, groups[name]))
    seconds, microseconds = await redis.time()
    bounds.append((int((seconds - keep_s) * 1000 + microseconds / 1000), 0))
    milliseconds, sequence = min(bounds)
    if milliseconds > 0:
        await redis.xtrim(stream.name, minid=f"{milliseconds}-{sequence}", approximate=settings.trim_roughly)
    return undeclared


async def _groups(redis: Redis, stream: str) -> dict[str, Any] | None:
    try:
        return {group_name(row): row for row in await redis.xinfo_groups(stream)}
    except ResponseError as fault:
        if is_lost(fault):
            return None
        raise


async def _done_up_to(redis: Redis, stream: str, group: dict[str, Any]) -> Id:
    """The first entry that the group still needs: its oldest pending one, else the last one it was given."""
    if group["pending"]:
        summary = await redis.xpending(stream, group["name"])
        if summary["min"] is not None:
            return id_of(summary["min"])
    return id_of(group["last-delivered-id"])


def id_of(entry_id: bytes) -> Id:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


async def reap(redis: Redis, group: str, stream: str, settings: BusSettings) -> None:
    """Remove consumers that are gone, but only those that hold nothing: what is pending has to be taken over first."""
    consumers: Sequence[Any] = await redis.xinfo_consumers(stream, group)
    for consumer in consumers:
        if consumer["pending"]:
            continue
        dead = died_here(consumer["name"].decode())
        idle_ms = 0 if dead else int(settings.reap_after_s * 1000)
        if consumer["idle"] >= idle_ms:
            await redis.eval(REMOVE_IF_DONE, 1, stream, group, consumer["name"], idle_ms)


async def measure(redis: Redis, group: str, stream: str, metrics: Metrics) -> None:
    groups = await _groups(redis, stream)
    row = (groups or {}).get(group)
    if row is None:
        return
    figures = metrics.of(group, stream)
    figures.lag.set(float("nan") if row["lag"] is None else row["lag"])
    figures.pending.set(row["pending"])
    oldest = 0.0
    if row["pending"]:
        summary = await redis.xpending(stream, group)
        if summary["min"] is not None:
            seconds, microseconds = await redis.time()
            oldest = max(0.0, seconds + microseconds / 1e6 - id_of(summary["min"])[0] / 1000)
    figures.oldest.set(oldest)
