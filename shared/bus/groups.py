"""Consumer groups: made at the beginning of their stream before anybody reads, made again when they were lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_ALL_OF_ONE = 10_000
_MAX = 2**64 - 1
_GREATEST = f"{_MAX}-{_MAX - 1}"  # one less: the very greatest stands for ">" inside the server


async def ensure_groups(redis: Redis, wanted: Iterable[tuple[str, str]]) -> None:
    """Make each missing (stream, group) at 0, with its stream, so that what was published before counts too."""
    async with redis.pipeline(transaction=False) as pipe:
        for stream, group in wanted:
            pipe.xgroup_create(stream, group, id="0", mkstream=True)
        for answer in await pipe.execute(raise_on_error=False):
            if isinstance(answer, Exception) and "BUSYGROUP" not in str(answer):
                raise answer


def group_name(row: Mapping[str, Any]) -> str:
    """Of a row of XINFO GROUPS. Anybody may name a group, so that its bytes need not be UTF-8."""
    return str(row["name"].decode(errors="backslashreplace"))


async def show_reader(redis: Redis, stream: str, group: str, consumer: str) -> None:
    """Let a server before 7.2 see a consumer that reads in vain: it counts only reads that find something, or that ask
    for what is pending. After the greatest id nothing is."""
    await redis.xreadgroup(group, consumer, {stream: _GREATEST}, count=1)


async def held_by(redis: Redis, stream: str, group: str, consumer: str) -> set[bytes]:
    """The ids of what the group's pending list says this consumer holds."""
    rows: Any = await redis.xpending_range(stream, group, min="-", max="+", count=_ALL_OF_ONE, consumername=consumer)
    return {row["message_id"] for row in rows}


def is_lost(fault: ResponseError) -> bool:
    """True when the answer says that the group, or its stream, does not exist."""
    # A pipeline puts the command in front of the server's words.
    return "NOGROUP" in str(fault) or "no such key" in str(fault)
