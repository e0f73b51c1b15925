"""The bus beside raw redis-py and plain FastStream, on one embedded server: `python benchmarks/bus.py [--events N]`.

Every consumer gets the same ~1 KB `symbol-metadata` events. Raw redis-py reads and acknowledges in batches and parses
JSON; FastStream does what its docs show; the bus validates each event, drops repeated ones, and acknowledges, remembers
and publishes in one transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

from asof.embedded import embedded_redis, find_server
from shared.bus import BusSettings, Service, Subscription, run_services
from shared.bus.wire import encode
from shared.events import BarsHydrated, Event, FetchTask, RatingsComputed, Rules, RunCandidates, SymbolMetadata
from shared.paths import Home

_T0 = datetime(2024, 5, 1, tzinfo=UTC)
_BATCH = 256
_Done = Callable[[int], None]


def events_of_a_kilobyte(count: int) -> list[Event[Any]]:
    record = {f"field_{number}": f"value {number} of a symbol" for number in range(12)}
    return [
        Event.of(
            SymbolMetadata(run_id="bench", symbol=f"PSE:S{number}", observed_at=_T0, record={**record, "n": number}),
            source="bench",
            time=_T0,
        )
        for number in range(count)
    ]


async def fill(redis: Redis, stream: str, events: Sequence[Event[Any]], *, field: str = "data") -> None:
    for start in range(0, len(events), 1000):
        async with redis.pipeline(transaction=False) as pipe:
            for event in events[start : start + 1000]:
                pipe.xadd(stream, {field: encode(event)[b"data"]})
            await pipe.execute()


async def timed(count: int, work: Callable[[_Done, asyncio.Event], Awaitable[Any]]) -> float:
    """Events a second: `work` reports what it handled and ends when the event is set; the clock starts with it."""
    left, over = count, asyncio.Event()
    started = time.perf_counter()
    took = 0.0

    def done(handled: int) -> None:
        nonlocal left, took
        left -= handled
        if left <= 0 and not over.is_set():
            took = time.perf_counter() - started
            over.set()

    await work(done, over)
    return count / took


async def raw(url: str, count: int) -> float:
    async def work(done: _Done, over: asyncio.Event) -> None:
        async with Redis.from_url(url) as redis:
            while not over.is_set():
                answer: Any = await redis.xreadgroup("g", "c", {"raw": ">"}, count=_BATCH, block=100)
                for _, rows in answer:
                    for _, fields in rows:
                        json.loads(fields[b"data"])
                    await redis.xack("raw", "g", *(entry_id for entry_id, _ in rows))
                    done(len(rows))

    async with Redis.from_url(url) as redis:
        await fill(redis, "raw", events_of_a_kilobyte(count))
        await redis.xgroup_create("raw", "g", id="0")
    return await timed(count, work)


async def faststream(url: str, count: int, *, batch: bool) -> float:
    stream = "fs-batch" if batch else "fs-single"

    async def work(done: _Done, over: asyncio.Event) -> None:
        broker = RedisBroker(url, logger=logging.getLogger("bench"), log_level=logging.DEBUG)
        sub: Any = StreamSub(stream, group="g", consumer="c", batch=batch, max_records=_BATCH, polling_interval=100)

        if batch:

            @broker.subscriber(stream=sub, ack_policy=AckPolicy.ACK)  # type: ignore[untyped-decorator]
            async def take_all(message: list[dict[str, Any]]) -> None:
                done(len(message))
        else:

            @broker.subscriber(stream=sub, ack_policy=AckPolicy.ACK)  # type: ignore[untyped-decorator]
            async def take_one(message: dict[str, Any]) -> None:
                done(1)

        async with broker:
            await broker.start()
            await over.wait()

    async with Redis.from_url(url) as redis:
        await fill(redis, stream, events_of_a_kilobyte(count), field="__data__")
        await redis.xgroup_create(stream, "g", id="0")
    return await timed(count, work)


@asynccontextmanager
async def at_work(url: str, services: Sequence[Service]) -> AsyncIterator[None]:
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(run_services(services, url, settings=BusSettings(), stop=stop, ready=ready.set))
    await ready.wait()
    try:
        yield
    finally:
        stop.set()
        await task


async def bus(url: str, state: Path, count: int, *, batch: bool) -> float:
    over = asyncio.Event()
    left = count

    def note(handled: int) -> None:
        nonlocal left
        left -= handled
        if left <= 0:
            over.set()

    async def take_all(events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        note(len(events))
        return []

    async def take_one(_: Event[Any]) -> Sequence[Event[Any]]:
        note(1)
        return []

    async with Redis.from_url(url) as redis:
        await redis.delete("symbol-metadata", "asof:seen:catalog:symbol-metadata")
        await fill(redis, "symbol-metadata", events_of_a_kilobyte(count))
        subscription = Subscription("symbol-metadata", take_all if batch else take_one, batch, _BATCH)
        started = time.perf_counter()
        async with at_work(url, [Service("catalog", (subscription,), state)]):
            await over.wait()
            while (await redis.xpending("symbol-metadata", "catalog"))["pending"]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            return count / (time.perf_counter() - started)


def four_hops(state: Path, arrived: Callable[[Event[Any]], None]) -> list[Service]:
    """run-candidates → fetch-tasks → bars-hydrated → ratings-computed → noted by the auditor."""

    async def plan(events: Sequence[Event[Any]]) -> list[Event[Any]]:
        return [
            _event(
                FetchTask(
                    run_id=event.runid or "",
                    kind="bars",
                    batch=0,
                    batches=1,
                    symbols=("PSE:JFC",),
                    interval="1d",
                    as_of=_T0,
                )
            )
            for event in events
        ]

    async def fetch(events: Sequence[Event[Any]]) -> list[Event[Any]]:
        return [_event(BarsHydrated(run_id=event.runid or "", batch=0, interval="1d")) for event in events]

    async def rate(events: Sequence[Event[Any]]) -> list[Event[Any]]:
        rules = Rules(name="screener", version=1)
        return [
            _event(RatingsComputed(run_id=event.runid or "", batch=0, interval="1d", rules=rules)) for event in events
        ]

    async def audit(events: Sequence[Event[Any]]) -> list[Event[Any]]:
        for event in events:
            arrived(event)
        return []

    return [
        Service(
            "fetcher",
            (Subscription("run-candidates", plan, True, _BATCH), Subscription("fetch-tasks", fetch, True, _BATCH)),
            state / "fetcher",
        ),
        Service("features", (Subscription("bars-hydrated", rate, True, _BATCH),), state / "features"),
        Service("auditor", (Subscription("ratings-computed", audit, True, _BATCH),), state / "auditor"),
    ]


def _event(data: Any) -> Event[Any]:
    return Event.of(data, source="bench", time=_T0)


async def hops(url: str, state: Path, *, burst: int, paced: int) -> tuple[float, list[float]]:
    """Events a second of a burst through four hops, and the seconds that events sent at 50/s took."""
    sent: dict[str, float] = {}
    took: list[float] = []
    burst_over, paced_over = asyncio.Event(), asyncio.Event()

    def arrived(event: Event[Any]) -> None:
        took.append(time.perf_counter() - sent[event.runid or ""])
        if len(took) == paced:
            paced_over.set()
        if len(took) == paced + burst:
            burst_over.set()

    async with at_work(url, four_hops(state, arrived)), Redis.from_url(url) as redis:
        for number in range(paced):
            event = _event(RunCandidates(candidates=["PSE:JFC"], run_id=f"paced-{number}"))
            sent[event.runid or ""] = time.perf_counter()
            await fill(redis, "run-candidates", [event])
            await asyncio.sleep(1 / 50)
        await paced_over.wait()
        events = [_event(RunCandidates(candidates=["PSE:JFC"], run_id=f"burst-{number}")) for number in range(burst)]
        started = time.perf_counter()
        sent.update((event.runid or "", started) for event in events)
        await fill(redis, "run-candidates", events)
        await burst_over.wait()
        return burst / (time.perf_counter() - started), sorted(took[:paced])


async def main(count: int) -> None:
    print(find_server())
    import shared.bus.runner  # noqa: F401  (half a second that belongs to no figure)

    with tempfile.TemporaryDirectory() as folder:
        async with embedded_redis(Home.at(folder)) as url:
            state = Path(folder) / "bench"
            rows = [
                ("raw redis-py, batches of 256", await raw(url, count)),
                ("FastStream, single", await faststream(url, count // 4, batch=False)),
                ("FastStream, batch of 256", await faststream(url, count, batch=True)),
                ("shared.bus, single events", await bus(url, state / "a", count, batch=False)),
                ("shared.bus, batch of 256", await bus(url, state / "b", count, batch=True)),
            ]
            for name, rate in rows:
                print(f"{name:32} {rate:>10,.0f} events/s")
            rate, took = await hops(url, state / "c", burst=count // 4, paced=200)
            print(f"{'shared.bus, four hops, a burst':32} {rate:>10,.0f} events/s")
            p50, p99 = statistics.median(took) * 1000, took[int(len(took) * 0.99)] * 1000
            print(f"shared.bus, four hops at 50/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The throughput and latency of the bus")
    parser.add_argument("--events", type=int, default=20_000)
    logging.disable(logging.WARNING)
    asyncio.run(main(parser.parse_args().events))
