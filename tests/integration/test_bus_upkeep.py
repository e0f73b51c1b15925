"""What the bus does now and then, and what operators see of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog
from redis.asyncio import Redis
from structlog.testing import capture_logs

from shared.bus import Job, Service, Subscription, client
from shared.bus.archive import Archive
from shared.bus.dead_letters import raw_fields
from shared.bus.letterbox import drop, letter, letters, replay, replay_all
from shared.bus.names import consumer_name
from shared.bus.outbox import Outbox, Outgoing, orphaned
from shared.bus.settings import BusSettings
from shared.bus.upkeep import archive_of, reap, trim
from shared.errors import ContractError, IntegrityError, NotFoundError, TerminalError, TransientError
from shared.events import Event
from shared.streams import STREAMS
from tests.faults.test_bus_server import free_port
from tests.integration.bus_parts import QUICK, Seen, attempted, run, running, service, task, until


async def test_a_stream_for_people_is_archived_before_it_is_trimmed(redis_url: str, tmp_path: Path) -> None:
    archive = tmp_path / "alerts.jsonl"
    short = QUICK.model_copy(update={"archive_keep_s": 1e-3, "trim_roughly": False})
    async with Redis.from_url(redis_url) as redis:
        ids = [(await redis.xadd("alerts", {"data": f'{{"n":{number}}}'})).decode() for number in range(1200)]
        await trim(redis, STREAMS["alerts"], archive, short, set())
        last = await redis.xadd("alerts", {"data": "late"})
        with archive.open("ab") as file:
            file.write(b'{"id":"17')  # a crash in the middle of a line
        await trim(redis, STREAMS["alerts"], archive, short, set())
        assert await redis.xlen("alerts") <= 2
    kept = [json.loads(line) for line in archive.read_text().splitlines()]
    assert [line["id"] for line in kept] == [*ids, last.decode()]
    assert kept[7]["fields"]["data"] == '{"n":7}'


async def test_what_another_service_archives_is_left_alone(redis_url: str, tmp_path: Path) -> None:
    eager = QUICK.model_copy(update={"keep_s": 1e-3, "archive_keep_s": 1e-3, "trim_roughly": False})
    catalog, fetcher = Service("catalog", (), tmp_path / "c"), Service("fetcher", (), tmp_path / "f")
    results = STREAMS["command-results"]
    assert archive_of(catalog, results) is None
    assert archive_of(fetcher, results) == tmp_path / "f" / "archive" / "command-results.jsonl"
    assert archive_of(fetcher, STREAMS["fetch-tasks"]) is None
    async with Redis.from_url(redis_url) as redis:
        await redis.xadd(results.name, {"data": "1"})
        await trim(redis, results, None, eager, set())
        assert await redis.xlen(results.name) == 1


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alerts.jsonl").write_text("something else\n")
    with Archive(tmp_path / "alerts.jsonl") as archive, pytest.raises(IntegrityError, match="no archive"):
        archive._last()


async def test_dead_consumers_are_removed_only_when_they_hold_nothing(redis_url: str) -> None:
    ours = consumer_name(uuid4()) + ".0"
    gone = ours.replace(ours.split("-")[-2], "4194304")
    patient = QUICK.model_copy(update={"reap_after_s": 0.2})
    async with Redis.from_url(redis_url) as redis:
        await redis.xgroup_create("fetch-tasks", "fetcher", id="0", mkstream=True)
        await redis.xadd("fetch-tasks", {"data": "1"})
        for name in (ours, gone, "silent"):
            await redis.xgroup_createconsumer("fetch-tasks", "fetcher", name)
        await redis.xreadgroup("fetcher", "busy", {"fetch-tasks": ">"})

        async def names() -> set[str]:
            return {row["name"].decode() for row in await redis.xinfo_consumers("fetch-tasks", "fetcher")}

        await reap(redis, "fetcher", "fetch-tasks", patient)
        assert await names() == {ours, "silent", "busy"}, "dead on this machine goes at once, silence takes a while"

        async def only_busy() -> bool:
            await reap(redis, "fetcher", "fetch-tasks", patient)
            return await names() == {"busy"}

        await until(only_busy)


async def test_readiness_liveness_and_metrics_are_served_when_a_port_is_set(redis_url: str, tmp_path: Path) -> None:
    seen = Seen()
    served = QUICK.model_copy(update={"port": free_port(), "upkeep_s": 0.05})
    async with (
        running(service("fetcher", tmp_path, Subscription("fetch-tasks", seen)), url=redis_url, settings=served),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", trust_env=False) as http,
    ):
        await client.publish(redis_url, [task("r1", batch) for batch in range(3)])
        await seen.until(3)
        assert (await http.get("/live")).status_code == 200
        assert (await http.get("/ready")).json() == {"ready": True, "reasons": []}

        async def counted() -> bool:
            text = (await http.get("/metrics")).text
            wanted = (
                'asof_bus_entries_total{outcome="applied",service="fetcher",stream="fetch-tasks"} 3.0',
                'asof_bus_lag{service="fetcher",stream="fetch-tasks"} 0.0',
                'asof_bus_handler_seconds_count{service="fetcher",stream="fetch-tasks"} 3.0',
            )
            return all(line in text for line in wanted)

        await until(counted)
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.get(f"http://127.0.0.1:{served.port}/live")


async def test_log_lines_of_a_batch_name_its_runs_and_its_first_events(redis_url: str, tmp_path: Path) -> None:
    log = structlog.get_logger("test")
    done = Seen()

    async def stumble(events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        log.info("at work")
        if len(events) > 1:
            raise TransientError("one of them is to blame")
        for event in events:
            await done(event)
        return []

    def line(lines: Sequence[Any], said: str) -> dict[str, Any]:
        return next(one for one in lines if one["event"].startswith(said))

    both = [task(f"r{number % 2}", number) for number in range(20)]
    alone = [task("r2", number) for number in range(20)]
    fetcher = service("fetcher", tmp_path, Subscription("fetch-tasks", stumble, batch=True))
    for events, names in ((both, {"run_ids": ["r0", "r1"]}), (alone, {"run_id": "r2"})):
        await client.publish(redis_url, events)  # before anybody reads, so that it is one batch
        with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            async with running(fetcher, url=redis_url):
                await done.until(len(done.applied) + len(events))
        ids = [event.id for event in events]
        for said in ("at work", "a batch failed"):
            found = line(lines, said)
            assert {name: found.get(name) for name in ("run_id", "run_ids")} == {
                "run_id": None,
                "run_ids": None,
            } | names
            assert (found["stream"], found["events"], found["event_ids"]) == ("fetch-tasks", 20, ids[:8])
        again = [one for one in lines if one["event"] == "at work"][1:]
        assert [(one["event_id"], one["run_id"]) for one in again] == [(event.id, event.runid) for event in events]
        assert not any("event_ids" in one for one in again), "one by one, each line is of one event"


async def test_a_dead_letter_is_replayed_to_those_who_have_not_applied_it(redis_url: str, tmp_path: Path) -> None:
    mended = False

    async def refuse(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        if not mended:
            raise TerminalError("a bug that is fixed later")
        return []

    fetched, audited = Seen(refuse), Seen()
    services = (
        service("fetcher", tmp_path, Subscription("run-candidates", fetched)),
        service("auditor", tmp_path, Subscription("run-candidates", audited)),
    )
    async with running(*services, url=redis_url), Redis.from_url(redis_url) as redis:
        await redis.xadd("run-candidates", {"candidates": '["PSE:JFC"]'})
        await until(lambda: _has_letters(redis_url, 1))
        mended = True
        (one,) = await letters(redis_url)
        await replay(redis_url, [one.id], by="ana")
        (first,) = await fetched.until(1)
        assert await client.settle(redis_url, timeout_s=60) == []
    assert first == fetched.events[0], "the replay is the same event, with the run id of its first entry"
    assert len(audited.events) == 1, "who has applied it drops the replay"
    (one,) = await letters(redis_url)
    assert one.handled is not None
    assert (one.handled.how, one.handled.by) == ("replayed", "ana")


async def test_a_dead_letter_is_dropped_only_with_a_reason(redis_url: str, tmp_path: Path) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.xadd("fetch-tasks", {"data": "x" * 3_000_000})
    async with running(service("fetcher", tmp_path, Subscription("fetch-tasks", Seen())), url=redis_url):
        await until(lambda: _has_letters(redis_url, 1))
    (one,) = await letters(redis_url)
    with pytest.raises(ContractError, match="only the beginning"):
        await replay(redis_url, [one.id], by="ana")
    with pytest.raises(ContractError, match="reason"):
        await drop(redis_url, [one.id], by="ana", reason=" ")
    with pytest.raises(NotFoundError):
        await drop(redis_url, ["1-1"], by="ana", reason="test")
    await drop(redis_url, [one.id], by="ana", reason="a client gone wild")
    (one,) = await letters(redis_url)
    assert one.handled is not None
    assert one.handled.reason == "a client gone wild"


async def test_all_letters_are_put_back_at_once_and_what_cannot_be_is_named(redis_url: str, tmp_path: Path) -> None:
    mended = False

    async def refuse(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        if not mended:
            raise TerminalError("the disk is full")
        return []

    seen = Seen(refuse)
    async with (
        running(service("fetcher", tmp_path, Subscription("fetch-tasks", seen)), url=redis_url),
        Redis.from_url(redis_url) as redis,
    ):
        await client.publish(redis_url, [task("r1", batch) for batch in range(3)])
        await redis.xadd("fetch-tasks", {"data": "x" * 3_000_000})
        await until(lambda: _has_letters(redis_url, 4))
        garbage = (await redis.xadd("dead-letters", {"data": "{"})).decode()
        first = (await letters(redis_url))[-1]
        await drop(redis_url, [first.id], by="ana", reason="known")
        mended = True
        replayed = await replay_all(redis_url, by="ana")
        assert {event.data.batch for event in await seen.until(2)} == {1, 2}, "oldest first, without the dropped one"
        assert await client.settle(redis_url, timeout_s=60) == []
    assert len(replayed.put_back) == 2
    oversize, unreadable = replayed.left
    assert "too large" in (oversize.cannot_be_replayed or "")
    assert unreadable.id == garbage
    assert "cannot be read" in (unreadable.cannot_be_replayed or "")
    assert [one.id for one in await letters(redis_url, unhandled=True)] == [garbage, oversize.id]
    shown = await letter(redis_url, replayed.put_back[0].id)
    assert shown.handled is not None
    assert shown.content is not None
    assert raw_fields(shown.content) == {b"data": task("r1", 1).to_json()}
    for nobody in ("1-1", "-", "nonsense"):
        with pytest.raises(NotFoundError):
            await letter(redis_url, nobody)


async def test_jobs_publish_and_a_transient_fault_waits_for_the_next_time(redis_url: str, tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> Sequence[Event[Any]]:
        nonlocal ticks
        ticks += 1
        if ticks == 2:
            raise TransientError("the disk is full")
        return [attempted("r1", ticks)]

    seen = Seen()
    auditor = service("auditor", tmp_path, Subscription("fetch-attempted", seen), jobs=(Job("tick", 0.02, tick),))
    async with running(auditor, url=redis_url):
        assert [event.data.batch for event in (await seen.until(3))[:3]] == [1, 3, 4]


async def test_a_job_that_fails_otherwise_ends_the_process_with_its_own_error(redis_url: str, tmp_path: Path) -> None:
    async def tick() -> Sequence[Event[Any]]:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        async with running(service("auditor", tmp_path, jobs=(Job("tick", 1, tick),)), url=redis_url):
            await asyncio.sleep(0.3)


async def test_hooks_run_before_the_first_event_and_after_the_last(redis_url: str, tmp_path: Path) -> None:
    order: list[str] = []

    async def opened(bus: Any) -> None:
        order.append(f"open {await bus.redis.ping()}")
        await bus.publish([run("r1")])

    async def closed() -> None:
        order.append("close")

    async def note(_: Event[Any], __: int) -> Sequence[Event[Any]]:
        order.append("event")
        return []

    seen = Seen(note)
    fetcher = service("fetcher", tmp_path, Subscription("run-candidates", seen), on_start=opened, on_stop=closed)
    async with running(fetcher, url=redis_url):
        await seen.until(1)
    assert order == ["open True", "event", "close"]


def test_the_outbox_of_a_dead_process_is_read_back_and_a_living_ones_is_not(tmp_path: Path) -> None:
    item = Outgoing("fetch-tasks", {b"data": b'{"a":1}', b"traceparent": b"00-ab"})
    with Outbox(tmp_path, "alive") as outbox:
        outbox.write([item, item])
        with orphaned(tmp_path) as left:
            assert left == [], "its process holds the lock"
    (tmp_path / "alive" / "2").write_bytes(b"fetch-tasks\t\t{")  # cut off by the crash: its input is not acknowledged
    with orphaned(tmp_path) as left:
        ((path, outgoing),) = left
        assert outgoing == [item, item]
        Outbox.sent(path)
    assert list(tmp_path.iterdir()) == []


async def _has_letters(url: str, count: int) -> bool:
    return len(await letters(url)) == count


def test_the_default_settings_are_those_of_the_documents() -> None:
    settings = BusSettings()
    assert (settings.event_cap, settings.min_idle_s, settings.max_deliveries) == (2 << 20, 5.0, 6)
