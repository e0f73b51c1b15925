"""How far each service is behind, by what Redis knows of its consumer groups."""

from __future__ import annotations

from typing import Any

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
            for group in await groups_of(self._redis, stream.name):
                name = text_of(group["name"])
                if name in stream.groups:
                    waiting = group.get("lag")
                    states.append(
                        GroupState(
                            stream=stream.name,
                            group=name,
                            # After a trim Redis may not know the number; then what it delivered last still tells.
                            waiting=0 if waiting is None else int(waiting),
                            delivered=text_of(group["last-delivered-id"]),
                        )
                    )
        return states


async def groups_of(redis: Redis, stream: str) -> list[dict[str, Any]]:
    """What Redis says of each group of the stream, declared or not. Raises TransientError when it does not answer."""
    try:
        return list(await redis.xinfo_groups(stream))
    except (RedisError, OSError) as fault:
        if isinstance(fault, ResponseError) and "no such key" in str(fault):
            return []  # the stream does not exist yet, so nothing waits in it
        raise TransientError("Redis does not say how far its groups are", cause=str(fault)) from fault


def text_of(value: bytes | str) -> str:
    """A name as text. Anybody may name a group, so that its bytes need not be UTF-8."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
