"""Events travel over a real server: from the first publication to an acknowledgement, another delivery or a letter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from asof.redis_health import examine_redis
from shared.bus import Subscription, client
from shared.errors import TerminalError, TransientError
from shared.events import DeadLetter, Event
from tests.integration.bus_parts import QUICK, Seen, attempted, pending, run, running, service, task, until
from tests.redis_server import RedisServer
from tests.sentinel import free_port


@pytest.fixture
def redis_url(every_server: RedisServer) -> str:
    """Delivery is what the kinds of server have to agree about."""
    with SyncRedis.from_url(every_server.url()) as redis:
        redis.flushall()
    return every_server.url()


async def test_what_was_published_before_the_first_start_is_consumed(redis_url: str, tmp_path: Path) -> None:
    await client.publish(redis_url, [run("early")])
    seen = Seen()
    async with running(service("fetcher", tmp_path, Subscription("run-candidates", seen)), url=redis_url):
        assert [event.runid for event in await seen.until(1)] == ["early"]


async def test_outputs_reach_the_next_service_and_inputs_are_acknowledged(redis_url: str, tmp_path: Path) -> None:
    async def plan(event: Event[Any]) -> Sequence[Event[Any]]:
        return [task(event.runid or "", batch) for batch in range(3)]

    async def fetch(event: Event[Any]) -> Sequence[Event[Any]]:
        return [attempted(event.data.run_id, event.data.batch)]

    audited = Seen()
    fetcher = service(
        "fetcher", tmp_path, Subscription("run-candidates", plan), Subscription("fetch-tasks", fetch, concurrency=2)
    )
    auditor = service("auditor", tmp_path, Subscription("fetch-attempted", audited))
    async with running(fetcher, auditor, url=redis_url):
        await client.publish(redis_url, [run("r1")])
        assert sorted(event.data.batch for event in await audited.until(3)) == [0, 1, 2]
        assert await client.settle(redis_url, timeout_s=60) == []
    assert await pending(redis_url, "run-candidates", "fetcher") == 0
    assert not list((tmp_path / "fetcher" / "outbox").iterdir())


async def test_a_transient_fault_brings_the_event_back(redis_url: str, tmp_path: Path) -> None:
    async def at_third(_: Event[Any], calls: int) -> Sequence[Event[Any]]:
        if calls < 3:
            raise TransientError("the lease is held elsewhere")
        return []

    seen = Seen(at_third)
    async with running(service("fetcher", tmp_path, Subscription("run-candidates", seen)), url=redis_url):
        await client.publish(redis_url, [run("r1")])
        await seen.until(1)
        assert len(seen.events) == 3
        assert await client.settle(redis_url, timeout_s=60) == []


async def test_a_terminal_fault_is_dead_lettered_at_once_with_the_raw_bytes(redis_url: str, tmp_path: Path) -> None:
    async def refuse(event: Event[Any], _: int) -> Sequence[Event[Any]]:
        if event.runid == "bad":
            raise TerminalError("the run is closed", fix="asof show bad")
        return []

    seen = Seen(refuse)
    async with running(service("fetcher", tmp_path, Subscription("run-candidates", seen)), url=redis_url):
        await client.publish(redis_url, [run("good-1"), run("bad"), run("good-2")])
        assert [event.runid for event in await seen.until(2)] == ["good-1", "good-2"]
        letter = await _letter(redis_url)
    assert (letter.origin, letter.group, letter.deliveries, letter.run_id) == ("run-candidates", "fetcher", 1, "bad")
    assert letter.error.code == "terminal"
    assert letter.error.fix == "asof show bad"
    assert await pending(redis_url, "run-candidates", "fetcher") == 0


async def test_an_unexpected_fault_is_dead_lettered_after_bounded_deliveries(redis_url: str, tmp_path: Path) -> None:
    async def stumble(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        raise KeyError("no such thing")

    seen = Seen(stumble)
    quick = QUICK.model_copy(update={"max_deliveries": 3})
    fetcher = service("fetcher", tmp_path, Subscription("run-candidates", seen))
    async with running(fetcher, url=redis_url, settings=quick):
        await client.publish(redis_url, [run("r1")])
        letter = await _letter(redis_url)
    assert len(seen.events) == 3
    assert (letter.deliveries, letter.error.code) == (3, "unexpected")
    assert "KeyError" in letter.error.message


async def test_a_repeated_event_has_one_effect(redis_url: str, tmp_path: Path) -> None:
    seen = Seen()
    async with running(service("fetcher", tmp_path, Subscription("run-candidates", seen)), url=redis_url):
        await client.publish(redis_url, [run("r1"), run("r1"), run("r2")])
        await seen.until(2)
        await client.publish(redis_url, [run("r2")])
        assert await client.settle(redis_url, timeout_s=60) == []
    assert sorted(event.runid or "" for event in seen.events) == ["r1", "r2"]


async def test_a_poison_event_does_not_block_its_neighbours_in_a_batch(redis_url: str, tmp_path: Path) -> None:
    calls: list[int] = []
    applied: list[int] = []

    async def apply(events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        calls.append(len(events))
        if any(event.data.batch == 3 for event in events):
            raise TerminalError("batch 3 is poison")
        applied.extend(event.data.batch for event in events)
        return []

    await client.publish(redis_url, [task("r1", batch) for batch in range(6)])
    fetcher = service("fetcher", tmp_path, Subscription("fetch-tasks", apply, batch=True))
    async with running(fetcher, url=redis_url):
        letter = await _letter(redis_url)
        assert await client.settle(redis_url, timeout_s=60) == []
    assert calls[0] == 6
    assert sorted(applied) == [0, 1, 2, 4, 5]
    assert letter.error.message.startswith("batch 3 is poison")


async def test_hand_typed_runs_are_understood_and_agree_on_the_run_id(redis_url: str, tmp_path: Path) -> None:
    fetched, audited = Seen(), Seen()
    fetcher = service("fetcher", tmp_path, Subscription("run-candidates", fetched))
    auditor = service("auditor", tmp_path, Subscription("run-candidates", audited))
    async with running(fetcher, auditor, url=redis_url), Redis.from_url(redis_url) as redis:
        bare = await redis.xadd("run-candidates", {"data": json.dumps({"candidates": ["PSE:JFC"]})})
        flat = await redis.xadd("run-candidates", {"candidates": '["PSE:ALI"]', "run_id": "mine", "deadline_s": "30"})
        await redis.xadd("run-candidates", {"candidates": '["PSE:ALI"'})
        await redis.xadd("run-candidates", {"data": '{"candidates":["PSE:JFC"],"nonsense":1}'})
        both = [sorted(event.runid or "" for event in await seen.until(2)) for seen in (fetched, audited)]
        assert both == [sorted([bare.decode(), "mine"])] * 2
        assert {event.source for event in fetched.events} == {"by-hand"}
        assert fetched.events[1].data.deadline_s == 30
        assert flat
        await until(lambda: _length(redis, "dead-letters", 4))


async def test_a_second_replica_takes_over_what_a_stopped_one_gave_back(redis_url: str, tmp_path: Path) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.xgroup_create("fetch-tasks", "fetcher", id="0", mkstream=True)
        await client.publish(redis_url, [task("r1", batch) for batch in range(5)])
        await redis.xreadgroup("fetcher", "somewhere-else", {"fetch-tasks": ">"})
    seen = Seen()
    async with running(service("fetcher", tmp_path, Subscription("fetch-tasks", seen)), url=redis_url):
        assert sorted(event.data.batch for event in await seen.until(5)) == [0, 1, 2, 3, 4]
        assert await client.settle(redis_url, timeout_s=60) == []


async def _letter(url: str) -> DeadLetter:
    async for followed in client.follow(url, {"dead-letters": "0-0"}, timeout_s=10):
        assert isinstance(followed.event.data, DeadLetter)
        return followed.event.data
    raise AssertionError("nothing was dead-lettered")


async def _length(redis: Redis, stream: str, wanted: int) -> bool:
    return await redis.xlen(stream) == wanted


async def test_who_reads_in_vain_is_ready_and_seen_from_outside(redis_url: str, tmp_path: Path) -> None:
    served = QUICK.model_copy(update={"port": free_port()})
    async with (
        running(service("fetcher", tmp_path, Subscription("fetch-tasks", Seen())), url=redis_url, settings=served),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", trust_env=False) as http,
    ):

        async def seen() -> bool:
            (check,) = [one for one in await examine_redis(redis_url, expect_services=True) if one.name == "fetcher"]
            return check.state == "ok"

        await until(seen)
        assert (await http.get("/ready")).json() == {"ready": True, "reasons": []}
