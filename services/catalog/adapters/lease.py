"""The writers' lease in Redis: so that two catalogs do not both decide what only one of them can commit.

It spares work and is not what makes a commit safe: a holder that is paused outlives its lease. Safe is the table's
create-if-absent; and the number that comes with the lease grows with every holder and is written into the manifest, so
that a holder from before is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from shared.errors import TransientError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_KEY = "asof:catalog:lease"
_COUNTER = "asof:catalog:epoch"

# Takes the lease when it is free. The number is above every one that was given and above the table's own (ARGV[3]):
# a Redis that lost its memory must not lock every writer out.
_TAKE = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
local epoch = redis.call('INCR', KEYS[2])
if epoch <= tonumber(ARGV[3]) then
  epoch = tonumber(ARGV[3]) + 1
  redis.call('SET', KEYS[2], epoch)
end
return epoch
"""
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisLease:
    """`owner` makes a name for each holding. A lease that is not given back lapses after `lasts_s`."""

    def __init__(self, owner: Callable[[], str], *, lasts_s: float = 10.0, patience_s: float = 120.0) -> None:
        self._owner = owner
        self._lasts_ms = int(lasts_s * 1000)
        self._patience_s = patience_s
        self._redis: Redis | None = None

    def connect(self, redis: Redis) -> None:
        self._redis = redis

    @asynccontextmanager
    async def held(self, floor: int) -> AsyncIterator[int]:
        """Hold the lease; its number is above `floor`. Raises TransientError when it cannot be had."""
        owner = self._owner()
        epoch = await self._take(owner, floor)
        try:
            yield epoch
        finally:
            with suppress(RedisError, OSError):  # it lapses by itself
                await self._run(_GIVE_BACK, owner)

    async def _take(self, owner: str, floor: int) -> int:
        try:
            async with asyncio.timeout(self._patience_s):
                pause = 0.002
                while not (epoch := await self._run(_TAKE, owner, self._lasts_ms, floor)):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.05)
        except TimeoutError as fault:
            raise TransientError(
                "another catalog holds the writers' lease",
                cause=f"waited {self._patience_s:.0f} s",
                fix="stop the other one: asof doctor",
            ) from fault
        except (RedisError, OSError) as fault:
            raise TransientError(
                "the writers' lease cannot be had", cause=str(fault), fix="asof doctor; check ASOF_REDIS_URL"
            ) from fault
        return epoch

    async def _run(self, script: str, *arguments: Any) -> int:
        assert self._redis is not None, "connect comes first"
        redis: Any = self._redis
        return int(await redis.eval(script, 2, _KEY, _COUNTER, *arguments))
