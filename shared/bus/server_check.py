"""Is this Redis one that keeps events? Checked once at the start: a server that may drop entries is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import NoPermissionError

from shared.errors import ContractError

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")

_OLDEST = 7
_SEES_READERS = (7, 2)


async def check_server(redis: Redis) -> bool:
    """Whether the server itself sees that a consumer reads when there is nothing to read, as from version 7.2 on.

    Raises ContractError for a server that is too old or evicts; warns when a restart of it would lose events.
    """
    try:
        info: dict[str, Any] = await redis.info()
    except NoPermissionError as fault:
        log.warning("the server cannot be checked", cause=str(fault), fix="allow INFO to this user")
        return True
    version = str(info["redis_version"])
    if int(version.partition(".")[0]) < _OLDEST:
        raise ContractError(f"this server has version {version}", fix=f"use Redis or Valkey {_OLDEST} or newer")
    if int(info.get("maxmemory", 0)) > 0 and info.get("maxmemory_policy") != "noeviction":
        raise ContractError(
            "this server evicts keys when its memory is full, and an evicted stream is lost",
            cause=f"maxmemory-policy is {info.get('maxmemory_policy')}",
            fix="CONFIG SET maxmemory-policy noeviction",
        )
    if not int(info.get("aof_enabled", 0)):
        log.warning("this server keeps no append-only file: its restart loses events", fix="CONFIG SET appendonly yes")
    return tuple(int(part) for part in version.split(".")[:2]) >= _SEES_READERS
