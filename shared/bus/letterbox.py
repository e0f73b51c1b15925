"""What an operator does with dead letters: list them, put one back into its stream, or drop one with a reason.

A letter stays in its stream (and in the archive) after it was handled; a hash beside it says what became of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.bus.client import connected
from shared.bus.dead_letters import raw_fields
from shared.bus.settings import BusSettings
from shared.bus.wire import REPLAY, decode
from shared.clock import Clock, format_instant, system_clock
from shared.errors import ContractError, NotFoundError
from shared.events import DeadLetter
from shared.streams import STREAMS

if TYPE_CHECKING:
    from redis.asyncio import Redis

_HANDLED = "asof:dead-letters:handled"
_STREAM = DeadLetter.stream


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a letter: `how` is replayed or dropped."""

    how: str
    at: str
    by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    id: str
    content: DeadLetter
    handled: Handled | None


async def letters(redis_url: str, *, count: int = 1000) -> list[Letter]:
    """The newest `count` dead letters, newest first."""
    async with connected(redis_url) as redis:
        rows: Any = await redis.xrevrange(_STREAM, count=count)
        return await _read(redis, rows)


async def replay(redis_url: str, ids: Sequence[str], *, by: str, clock: Clock = system_clock) -> list[Letter]:
    """Put the original entries back. Raises NotFoundError for an unknown id, ContractError for what cannot be put back.

    The new entry names the old one, so that groups which have applied the event drop it. A letter that was replayed
    before is replayed again: that its event was dead-lettered again is why one asks.
    """
    found = await _named(redis_url, ids)
    for letter in found:
        if letter.content.truncated:
            raise ContractError(
                f"dead letter {letter.id} holds only the beginning of an entry that was too large",
                fix=f"asof dead-letters drop {letter.id} --reason …, and send smaller events",
            )
        if letter.content.origin not in STREAMS:
            raise ContractError(f"dead letter {letter.id} comes from {letter.content.origin!r}, which is no stream")
    async with connected(redis_url) as redis, redis.pipeline(transaction=True) as pipe:
        for letter in found:
            # A letter about a replay names the first entry, not the replay.
            fields: dict[Any, Any] = {REPLAY: letter.content.entry_id.encode(), **raw_fields(letter.content)}
            pipe.xadd(letter.content.origin, fields)
        _note(pipe, found, Handled("replayed", format_instant(clock()), by))
        await pipe.execute()
    return found


async def drop(
    redis_url: str, ids: Sequence[str], *, by: str, reason: str, clock: Clock = system_clock
) -> list[Letter]:
    """Say for good that nothing will be done about these letters, and why."""
    if not reason.strip():
        raise ContractError("a dead letter is dropped only with a reason", fix="--reason 'why it does not matter'")
    found = await _named(redis_url, ids)
    async with connected(redis_url) as redis, redis.pipeline(transaction=True) as pipe:
        _note(pipe, found, Handled("dropped", format_instant(clock()), by, reason.strip()))
        await pipe.execute()
    return found


def _note(pipe: Any, found: Sequence[Letter], handled: Handled) -> None:
    text = json.dumps({"how": handled.how, "at": handled.at, "by": handled.by, "reason": handled.reason})
    for letter in found:
        pipe.hset(_HANDLED, letter.id, text)


async def _named(redis_url: str, ids: Sequence[str]) -> list[Letter]:
    async with connected(redis_url) as redis:
        found = []
        for entry_id in ids:
            rows: Any = await redis.xrange(_STREAM, min=entry_id, max=entry_id)
            if not rows:
                raise NotFoundError(f"no dead letter {entry_id}", fix="asof dead-letters")
            found += await _read(redis, rows)
        return found


async def _read(redis: Redis, rows: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Letter]:
    cap = BusSettings().event_cap
    found = []
    for entry_id, fields in rows:
        content = decode(_STREAM, entry_id, fields, cap=cap).data
        assert isinstance(content, DeadLetter)
        noted = await redis.hget(_HANDLED, entry_id.decode())
        found.append(Letter(entry_id.decode(), content, Handled(**json.loads(noted)) if noted else None))
    return found
