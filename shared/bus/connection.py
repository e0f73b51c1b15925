"""The one connection pool of a process: FastStream's broker, with reconnects that are quick and do not give up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import RedisError

from shared.bus.address import broker_of, client_of, close, reason
from shared.bus.settings import BusSettings
from shared.errors import TransientError

if TYPE_CHECKING:
    from faststream.redis import RedisBroker
    from redis.asyncio import Redis

_FIRST_ANSWER_S = 10.0
_ASK_AGAIN_S = 0.1
# Every reader blocks on a connection of its own.
_CONNECTIONS = 1000


@asynccontextmanager
async def connect(redis_url: str, settings: BusSettings) -> AsyncIterator[tuple[RedisBroker, Redis]]:
    """The broker and its client. Raises TransientError when Redis does not answer at first.

    Later a lost connection is tried again until it is back: redis-py waits 20 ms to 0.5 s between two tries, where
    FastStream's own loop would wait 5 s.
    """
    await _first_answer(redis_url)
    broker = broker_of(
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
        yield broker, redis
    finally:
        await broker.stop()
        await close(redis)


async def _first_answer(redis_url: str) -> None:
    # With a client of its own: one that tries for ever never says what is wrong.
    redis = client_of(redis_url, retry=Retry(NoBackoff(), 0))
    cause: BaseException = TimeoutError(f"nothing within {_FIRST_ANSWER_S:.0f} s")
    deadline = time.monotonic() + _FIRST_ANSWER_S
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await redis.ping()
                return
            except TimeoutError:
                break
            except (RedisError, OSError) as fault:
                cause = fault
            await asyncio.sleep(_ASK_AGAIN_S)
    finally:
        await close(redis)
    raise TransientError(
        "Redis does not answer", cause=reason(cause), fix="asof doctor; check ASOF_REDIS_URL"
    ) from cause
