"""Whatever arrives is applied or dead-lettered with the reason, and its neighbours do not notice."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.bus import Subscription, client
from shared.bus.dead_letters import raw_fields
from shared.errors import TransientError
from shared.events import DeadLetter, Event, FetchTask
from tests.faults.bus_worker import take_off
from tests.integration.bus_parts import QUICK, Seen, pending, run, running, service, task, until

HOPELESS_S = 1.5
SMALL = QUICK.model_copy(update={"event_cap": 100_000, "max_deliveries": 3})


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without groups at 0"])
async def test_events_of_before_the_first_start_are_all_consumed(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        take_off("groups at 0", monkeypatch.setattr)
    await client.publish(redis_url, [task("r1", batch) for batch in range(200)])
    seen = Seen()
    async with running(service("fetcher", tmp_path, Subscription("fetch-tasks", seen)), url=redis_url):
        if guarded:
            assert len(await seen.until(200)) == 200
        else:
            with pytest.raises(TimeoutError):
                await seen.until(200, HOPELESS_S)


def newer(event: Event[Any]) -> bytes:
    content = json.loads(event.to_json())
    content["dataschema"] = content["dataschema"].replace(":1", ":2")
    content["data"]["brand_new"] = True
    return json.dumps(content).encode()


# What each bad entry is, and words of the reason that its dead letter has to give.
BAD: list[tuple[str, dict[bytes, bytes], str]] = [
    ("no JSON", {b"data": b"{"}, "not an event of fetch-tasks"),
    ("no envelope", {b"data": b'{"run_id":"r1"}'}, "not an event of fetch-tasks"),
    ("an unknown field of the event", {b"data": task("r1", 7).to_json()[:-1] + b',"more":1}'}, "more"),
    ("a newer schema version", {b"data": newer(task("r1", 8))}, "urn:asof:event:fetch-tasks:2"),
    ("another stream's event", {b"data": run("r1").to_json()}, "not an event of fetch-tasks"),
    ("an unknown field of the entry", {b"data": task("r1", 9).to_json(), b"priority": b"1"}, "priority"),
    ("no field data", {b"event": task("r1", 9).to_json()}, "no field `data`"),
    ("not UTF-8", {b"data": b'{"\xff\xfe'}, "not an event of fetch-tasks"),
    ("a symbol that is a path", {b"data": task("r1", 6).to_json().replace(b"PSE:JFC", b"../../etc/passwd")}, "symbols"),
    ("a run id with a slash", {b"data": task("r1", 6).to_json().replace(b'"r1"', b'"r/1"')}, "run"),
    ("oversize", {b"data": b"x" * 150_000}, "150,004 bytes"),
]


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without validation one by one"])
async def test_each_kind_of_bad_entry_is_dead_lettered_with_its_reason(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        take_off("validation one by one", monkeypatch.setattr)
    seen = Seen()
    async with Redis.from_url(redis_url) as redis:
        for number, (_, fields, _) in enumerate(BAD):
            await client.publish(redis_url, [task("good", number)])
            await redis.xadd("fetch-tasks", dict(fields))
        fetcher = service("fetcher", tmp_path, Subscription("fetch-tasks", seen))
        async with running(fetcher, url=redis_url, settings=SMALL):
            if not guarded:
                with pytest.raises(TimeoutError):
                    await until(lambda: letters_are(redis, len(BAD)), HOPELESS_S)
                return
            await seen.until(len(BAD))
            await until(lambda: letters_are(redis, len(BAD)))
        assert await pending(redis_url, "fetch-tasks", "fetcher") == 0
    assert sorted(event.data.batch for event in seen.events) == list(range(len(BAD)))
    letters = [followed.event.data async for followed in client.follow(redis_url, {"dead-letters": "0"}, timeout_s=0.1)]
    for letter, (what, fields, reason) in zip(letters, BAD, strict=True):
        assert isinstance(letter, DeadLetter)
        assert reason in letter.error.message, what
        assert letter.deliveries == 1, what
        if what == "oversize":
            assert letter.truncated
            assert len(base64.b64decode(letter.fields["data"])) == 64 << 10
        else:
            assert raw_fields(letter) == fields, what


@pytest.mark.parametrize("bounded", [True, False], ids=["bounded", "without a bound"])
async def test_poison_is_dead_lettered_after_bounded_deliveries(redis_url: str, tmp_path: Path, bounded: bool) -> None:
    async def fail_at_3(event: Event[Any], _: int) -> Sequence[Event[Any]]:
        if event.data.batch == 3:
            raise TransientError("the upstream is down")
        return []

    seen = Seen(fail_at_3)
    settings = SMALL if bounded else SMALL.model_copy(update={"max_deliveries": 1_000_000})
    async with Redis.from_url(redis_url) as redis:
        fetcher = service("fetcher", tmp_path, Subscription("fetch-tasks", seen))
        async with running(fetcher, url=redis_url, settings=settings):
            await client.publish(redis_url, [task("r1", batch) for batch in range(10)])
            assert {event.data.batch for event in await seen.until(9)} == set(range(10)) - {3}
            if bounded:
                await until(lambda: letters_are(redis, 1))
                assert await client.settle(redis_url, timeout_s=60) == []
                assert sum(event.data.batch == 3 for event in seen.events) == 3
            else:
                with pytest.raises(TimeoutError):
                    await until(lambda: letters_are(redis, 1), HOPELESS_S)


async def test_a_megabyte_and_a_hundred_thousand_events_at_once(redis_url: str, tmp_path: Path) -> None:
    count = 100_000
    applied = 0

    async def take(events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        nonlocal applied
        assert len(events) <= 256
        applied += len(events)
        return []

    symbols = tuple(f"PSE:S{number}" for number in range(90_000))
    large = task("large").data.model_copy(update={"symbols": symbols})
    await client.publish(
        redis_url, [Event.of(FetchTask.model_validate(large.model_dump()), source="t", time=large.as_of)]
    )
    template = task("r1", 123_456)
    raw = template.to_json()
    async with Redis.from_url(redis_url) as redis:
        for start in range(0, count, 5000):
            async with redis.pipeline(transaction=False) as pipe:
                for number in range(start, start + 5000):
                    pipe.xadd("fetch-tasks", {"data": raw.replace(template.id.encode(), b"%032x" % number)})
                await pipe.execute()
    subscription = Subscription("fetch-tasks", take, batch=True, max_records=256)
    async with running(service("fetcher", tmp_path, subscription), url=redis_url):
        assert await client.settle(redis_url, timeout_s=60) == []
    assert applied == count + 1


async def letters_are(redis: Redis, count: int) -> bool:
    return await redis.xlen("dead-letters") == count
