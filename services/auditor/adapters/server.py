"""What the server itself says: which groups it keeps on our streams, and how much of its memory is used."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.auditor.adapters.lag import groups_of, text_of
from services.auditor.ports import ServerState
from shared.errors import TransientError
from shared.streams import STREAMS


class RedisState:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def state(self) -> ServerState:
        """As it is now. Raises TransientError when Redis does not answer."""
        undeclared = []
        for stream in STREAMS.values():
            names = [text_of(group["name"]) for group in await groups_of(self._redis, stream.name)]
            undeclared += [(stream.name, name) for name in names if name not in stream.groups]
        try:
            memory = await self._redis.info("memory")
        except (RedisError, OSError) as fault:
            raise TransientError("Redis does not say how full it is", cause=str(fault)) from fault
        # What it holds for its replicas and its append-only file does not count against its limit.
        used = int(memory["used_memory"]) - int(memory.get("mem_not_counted_for_evict", 0))
        return ServerState(undeclared, used=used, limit=int(memory.get("maxmemory", 0)))
