"""What an operator does with dead letters: list them, put one back into its stream, or drop one with a reason.

A letter stays in its stream (and in the archive) after it was handled; a hash beside it says what became of it.
"""

from __future__ import annotations

import json
import re
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
_ID = re.compile(r"^[0-9]{1,20}(-[0-9]{1,20})?$")
# More than a stream holds that is bounded by age; the transaction of a replay stays short all the same.
_ALL = 1_000_000
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a letter: `how` is replayed or dropped."""

    how: str
    at: str
    by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """One entry of `dead-letters`. `content` is None when it cannot be read; `unreadable` says why."""

    id: str
    content: DeadLetter | None
    handled: Handled | None
    unreadable: str | None = None

    @property
    def cannot_be_replayed(self) -> str | None:
        """Why the original entry cannot be put back; None when it can."""
        if self.content is None:
            return f"dead letter {self.id} cannot be read: {self.unreadable}"
        if self.content.truncated:
            return f"dead letter {self.id} holds only the beginning of an entry that was too large"
        if self.content.origin not in STREAMS:
            return f"dead letter {self.id} comes from {self.content.origin!r}, which is no stream"
        return None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What `replay_all` put back, and what it had to leave."""

    put_back: list[Letter]
    left: list[Letter]


async def letters(redis_url: str, *, count: int = 1000, unhandled: bool = False) -> list[Letter]:
    """The newest `count` dead letters, newest first; with `unhandled` only those that nobody replayed or dropped."""
    async with connected(redis_url) as redis:
        rows: Any = await redis.xrevrange(_STREAM, count=count)
        found = await _read(redis, rows)
    return [letter for letter in found if letter.handled is None] if unhandled else found


async def letter(redis_url: str, letter_id: str) -> Letter:
    """One dead letter; `raw_fields(letter.content)` are the bytes of its entry. Raises NotFoundError."""
    (found,) = await _named(redis_url, [letter_id])
    return found


async def replay(redis_url: str, ids: Sequence[str], *, by: str, clock: Clock = system_clock) -> list[Letter]:
    """Put the original entries back. Raises NotFoundError for an unknown id, ContractError for what cannot be put back.

    The new entry names the old one, so that groups which have applied the event drop it. A letter that was replayed
    before is replayed again: that its event was dead-lettered again is why one asks.
    """
    found = await _named(redis_url, ids)
    for one in found:
        if why := one.cannot_be_replayed:
            raise ContractError(why, fix=f"asof dead-letters drop {one.id} --reason …, and send it anew")
    await _put_back(redis_url, found, Handled("replayed", format_instant(clock()), by))
    return found


async def replay_all(redis_url: str, *, by: str, clock: Clock = system_clock) -> Replayed:
    """Put back every letter that nobody has handled, oldest first; what cannot be put back is left and returned."""
    found = (await letters(redis_url, count=_ALL, unhandled=True))[::-1]
    put_back = [one for one in found if one.cannot_be_replayed is None]
    await _put_back(redis_url, put_back, Handled("replayed", format_instant(clock()), by))
    return Replayed(put_back, [one for one in found if one.cannot_be_replayed is not None])


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


async def _put_back(redis_url: str, found: Sequence[Letter], handled: Handled) -> None:
    """Every entry once, however many services gave up on it: all of them read what is put back."""
    again: set[tuple[str, str]] = set()
    async with connected(redis_url) as redis:
        for start in range(0, len(found), _AT_ONCE):
            some = found[start : start + _AT_ONCE]
            async with redis.pipeline(transaction=True) as pipe:
                for one in some:
                    assert one.content is not None, "checked by the caller"
                    if (one.content.origin, one.content.entry_id) in again:
                        continue
                    again.add((one.content.origin, one.content.entry_id))
                    # A letter about a replay names the first entry, not the replay.
                    fields: dict[Any, Any] = {REPLAY: one.content.entry_id.encode(), **raw_fields(one.content)}
                    pipe.xadd(one.content.origin, fields)
                _note(pipe, some, handled)
                await pipe.execute()


def _note(pipe: Any, found: Sequence[Letter], handled: Handled) -> None:
    text = json.dumps({"how": handled.how, "at": handled.at, "by": handled.by, "reason": handled.reason})
    for one in found:
        pipe.hset(_HANDLED, one.id, text)


async def _named(redis_url: str, ids: Sequence[str]) -> list[Letter]:
    async with connected(redis_url) as redis:
        found = []
        for entry_id in ids:
            rows: Any = await redis.xrange(_STREAM, min=entry_id, max=entry_id) if _ID.match(entry_id) else []
            if not rows:
                raise NotFoundError(f"no dead letter {entry_id}", fix="asof dead-letters")
            found += await _read(redis, rows)
        return found


async def _read(redis: Redis, rows: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Letter]:
    if not rows:
        return []
    cap = BusSettings().event_cap
    noted: Any = await redis.hmget(_HANDLED, [entry_id.decode() for entry_id, _ in rows])
    found = []
    for (entry_id, fields), note in zip(rows, noted, strict=True):
        handled = Handled(**json.loads(note)) if note else None
        try:
            content = decode(_STREAM, entry_id, fields, cap=cap).data
        except ContractError as fault:
            found.append(Letter(entry_id.decode(), None, handled, str(fault)))
        else:
            assert isinstance(content, DeadLetter)
            found.append(Letter(entry_id.decode(), content, handled))
    return found
