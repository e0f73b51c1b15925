"""The pace of the fleet, kept in Redis and counted by Redis' own clock, so that no host's clock matters.

Per venue one hash and one sorted set:
  tokens, at      a bucket of weight, refilled at rate · level
  level           1/8 <= level <= 1: halved on push-back, raised by one request in flight after every few good answers
  closed          until when (ms) nobody asks: the time the venue named, or a pause that doubles
  tripped         after `closed`, one probe alone until it comes back well
  down            since when nothing but trouble has come; a venue that pushes back is not down
  the set         tickets in flight with the time they lapse, renewed while held: a killed replica's come back
State that is lost starts at the slow end: one request's worth of tokens, the lowest level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from services.fetcher.domain.faults import Paused, UpstreamError
from services.fetcher.domain.pace import VenuePace, unnamed_wait_s, verdict_of
from services.fetcher.ports import Turn

_PREFIX = "asof:pace:"
_KEPT_MS = 86_400_000
_POLL_S = 0.02
_ASKING = 24  # connections that those who wait for a turn use at once, of the hundred that the client allows
_GRANTED, _CLOSED, _FULL, _EMPTY = range(4)

_ACQUIRE = """
local ticket, weight, rate = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local burst, most, lease, kept = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'level', 'closed', 'tripped', 'down')
local need = math.min(weight, burst)
local tokens = tonumber(state[1]) or need
local level = tonumber(state[3]) or math.max(1 / most, 0.25)
local closed = tonumber(state[4]) or 0
local down = tonumber(state[6]) or 0
if closed > now then return {1, closed - now, down > 0 and now - down or 0} end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local allowed = math.max(1, math.floor(most * level + 0.5))
if state[5] == '1' then allowed = 1 end
if redis.call('ZCARD', KEYS[2]) >= allowed then return {2, 0, 0} end
tokens = math.min(burst, tokens + math.max(0, now - (tonumber(state[2]) or now)) / 1000 * rate * level)
local granted = tokens >= need
if granted then tokens = tokens - weight end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now, 'level', tostring(level))
redis.call('PEXPIRE', KEYS[1], kept)
if not granted then return {3, math.ceil((need - tokens) / (rate * level) * 1000), 0} end
redis.call('ZADD', KEYS[2], now + lease, ticket)
redis.call('PEXPIRE', KEYS[2], kept)
return {0, 0, 0}
"""

_RELEASE = """
local ticket, verdict, named, base = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local most, left, kept = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREM', KEYS[2], ticket)
local state = redis.call('HMGET', KEYS[1], 'level', 'good', 'bad', 'closed', 'tripped', 'halved', 'tokens', 'down')
local level = tonumber(state[1]) or math.max(1 / most, 0.25)
local good, bad = tonumber(state[2]) or 0, tonumber(state[3]) or 0
local closed, tripped = tonumber(state[4]) or 0, state[5] == '1'
local halved, tokens, down = tonumber(state[6]) or 0, tonumber(state[7]), tonumber(state[8]) or 0
if verdict == 'fine' then
  -- An answer to what was asked before the venue closed says nothing about how it is now.
  if closed <= now then
    bad, tripped, good, down = 0, false, good + 1, 0
    if good >= 4 then good, level = 0, math.min(1, level + 1 / most) end
  end
else
  good, bad = 0, bad + 1
  if verdict == 'push-back' then down = 0 elseif down == 0 then down = now end
  if verdict == 'push-back' and now - halved >= 1000 then
    level, halved = math.max(level / 2, 0.125), now
  end
  local wait = named
  if wait == 0 and verdict == 'push-back' then wait = math.min(60000, base * 2 ^ math.min(bad - 1, 10)) end
  if wait == 0 and (bad >= 5 or tripped) then wait = math.min(60000, 1000 * 2 ^ math.min(math.max(bad - 5, 0), 6)) end
  if wait > 0 then closed, tripped = math.max(closed, now + wait), true end
end
if tokens and left >= 0 then tokens = math.min(tokens, left) end
redis.call('HSET', KEYS[1], 'level', tostring(level), 'good', good, 'bad', bad, 'closed', closed,
  'tripped', tripped and '1' or '0', 'halved', halved, 'down', down)
if tokens then redis.call('HSET', KEYS[1], 'tokens', tostring(tokens)) end
redis.call('PEXPIRE', KEYS[1], kept)
return closed - now
"""

_RENEW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for place = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[place]) end
return #ARGV - 1
"""


class RedisPace:
    """`patience_s`: the longest pause that is waited for; a longer one is Paused at once, and so is a venue that has
    been down for `outage_s`, until a probe finds it well. `connect` comes first.
    """

    def __init__(
        self,
        paces: Mapping[str, VenuePace],
        *,
        patience_s: float,
        random: Random,
        outage_s: float = 30.0,
        lease_s: float = 4.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._paces = paces
        self._patience_s = patience_s
        self._random = random
        self._outage_s = outage_s
        self._lease_ms = round(lease_s * 1000)
        self._sleep = sleep
        self._held: dict[str, set[str]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._asking = asyncio.Semaphore(_ASKING)
        self._redis: Redis
        self._acquire: Any
        self._release: Any
        self._renew: Any

    def connect(self, redis: Redis) -> None:
        self._redis = redis
        self._acquire = redis.register_script(_ACQUIRE)
        self._release = redis.register_script(_RELEASE)
        self._renew = redis.register_script(_RENEW)

    async def acquire(self, venue: str, weight: int = 1) -> Turn:
        pace = self._paces[venue]
        ticket = uuid4().hex
        waited = 0.0
        while True:
            async with self._asking:
                outcome, wait_ms, down_ms = await self._acquire(
                    keys=_keys(venue),
                    args=[ticket, weight, pace.rate, pace.burst, pace.at_once, self._lease_ms, _KEPT_MS],
                )
            if _cancelled():
                if outcome == _GRANTED:
                    await self._redis.zrem(_keys(venue)[1], ticket)
                raise asyncio.CancelledError
            if outcome == _GRANTED:
                self._hold(venue, ticket)
                return Turn(venue, ticket)
            wait = wait_ms / 1000
            if outcome == _CLOSED and down_ms / 1000 > self._outage_s:
                raise Paused(
                    f"{venue} has not answered for {down_ms / 1000:.0f} s and is asked again in {wait:.0f} s",
                    host=venue,
                    retry_after=wait,
                    fix="asof doctor",
                )
            if outcome == _CLOSED and waited + wait > self._patience_s:
                raise Paused(
                    f"{venue} asked for a pause of another {wait:.0f} s",
                    host=venue,
                    retry_after=wait,
                    fix=f"wait {wait:.0f} s",
                )
            # A little more than asked, by chance, so that those who wait do not all come at once.
            wait = _POLL_S * (1 + self._random.random()) if outcome == _FULL else wait + self._random.random() * 0.005
            if outcome == _CLOSED:
                waited += wait
            await self._sleep(wait)

    async def served(self, turn: Turn) -> None:
        await self._report(turn.venue, "", None, None)

    async def release(self, turn: Turn, fault: UpstreamError | None, *, used: int | None = None) -> None:
        self._held[turn.venue].discard(turn.ticket)
        await self._report(turn.venue, turn.ticket, fault, used)

    async def _report(self, venue: str, ticket: str, fault: UpstreamError | None, used: int | None) -> None:
        """Say how an answer was; `ticket` is handed back, and an empty one is nobody's."""
        pace = self._paces[venue]
        named = 0.0 if fault is None or fault.retry_after is None else max(fault.retry_after, 0.001)
        left = -1.0 if used is None or pace.window is None else max(0.0, pace.window * 0.97 - used)
        await self._release(
            keys=_keys(venue),
            args=[
                ticket,
                verdict_of(fault),
                round(named * 1000),
                round(unnamed_wait_s(fault) * 1000),
                pace.at_once,
                left,
                _KEPT_MS,
            ],
        )

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    def _hold(self, venue: str, ticket: str) -> None:
        self._held.setdefault(venue, set()).add(ticket)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Renew what is held; a ticket whose holder was killed lapses on its own."""
        while any(self._held.values()):
            await asyncio.sleep(self._lease_ms / 4000)
            for venue, tickets in self._held.items():
                if tickets:
                    await self._renew(keys=[_keys(venue)[1]], args=[self._lease_ms, *tickets])


class RedisBudget:
    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._redis: Redis

    def connect(self, redis: Redis) -> None:
        self._redis = redis

    async def take(self, run_id: str, retries: int) -> bool:
        key = f"{_PREFIX}budget:{run_id}"
        taken = int(await self._redis.incrby(key, retries))
        await self._redis.pexpire(key, _KEPT_MS)
        return taken <= self._retries


def _cancelled() -> bool:
    """Whether this task was told to stop: before Python 3.12 the client's own wait_for may lose the word."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _keys(venue: str) -> list[str]:
    # The braces keep both keys on one shard of a cluster.
    return [f"{_PREFIX}{{{venue}}}", f"{_PREFIX}{{{venue}}}:in-flight"]
