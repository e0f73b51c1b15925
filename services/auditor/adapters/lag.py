"""How far each service is behind, by what Redis knows of its consumer groups."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from services.auditor.ports import GroupState
from shared.errors import TransientError
from shared.streams import STREAMS


class RedisGroups:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def states(self) -> list[GroupState]:
        """Every declared group of every stream that exists. Raises TransientError when Redis does not answer."""
        states = []
        for stream in STREAMS.values():
            if not stream.groups:
                continue
            try:
                groups = await self._redis.xinfo_groups(stream.name)
            except (RedisError, OSError) as fault:
                if isinstance(fault, ResponseError) and "no such key" in str(fault):
                    continue  # the stream does not exist yet, so nothing waits in it
                raise TransientError("Redis does not say how far its groups are", cause=str(fault)) from fault
            for group in groups:
                name = _text(group["name"])
                if name in stream.groups:
                    waiting = group.get("lag")
                    states.append(
                        GroupState(
                            stream=stream.name,
                            group=name,
                            # After a trim Redis may not know the number; then what it delivered last still tells.
                            waiting=0 if waiting is None else int(waiting),
                            delivered=_text(group["last-delivered-id"]),
                        )
                    )
        return states


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
