"""The one connection pool of a process: FastStream's broker, with reconnects that are quick and do not give up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from faststream.redis import RedisBroker
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from shared.bus.settings import BusSettings
from shared.errors import TransientError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_FIRST_ANSWER_S = 10.0
# Every reader blocks on a connection of its own.
_CONNECTIONS = 1000


@asynccontextmanager
async def connect(redis_url: str, settings: BusSettings) -> AsyncIterator[tuple[RedisBroker, Redis]]:
    """The broker and its client. Raises TransientError when Redis does not answer at first.

    Later a lost connection is tried again until it is back: redis-py waits 20 ms to 0.5 s between two tries, where
    FastStream's own loop would wait 5 s.
    """
    broker = RedisBroker(
        redis_url,
        apply_types=False,
        logger=logging.getLogger("asof.bus.faststream"),
        log_level=logging.DEBUG,
        graceful_timeout=settings.grace_s,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), retries=-1),
        max_connections=_CONNECTIONS,
        socket_timeout=settings.block_s + 5,
    )
    redis = await broker.connect()
    try:
        try:
            async with asyncio.timeout(_FIRST_ANSWER_S):
                await redis.ping()
        except (TimeoutError, RedisError, OSError) as fault:
            raise TransientError(
                "Redis does not answer",
                cause=str(fault) or f"nothing within {_FIRST_ANSWER_S:.0f} s",
                fix="asof doctor; check ASOF_REDIS_URL",
            ) from fault
        yield broker, redis
    finally:
        await broker.stop()
