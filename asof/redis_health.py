"""The Redis of a house, looked at for `asof doctor`: does it keep events, and does somebody carry them out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asof.checks import Check, red, warning, well
from shared.bus import client
from shared.bus.groups import group_name, is_lost
from shared.errors import TransientError
from shared.streams import SERVICES, STREAMS

if TYPE_CHECKING:
    from redis.asyncio import Redis

_OLDEST = 7
_ANSWER_S = 5.0
_SKEW_S = 1.0
_FULL = 0.9
# A service that works on an entry says so every few seconds, and one that waits for entries reads every second.
_SILENT_S = 60.0
_LETTERS = 10_000


@dataclass(frozen=True, slots=True)
class Group:
    """One service on one stream. `reader_idle_s` is None when no process ever read for it; `lag` when it is unknown."""

    stream: str
    service: str
    lag: int | None
    pending: int
    oldest_s: float
    longest_idle_s: float
    reader_idle_s: float | None

    def __str__(self) -> str:
        lag = "unknown" if self.lag is None else f"{self.lag:,}"
        return f"{self.service} on {self.stream}: {lag} unread, {self.pending:,} pending, oldest {self.oldest_s:,.0f} s"


async def examine_redis(redis_url: str, *, expect_services: bool) -> list[Check]:
    """Every check that needs the server. `expect_services`: they run elsewhere, so a silent one is a fault.

    Nothing is written. Raises TransientError when the server does not answer or does not let us in.
    """
    from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

    try:
        async with asyncio.timeout(_ANSWER_S), client.connected(redis_url) as redis:
            return await _examine(redis, expect_services=expect_services)
    except TimeoutError as fault:
        raise TransientError(
            "Redis does not answer", cause=f"nothing within {_ANSWER_S:.0f} s", fix="check ASOF_REDIS_URL"
        ) from fault
    except (AuthenticationError, NoPermissionError, ResponseError) as fault:
        raise TransientError(
            "Redis refuses us", cause=str(fault), fix="check the user and the password of ASOF_REDIS_URL"
        ) from fault


async def _examine(redis: Redis, *, expect_services: bool) -> list[Check]:
    info: dict[str, Any] = await redis.info()
    checks = [_version(info), _append_only(info), _memory(info), await _clock(redis)]
    groups = await read_groups(redis)
    if expect_services:
        checks += _services(groups)
    checks += _delivery(groups, expect_services=expect_services)
    checks.append(await _dead_letters(redis))
    return checks


def _version(info: dict[str, Any]) -> Check:
    name = "valkey" if "valkey_version" in info or info.get("server_name") == "valkey" else "redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    detail = f"{name} {version}, {int(info['connected_clients'])} clients"
    if int(str(info["redis_version"]).partition(".")[0]) < _OLDEST:
        return red("redis", detail, f"use Redis or Valkey {_OLDEST} or newer")
    return well("redis", detail)


def _append_only(info: dict[str, Any]) -> Check:
    if not int(info.get("aof_enabled", 0)):
        return red("append-only", "off: a restart of this server loses events", "redis-cli CONFIG SET appendonly yes")
    if info.get("aof_last_write_status", "ok") != "ok":
        return red("append-only", "the server cannot write its file", "free space on the disk of the server")
    return well("append-only", "on")


def _memory(info: dict[str, Any]) -> Check:
    policy, used, limit = info.get("maxmemory_policy"), int(info["used_memory"]), int(info.get("maxmemory", 0))
    detail = f"{policy}, {used / (1 << 20):,.0f} MiB of {f'{limit / (1 << 20):,.0f} MiB' if limit else 'no limit'}"
    if policy != "noeviction":
        return red(
            "memory", f"{detail}: a full server would drop streams", "redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    if limit and used > _FULL * limit:
        return red("memory", f"{detail}: writes will be refused", "redis-cli CONFIG SET maxmemory with more")
    return well("memory", detail)


async def _clock(redis: Redis) -> Check:
    before = time.time()
    seconds, microseconds = await redis.time()
    after = time.time()
    # The server read its clock somewhere between; the half of the round trip is what cannot be known.
    skew = seconds + microseconds / 1e6 - (before + after) / 2
    detail = f"{skew * 1000:+,.0f} ms against this machine, ± {(after - before) * 500:,.1f} ms"
    if abs(skew) - (after - before) / 2 > _SKEW_S:
        return red("clock", detail, "synchronise both clocks (NTP); deadlines and waivers are told by them")
    return well("clock", detail)


async def read_groups(redis: Redis) -> list[Group]:
    """Every declared group that exists, in the order of the streams."""
    from redis.exceptions import ResponseError

    found = []
    for stream in STREAMS.values():
        try:
            rows = await redis.xinfo_groups(stream.name)
        except ResponseError as fault:
            if is_lost(fault):
                continue
            raise
        now = await _now_s(redis)
        for row in rows:
            if (service := group_name(row)) in stream.groups:
                found.append(await _group(redis, stream.name, service, row, now))
    return found


async def _group(redis: Redis, stream: str, service: str, row: dict[str, Any], now: float) -> Group:
    consumers = await redis.xinfo_consumers(stream, service)
    oldest_s = longest_idle_s = 0.0
    if row["pending"]:
        summary: dict[str, Any] = await redis.xpending(stream, service)
        if summary["min"] is not None:
            oldest_s = max(0.0, now - int(summary["min"].split(b"-")[0]) / 1000)
        silent: list[dict[str, Any]] = await redis.xpending_range(
            stream, service, "-", "+", 1, idle=int(_SILENT_S * 1000)
        )
        longest_idle_s = silent[0]["time_since_delivered"] / 1000 if silent else 0.0
    idle = [consumer["idle"] / 1000 for consumer in consumers]
    return Group(stream, service, row["lag"], row["pending"], oldest_s, longest_idle_s, min(idle, default=None))


def _services(groups: list[Group]) -> Iterator[Check]:
    for service in SERVICES:
        idle = [group.reader_idle_s for group in groups if group.service == service and group.reader_idle_s is not None]
        fix = f"asof up {service}"
        if not idle:
            yield red(service, "does not run: nobody reads for it", fix)
        elif min(idle) > _SILENT_S:
            yield red(service, f"does not run: it last read {min(idle):,.0f} s ago", fix)
        else:
            yield well(service, "reads")


def _delivery(groups: list[Group], *, expect_services: bool) -> Iterator[Check]:
    busy = [group for group in groups if group.lag or group.lag is None or group.pending]
    if not busy:
        yield well("backlog", f"none: {len(groups)} groups have read and finished everything")
    for group in busy:
        if group.longest_idle_s > _SILENT_S and expect_services:
            yield red(
                "backlog",
                f"{group}; nobody has worked on the oldest for {group.longest_idle_s:,.0f} s",
                f"asof up {group.service}: another process takes it over",
            )
        elif expect_services:
            yield well("backlog", str(group))
        else:
            yield warning("backlog", str(group), "it is carried out while services run: asof up, or the next asof run")


async def _dead_letters(redis: Redis) -> Check:
    from shared.bus.settings import BusSettings
    from shared.bus.wire import decode
    from shared.errors import ContractError
    from shared.events import DeadLetter

    counts: Counter[str] = Counter()
    newest = ""
    rows: Any = await redis.xrevrange("dead-letters", count=_LETTERS)
    for entry_id, fields in rows:
        try:
            letter = decode("dead-letters", entry_id, fields, cap=BusSettings().event_cap).data
        except ContractError:
            counts["unreadable"] += 1
            continue
        assert isinstance(letter, DeadLetter)
        counts[f"{letter.group} on {letter.origin}"] += 1
        newest = newest or letter.error.message
    if not rows:
        return well("dead letters", "none")
    said = ", ".join(f"{count:,} of {group}" for group, count in counts.most_common())
    return warning("dead letters", f"{said}; newest: {newest}", "redis-cli XREVRANGE dead-letters + - COUNT 1")


async def _now_s(redis: Redis) -> float:
    seconds, microseconds = await redis.time()
    return float(seconds) + microseconds / 1e6
