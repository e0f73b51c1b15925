"""The bus beside raw redis-py and plain FastStream, on one embedded server: `python benchmarks/bus.py [--events N]`.

The contenders take turns, so that a busy machine is busy for all of them; printed are medians over the rounds, and the
median of the ratio to raw redis-py in the same round. Events per second of the consumer's own CPU time hardly depend
on what else the machine does. `--replicas` measures 1, 2 and 4 processes instead.

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
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

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
    record = {f"field_{number}": f"value {number} of a symbol" for number in range(19)}
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


class Rate(NamedTuple):
    """Events a second, by the clock and by the CPU time of the consuming process."""

    clock: float
    cpu: float


class Stopwatch:
    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, count: int) -> Rate:
        return Rate(count / (time.perf_counter() - self._clock), count / (time.process_time() - self._cpu))


async def timed(count: int, work: Callable[[_Done, asyncio.Event], Awaitable[Any]]) -> Rate:
    """How fast `work` handles events: it reports how many at a time, first 0, and ends when the event is set."""
    left, over = count, asyncio.Event()
    watch: Stopwatch | None = None
    rate: Rate | None = None

    def done(handled: int) -> None:
        nonlocal left, watch, rate
        watch = watch or Stopwatch()
        left -= handled
        if left <= 0 and rate is None:
            rate = watch.rate(count)
            over.set()

    await work(done, over)
    assert rate is not None
    return rate


async def raw(url: str, count: int) -> Rate:
    async def work(done: _Done, over: asyncio.Event) -> None:
        async with Redis.from_url(url) as redis:
            done(0)
            while not over.is_set():
                answer: Any = await redis.xreadgroup("g", "c", {"raw": ">"}, count=_BATCH, block=100)
                for _, rows in answer:
                    for _, fields in rows:
                        json.loads(fields[b"data"])
                    await redis.xack("raw", "g", *(entry_id for entry_id, _ in rows))
                    done(len(rows))

    async with Redis.from_url(url) as redis:
        await redis.delete("raw")
        await fill(redis, "raw", events_of_a_kilobyte(count))
        await redis.xgroup_create("raw", "g", id="0")
    return await timed(count, work)


async def faststream(url: str, count: int, *, batch: bool) -> Rate:
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
            await broker.connect()
            done(0)
            await broker.start()
            await over.wait()

    async with Redis.from_url(url) as redis:
        await redis.delete(stream)
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


async def bus(url: str, state: Path, count: int, *, batch: bool) -> Rate:
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
        async with at_work(url, [Service("catalog", (subscription,), state)]):
            watch = Stopwatch()
            await over.wait()
            while (await redis.xpending("symbol-metadata", "catalog"))["pending"]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            return watch.rate(count)


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


async def replica(url: str, state: Path, work: str) -> None:
    """One process of `scale`: a fetcher waits 5 ms for its upstream, a features service computes for 5 ms."""

    async def wait(_: Event[Any]) -> Sequence[Event[Any]]:
        await asyncio.sleep(0.005)
        return []

    async def compute(_: Event[Any]) -> Sequence[Event[Any]]:
        until = time.process_time() + 0.005
        while time.process_time() < until:
            pass
        return []

    service = Service("catalog", (Subscription("symbol-metadata", wait if work == "wait" else compute),), state)
    await run_services([service], url, settings=BusSettings(), ready=lambda: print("ready", flush=True))


async def scale(url: str, state: Path, replicas: int, work: str, count: int) -> float:
    """Events a second that so many processes get done together, each with one call at a time."""
    async with Redis.from_url(url) as redis:
        await redis.delete("symbol-metadata", "asof:seen:catalog:symbol-metadata")
        command = (sys.executable, __file__, "--replica", url, str(state), work)
        processes = [await asyncio.create_subprocess_exec(*command, stdout=PIPE) for _ in range(replicas)]
        try:
            for process in processes:
                assert process.stdout is not None
                await process.stdout.readline()
            started = time.perf_counter()
            await fill(redis, "symbol-metadata", events_of_a_kilobyte(count))
            while True:
                (group,) = await redis.xinfo_groups("symbol-metadata")
                if not group["lag"] and not group["pending"]:
                    return count / (time.perf_counter() - started)
                await asyncio.sleep(0.005)
        finally:
            for process in processes:
                process.terminate()
                await process.wait()


async def memory(url: str, count: int) -> tuple[float, float]:
    """Bytes of memory that one event of a kilobyte takes in its stream, and that are left of it after trimming."""
    async with Redis.from_url(url) as redis:

        async def held() -> float:
            return int(await redis.memory_usage("symbol-metadata", samples=0) or 0) / count

        await redis.delete("symbol-metadata")
        await fill(redis, "symbol-metadata", events_of_a_kilobyte(count))
        before = await held()
        ((newest, _),) = cast("Any", await redis.xrevrange("symbol-metadata", count=1))
        await redis.xtrim("symbol-metadata", minid=newest, approximate=True)
        return before, await held()


async def main(count: int, rounds: int) -> None:
    import shared.bus.runner  # noqa: F401  (half a second that belongs to no figure)

    contenders: dict[str, Callable[[str, Path], Awaitable[Rate]]] = {
        "raw redis-py, batches of 256": lambda url, _: raw(url, count),
        "FastStream, single": lambda url, _: faststream(url, count // 4, batch=False),
        "FastStream, batch of 256": lambda url, _: faststream(url, count, batch=True),
        "shared.bus, single events": lambda url, state: bus(url, state, count, batch=False),
        "shared.bus, batch of 256": lambda url, state: bus(url, state, count, batch=True),
    }
    rates: dict[str, list[Rate]] = {name: [] for name in contenders}
    bursts, p50s, p99s = [], [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            async with embedded_redis(Home.at(folder)) as url:
                for place, (name, measure) in enumerate(contenders.items()):
                    rates[name].append(await measure(url, Path(folder) / f"bench-{place}"))
                rate, took = await hops(url, Path(folder) / "hops", burst=count // 4, paced=200)
                bursts.append(rate)
                p50s.append(statistics.median(took) * 1000)
                p99s.append(took[int(len(took) * 0.99)] * 1000)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    base = rates["raw redis-py, batches of 256"]
    for name, found in rates.items():
        clock = statistics.median(rate.clock for rate in found)
        ratio = statistics.median(rate.clock / raw.clock for rate, raw in zip(found, base, strict=True))
        cpu = statistics.median(rate.cpu for rate in found)
        cpu_ratio = statistics.median(rate.cpu / raw.cpu for rate, raw in zip(found, base, strict=True))
        print(
            f"{name:30} {clock:>8,.0f} events/s, best {max(rate.clock for rate in found):>7,.0f}, {ratio:4.2f} of raw; "
            f"{cpu:>7,.0f} per CPU second, {cpu_ratio:4.2f} of raw"
        )
    print(f"{'four hops, a burst':30} {statistics.median(bursts):>8,.0f} events/s, best {max(bursts):>7,.0f}")
    print(
        f"four hops at 50/s: p50 {statistics.median(p50s):.2f} ms, p99 {statistics.median(p99s):.2f} ms; "
        f"best round {min(p50s):.2f} and {min(p99s):.2f} ms"
    )


async def compare_replicas(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_redis(Home.at(folder)) as url:
            for work in ("wait", "compute"):
                for replicas in (1, 2, 4):
                    rate = await scale(url, Path(folder) / f"{work}-{replicas}", replicas, work, count)
                    print(f"{replicas} replicas that {work:8} 5 ms an event {rate:>8,.0f} events/s", flush=True)
            held, left = await memory(url, count)
            print(f"a stream holds {held:,.0f} bytes an event of a kilobyte, and {left:,.0f} after it was trimmed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The throughput and latency of the bus")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicas", action="store_true", help="measure 1, 2 and 4 processes instead")
    parser.add_argument("--replica", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    if asked.replica:
        asyncio.run(replica(asked.replica[0], Path(asked.replica[1]), asked.replica[2]))
    elif asked.replicas:
        asyncio.run(compare_replicas(asked.events // 10))
    else:
        print(find_server())
        asyncio.run(main(asked.events, asked.rounds))
