"""Slow handlers, stopped workers and slow groups: what is alive keeps its work, what is unread stays in the stream."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.bus import Subscription, client
from shared.bus.upkeep import reap, trim
from shared.errors import StaleEpochError, TransientError
from shared.events import Event
from shared.streams import STREAMS
from tests.faults.bus_crew import Crew
from tests.faults.bus_worker import take_off
from tests.faults.test_bus_crashes import HOPELESS_S, settled
from tests.integration.bus_parts import QUICK, Seen, attempted, running, service, task, until


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without heartbeats"])
async def test_a_handler_slower_than_the_takeover_time_keeps_its_event(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        take_off("heartbeat", monkeypatch.setattr)

    async def dawdle(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        await asyncio.sleep(QUICK.min_idle_s * 3)
        return []

    seen = [Seen(dawdle), Seen(dawdle)]
    first, second = (service("fetcher", tmp_path, Subscription("fetch-tasks", one)) for one in seen)
    async with running(first, url=redis_url), running(second, url=redis_url):
        await client.publish(redis_url, [task("r1", 1)])
        await until(lambda: _any(seen))
        assert await client.settle(redis_url, timeout_s=60) == []
    calls = sum(len(one.events) for one in seen)
    assert calls == 1 if guarded else calls > 1


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without a look at the owner"])
async def test_a_worker_that_lost_its_event_does_not_dead_letter_it(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """A worker was stopped, another one took over; the first wakes up, is fenced by the store, and has no say."""
    take_off("heartbeat", monkeypatch.setattr)
    if not guarded:
        take_off("ownership", monkeypatch.setattr)
    taken_over = asyncio.Event()

    async def wake_up_fenced(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        await taken_over.wait()
        raise StaleEpochError("the lease was taken over")

    async def take_over(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        taken_over.set()
        await asyncio.sleep(0.2)
        return []

    stale, fresh = Seen(wake_up_fenced), Seen(take_over)
    async with running(service("fetcher", tmp_path, Subscription("fetch-tasks", stale)), url=redis_url):
        await client.publish(redis_url, [task("r1", 1)])
        await until(lambda: _any([stale]))
        async with running(service("fetcher", tmp_path, Subscription("fetch-tasks", fresh)), url=redis_url):
            await fresh.until(1)
            assert await client.settle(redis_url, timeout_s=60) == []
    async with Redis.from_url(redis_url) as redis:
        assert await redis.xlen("dead-letters") == (0 if guarded else 1)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without the reclaimer"])
async def test_a_worker_stopped_in_its_handler_is_replaced_and_its_effect_is_one(
    redis_url: str, tmp_path: Path, guarded: bool
) -> None:
    with Crew(redis_url, tmp_path) as crew:
        frozen = crew.start("--slow", "0.1")
        await client.publish(redis_url, [task("r1", batch) for batch in range(10)])
        await until(lambda: _attempted(crew))
        os.kill(frozen.pid, signal.SIGSTOP)
        if not guarded:
            crew.start("--slow", "0", "--without", "reclaimer")
            with pytest.raises(TimeoutError):
                await settled(redis_url, HOPELESS_S)
            return
        crew.start("--slow", "0")
        await settled(redis_url)
        os.kill(frozen.pid, signal.SIGCONT)
        await asyncio.sleep(0.5)
        frozen.terminate()
        assert frozen.wait(20) == 0
    assert crew.effects() == set(range(10))
    async with Redis.from_url(redis_url) as redis:
        assert await redis.xlen("dead-letters") == 0


async def test_a_worker_that_lost_a_failed_event_does_not_deliver_it_again(redis_url: str, tmp_path: Path) -> None:
    """It failed, was to be tried again, its process was stopped, and another one took it over meanwhile."""

    async def fail(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        raise TransientError("not yet")

    seen = Seen(fail)
    patient = QUICK.model_copy(update={"retry_first_s": 0.3, "retry_most_s": 0.3, "min_idle_s": 60})
    async with (
        running(service("fetcher", tmp_path, Subscription("fetch-tasks", seen)), url=redis_url, settings=patient),
        Redis.from_url(redis_url) as redis,
    ):
        await client.publish(redis_url, [task("r1", 1)])
        await until(lambda: _any([seen]))
        (row,) = await redis.xpending_range("fetch-tasks", "fetcher", "-", "+", 1)
        await redis.xclaim("fetch-tasks", "fetcher", "another", 0, [row["message_id"]])
        await asyncio.sleep(0.8)
        (row,) = await redis.xpending_range("fetch-tasks", "fetcher", "-", "+", 1)
    assert row["consumer"] == b"another"
    assert len(seen.events) == 1


@pytest.mark.parametrize("bounded", [True, False], ids=["bounded", "without a bound to reading ahead"])
async def test_a_slow_replica_leaves_the_others_their_share(redis_url: str, tmp_path: Path, bounded: bool) -> None:
    async def work(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        await asyncio.sleep(0.01)
        return []

    seen = [Seen(work), Seen(work)]
    settings = QUICK if bounded else QUICK.model_copy(update={"read_ahead_s": 1e6})
    first, second = (service("fetcher", tmp_path, Subscription("fetch-tasks", one, max_records=500)) for one in seen)
    async with (
        running(first, url=redis_url, settings=settings),
        running(second, url=redis_url, settings=settings),
    ):
        await client.publish(redis_url, [task("r1", batch) for batch in range(100)])
        assert await client.settle(redis_url, timeout_s=60) == []
    shares = sorted(len(one.events) for one in seen)
    assert sum(shares) == 100
    assert shares[0] >= 25 if bounded else shares[0] < 10


@pytest.mark.parametrize("by_bus", [True, False], ids=["by the bus", "by DELCONSUMER alone"])
async def test_reaping_a_dead_consumer_keeps_what_it_held(redis_url: str, tmp_path: Path, by_bus: bool) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.xgroup_create("fetch-tasks", "fetcher", id="0", mkstream=True)
        await client.publish(redis_url, [task("r1", 1)])
        await redis.xreadgroup("fetcher", "dead", {"fetch-tasks": ">"})
        if by_bus:
            await reap(redis, "fetcher", "fetch-tasks", QUICK.model_copy(update={"reap_after_s": 1e-9}))
        else:
            await redis.xgroup_delconsumer("fetch-tasks", "fetcher", "dead")
    seen = Seen()
    async with running(service("fetcher", tmp_path, Subscription("fetch-tasks", seen)), url=redis_url):
        assert await client.settle(redis_url, timeout_s=60) == []
    assert len(seen.events) == (1 if by_bus else 0)


@pytest.mark.parametrize("by_bus", [True, False], ids=["by the slowest group", "by MAXLEN"])
async def test_trimming_never_takes_what_a_declared_group_still_needs(
    redis_url: str, tmp_path: Path, by_bus: bool
) -> None:
    eager = QUICK.model_copy(update={"keep_s": 1e-3, "trim_roughly": False})
    stream = STREAMS["bars-hydrated"]
    assert set(stream.groups) == {"features", "auditor"}
    async with Redis.from_url(redis_url) as redis:
        ids = [await redis.xadd(stream.name, {"data": str(number)}) for number in range(100)]
        await asyncio.sleep(0.01)

        async def squeeze() -> None:
            if by_bus:
                await trim(redis, stream, None, eager, set())
            else:
                await redis.xtrim(stream.name, maxlen=10, approximate=False)

        await redis.xgroup_create(stream.name, "auditor", id="0")
        await squeeze()
        if not by_bus:
            assert await redis.xlen(stream.name) == 10, "90 entries that nobody ever read are gone"
            return
        assert await redis.xlen(stream.name) == 100, "a declared group that does not exist yet holds everything"
        await redis.xgroup_create(stream.name, "features", id="0")
        await redis.xreadgroup("auditor", "a", {stream.name: ">"}, count=100)
        await redis.xack(stream.name, "auditor", *ids)
        await redis.xreadgroup("features", "f", {stream.name: ">"}, count=40)
        await redis.xack(stream.name, "features", *ids[:20])
        await squeeze()
        left = [entry_id for entry_id, _ in await redis.xrange(stream.name)]
        assert left == ids[20:], "what is pending or unread stays, what all are done with goes"


async def test_a_group_that_nobody_declared_holds_nothing_back_and_is_reported(redis_url: str) -> None:
    stream = STREAMS["fetch-attempted"]
    eager = QUICK.model_copy(update={"keep_s": 1e-3, "trim_roughly": False})
    async with Redis.from_url(redis_url) as redis:
        ids = [await redis.xadd(stream.name, {"data": str(number)}) for number in range(10)]
        await asyncio.sleep(0.01)
        await redis.xgroup_create(stream.name, b"a-visitor\xff", id="0")
        await redis.xgroup_create(stream.name, "auditor", id=ids[-1])
        assert await trim(redis, stream, None, eager, set()) == {(stream.name, "a-visitor\\xff")}
        assert await redis.xlen(stream.name) == 1


async def test_a_long_stream_is_given_back_while_it_is_worked_on(redis_url: str, tmp_path: Path) -> None:
    async def answer(event: Event[Any], _: int) -> Sequence[Event[Any]]:
        return [attempted(event.data.run_id, event.data.batch)]

    eager = QUICK.model_copy(update={"keep_s": 0.05, "upkeep_s": 0.05, "trim_roughly": False})
    fetched, audited = Seen(answer), Seen()
    services = (
        service("fetcher", tmp_path, Subscription("fetch-tasks", fetched)),
        service("auditor", tmp_path, Subscription("fetch-attempted", audited)),
    )
    async with running(*services, url=redis_url, settings=eager), Redis.from_url(redis_url) as redis:
        await client.publish(redis_url, [task("r1", batch) for batch in range(2000)])
        assert len(await audited.until(2000, 60)) == 2000
        await until(lambda: _short(redis, "fetch-tasks", "fetch-attempted"))


async def _any(seen: Sequence[Seen]) -> bool:
    return any(one.events for one in seen)


async def _attempted(crew: Crew) -> bool:
    return bool(crew.attempts())


async def _short(redis: Redis, *streams: str) -> bool:
    return all([await redis.xlen(stream) <= 1 for stream in streams])
