"""Publishing and following without a group: for the command line, tests and tools. Nothing here acknowledges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.bus.address import client_of, close, reason, watched
from shared.bus.groups import is_lost
from shared.bus.settings import BusSettings
from shared.bus.wire import decode, encode
from shared.errors import ContractError, TransientError
from shared.events import Event, Payload
from shared.streams import SERVICES, STREAMS

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")

_BLOCK_MS = 1000
_COUNT = 500
_POLL_S = 0.01
_REPLICATED_MS = 1000


class Followed(NamedTuple):
    stream: str
    entry_id: str
    event: Event[Payload]


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[Redis]:
    """A client that gives up after about two seconds. Raises TransientError when Redis cannot be reached."""
    redis = client_of(redis_url, retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=6))
    try:
        yield redis
    except (RedisConnectionError, RedisTimeoutError, OSError) as fault:
        raise TransientError("Redis cannot be reached", cause=reason(fault), fix="asof doctor") from fault
    finally:
        await close(redis)


async def publish(redis_url: str, events: Sequence[Event[Any]]) -> list[str]:
    """Add all events in one transaction; their entry ids. Raises TransientError when Redis does not take them.

    Behind a Sentinel it waits for one replica, and warns when none confirms: nobody else would miss these events.
    """
    async with connected(redis_url) as redis:
        async with redis.pipeline(transaction=True) as pipe:
            for event in events:
                fields: dict[Any, Any] = dict(encode(event))
                pipe.xadd(event.stream, fields)
            try:
                ids = [entry_id.decode() for entry_id in await pipe.execute()]
            except ResponseError as fault:
                raise TransientError("Redis refused the events", cause=str(fault), fix="asof doctor") from fault
        if watched(redis_url) is not None and not await redis.wait(1, _REPLICATED_MS):
            log.warning(
                "no replica has these events yet: a failover now would lose them",
                entries=ids,
                fix="asof show the run; when nobody has opened it, publish it again",
            )
        return ids


async def newest(redis_url: str, streams: Iterable[str]) -> dict[str, str]:
    """Each stream's newest entry id, `0-0` when it is empty: the position to follow from before publishing."""
    names = list(streams)
    async with connected(redis_url) as redis, redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.xrevrange(name, count=1)
        answers = await pipe.execute()
    return {name: rows[0][0].decode() if rows else "0-0" for name, rows in zip(names, answers, strict=True)}


async def follow(
    redis_url: str, streams: Mapping[str, str], *, timeout_s: float | None = None
) -> AsyncIterator[Followed]:
    """Every event after the given entry ids, in the order of arrival, until `timeout_s` has passed in all.

    An entry that is no event is named in the log and left to the services, which dead-letter it.
    """
    cap = BusSettings().event_cap
    positions: dict[Any, Any] = {name: position or "0-0" for name, position in streams.items()}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    async with connected(redis_url) as redis:
        while deadline is None or time.monotonic() < deadline:
            left = _BLOCK_MS if deadline is None else int((deadline - time.monotonic()) * 1000)
            answer: Any = await redis.xread(positions, count=_COUNT, block=max(1, min(_BLOCK_MS, left)))
            for raw_name, rows in answer or ():
                name = raw_name.decode()
                for entry_id, fields in rows:
                    positions[name] = entry_id
                    try:
                        event = decode(name, entry_id, fields, cap=cap)
                    except ContractError as fault:
                        log.warning("an entry is no event", stream=name, entry=entry_id.decode(), cause=str(fault))
                        continue
                    yield Followed(name, entry_id.decode(), event)


class Backlog(NamedTuple):
    """What one group has still to do in one stream. `unread` is None when the server cannot tell."""

    stream: str
    group: str
    unread: int | None
    pending: int


async def backlog(redis: Redis) -> list[Backlog]:
    """Every declared group that exists, with what it has not read and what it has not acknowledged."""
    found = []
    for stream in STREAMS.values():
        if not stream.groups:
            continue
        try:
            rows = await redis.xinfo_groups(stream.name)
        except ResponseError as fault:
            if is_lost(fault):
                continue
            raise
        found += [
            Backlog(stream.name, row["name"].decode(), row["lag"], row["pending"])
            for row in rows
            if row["name"].decode() in stream.groups
        ]
    return found


async def settle(redis_url: str, *, timeout_s: float, services: Collection[str] = SERVICES) -> list[Backlog]:
    """Wait until no group of these services has anything unread or pending; what is left when the time is over."""
    deadline = time.monotonic() + timeout_s
    async with connected(redis_url) as redis:
        while True:
            rows = await backlog(redis)
            left = [row for row in rows if row.group in services and (row.unread or row.pending)]
            if not left or time.monotonic() >= deadline:
                return left
            await asyncio.sleep(_POLL_S)
