"""Going away without a trace: what this process leaves pending can be taken over at once, its consumers are removed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError

from shared.bus.groups import held_by
from shared.bus.publishing import Bus
from shared.bus.reader import Reader
from shared.bus.settings import BusSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")

_LONGEST_S = 2.0

# Checked and removed in one step: XGROUP DELCONSUMER would drop what the consumer still has pending.
REMOVE_IF_DONE = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if consumer[2] == ARGV[2] and consumer[4] == 0 and consumer[6] >= tonumber(ARGV[3]) then
    return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  end
end
return false
"""


async def leave(redis: Redis, readers: Sequence[Reader], buses: Sequence[Bus], settings: BusSettings) -> None:
    try:
        async with asyncio.timeout(_LONGEST_S):
            for bus in buses:
                await bus.confirm(after_s=0)
            for reader in readers:
                await _give_back(redis, reader, settings)
    except (RedisError, TimeoutError) as fault:
        # Redis is gone: then the next process takes over by idle time, as after a crash.
        log.warning("left without giving back what is pending", cause=str(fault) or "redis does not answer")


async def _give_back(redis: Redis, reader: Reader, settings: BusSettings) -> None:
    stream, group = reader.worker.stream, reader.worker.group
    ids: list[Any] = list(await held_by(redis, stream, group, reader.consumer))
    if ids:
        # As idle as an abandoned one, so that nobody has to wait for it.
        idle_ms = int(settings.min_idle_s * 1000) + 1
        await redis.xclaim(stream, group, reader.consumer, 0, ids, idle=idle_ms, justid=True)
    else:
        await redis.eval(REMOVE_IF_DONE, 1, stream, group, reader.consumer, 0)
