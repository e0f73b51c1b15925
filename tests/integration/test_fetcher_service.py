"""The fetcher on the real bus: a run in, tasks shared, facts out, and the same run again costs nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from asof.upstream.app import endpoints
from asof.upstream.made import made_source
from services.fetcher.app import create_app
from services.fetcher.settings import Settings
from shared.bus import BusSettings, client, run_services
from shared.events import Event, RunCandidates
from tests.integration.fetcher_fleet import NOW, QUICK, redis_server, replaying

OUT = ("symbol-metadata", "bars-hydrated", "fetch-attempted", "exchange-metadata", "dead-letters", "command-results")
SYMBOLS = [f"MADE:S{number:04}" for number in range(60)]


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@asynccontextmanager
async def at_work(base_url, redis_url, home, *, replicas=1):
    addresses = endpoints(base_url)
    settings = Settings(
        home=home, scanner_url=addresses["scanner_url"], ws_url=addresses["scanner_ws_url"], bars_batch=20, **QUICK
    )
    stop = asyncio.Event()
    tasks = []
    for _ in range(replicas):
        ready = asyncio.Event()
        service = create_app(settings)
        tasks.append(
            asyncio.create_task(run_services([service], redis_url, settings=BusSettings(), stop=stop, ready=ready.set))
        )
        await ready.wait()
    yield
    stop.set()
    await asyncio.gather(*tasks)


async def publish(redis_url, **fields):
    run = RunCandidates(**{"run_id": "r1", "candidates": SYMBOLS, "as_of": NOW, **fields})
    await client.publish(redis_url, [Event.of(run, source="cli", time=NOW)])


async def collect(redis_url, enough, *, timeout_s=30):
    seen = {}
    async for one in client.follow(redis_url, dict.fromkeys(OUT, "0"), timeout_s=timeout_s):
        seen.setdefault(one.stream, []).append(one.event.data)
        if enough(seen):
            return seen
    raise AssertionError({stream: len(events) for stream, events in seen.items()})


def every_symbol_has_its_outcomes(seen):
    bars = sum(len(one.hydrated) + len(one.failures) for one in seen.get("bars-hydrated", []))
    return len(seen.get("symbol-metadata", [])) >= len(SYMBOLS) and bars >= len(SYMBOLS)


async def test_a_run_is_fetched_by_two_replicas_and_the_same_run_again_asks_nothing(server, tmp_path):
    url = f"redis://127.0.0.1:{server.port}/1"
    async with replaying(made_source(until=NOW, stocks=60)) as (replay, base), at_work(base, url, tmp_path, replicas=2):
        await publish(url)
        seen = await collect(url, every_symbol_has_its_outcomes)
        assert {one.symbol for one in seen["symbol-metadata"] if one.failure is None} == set(SYMBOLS)
        assert sum(len(one.hydrated) for one in seen["bars-hydrated"]) == 60
        asked = len(replay.record.entries())
        await publish(url, requested_by=None)
        await client.settle(url, timeout_s=10)
        assert len(replay.record.entries()) == asked


async def test_the_same_run_id_with_other_content_is_dead_lettered_with_the_reason(server, tmp_path):
    url = f"redis://127.0.0.1:{server.port}/2"
    async with replaying(made_source(until=NOW, stocks=60)) as (_, base), at_work(base, url, tmp_path):
        await publish(url, stages=["metadata"])
        await collect(url, lambda seen: len(seen.get("symbol-metadata", [])) == 60)
        await publish(url, candidates=["MADE:S0001"])
        seen = await collect(url, lambda seen: "dead-letters" in seen)
        (letter,) = seen["dead-letters"]
        assert "other content" in letter.error.message


async def test_a_run_by_hand_without_a_run_id_is_fetched(server, tmp_path):
    url = f"redis://127.0.0.1:{server.port}/3"
    async with replaying(made_source(until=NOW, stocks=60)) as (_, base), at_work(base, url, tmp_path):
        async with client.connected(url) as redis:
            entry = await redis.xadd("run-candidates", {"candidates": '["MADE:S0001"]'})
        seen = await collect(url, lambda seen: "symbol-metadata" in seen and "bars-hydrated" in seen)
        assert seen["symbol-metadata"][0].run_id == entry.decode()
