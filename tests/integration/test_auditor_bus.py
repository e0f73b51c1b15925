"""The auditor on a real server: the verdict's latency, kill -9 at any moment, two auditors, fifty runs at once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from services.auditor import verify_ledger
from services.auditor.adapters.alert_file import list_alerts
from services.auditor.app import create_app
from services.auditor.settings import Settings
from shared.bus import Service, Subscription, client
from shared.clock import system_clock
from shared.events import Alert, Event, PromotionDecided
from tests.faults.test_bus_server import free_port, metrics
from tests.integration.auditor_house import House, failure
from tests.integration.bus_parts import QUICK, running, until
from tests.redis_server import RedisServer

SYMBOLS = [f"PSE:S{number:02}" for number in range(12)]

AUDITOR = """
import asyncio, sys
from pathlib import Path
from services.auditor.app import create_app
from services.auditor.settings import Settings
from shared.bus import run_services
from tests.integration.bus_parts import QUICK
asyncio.run(run_services([create_app(Settings(home=Path(sys.argv[1]), tick_s=0.1))], sys.argv[2], settings=QUICK))
"""


def auditor_process(house: House, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", AUDITOR, str(house.home.root), url], cwd=Path(__file__).parents[2])


def new_house(tmp_path: Path) -> House:
    house = House(tmp_path / "data")
    house.now = system_clock()
    return house


def opening(house: House, run_id: str, **asked: Any) -> Event[Any]:
    from shared.events import RunCandidates

    return house.event(RunCandidates(candidates=SYMBOLS, run_id=run_id, **asked))


def story(house: House, run_id: str, number: int) -> list[Event[Any]]:
    """A run's events in an arbitrary order; every third run misses one symbol's bars."""
    batches = [SYMBOLS[:6], SYMBOLS[6:]]
    events = [opening(house, run_id)]
    for batch, symbols in enumerate(batches):
        missing = symbols[:1] if number % 3 == 0 and batch == 0 else []
        there = [symbol for symbol in symbols if symbol not in missing]
        events.append(house.catalogued(*symbols, run_id=run_id))
        events.append(
            house.hydrated(*there, run_id=run_id, batch=batch, failed={symbol: failure() for symbol in missing})
        )
        events.append(house.rated(*there, run_id=run_id, batch=batch))
        failures = {symbol: failure() for symbol in missing}
        counts = {"fetched": len(there), "failed": len(missing), "failures": failures}
        events.append(house.attempted(run_id=run_id, batch=batch, **counts))
        events.append(house.attempted(run_id=run_id, batch=batch, kind="metadata", fetched=len(symbols)))
    random.Random(number).shuffle(events)
    return events


def written(house: House) -> int:
    """Bytes of the ledger and of every journal: they grow while an auditor works."""
    files = [house.home.ledger, *house.home.runs.glob("*/outcomes.jsonl")]
    return sum(file.stat().st_size for file in files if file.exists())


async def decided(url: str) -> list[PromotionDecided]:
    found = []
    async for followed in client.follow(url, {"promotion-decided": "0-0"}, timeout_s=0.3):
        assert isinstance(followed.event.data, PromotionDecided)
        found.append(followed.event.data)
    return found


def check_one_decision_each(house: House, runs: int, published: list[PromotionDecided]) -> None:
    flaws, _, _ = verify_ledger(house.home)
    assert flaws == []
    house.restart()
    entered = house.desk.ledger.of_kind("decided")
    assert Counter(entry.run_id for entry in entered) == Counter(f"r{number}" for number in range(runs))
    for entry in entered:
        number = int((entry.run_id or "r")[1:])
        assert entry.data["decision"] == ("blocked" if number % 3 == 0 else "granted"), entry.run_id
    # Published at least once, and never two different ones.
    assert {decision.run_id: decision.ledger_head for decision in published} == {
        entry.run_id: entry.hash for entry in entered
    }
    assert {(decision.run_id, decision.ledger_head) for decision in published} == {
        (entry.run_id, entry.hash) for entry in entered
    }


@asynccontextmanager
async def auditing(house: House, url: str, auditors: int = 1) -> AsyncIterator[None]:
    services = [create_app(Settings(home=house.home.root, tick_s=0.1)) for _ in range(auditors)]
    if auditors == 1:
        async with running(*services, url=url, settings=QUICK):
            yield
        return
    async with running(services[0], url=url, settings=QUICK), running(services[1], url=url, settings=QUICK):
        yield


THRICE = ("r1", "r2", "r3")  # the fastest of them counts: any machine may stand still for a second


async def test_the_verdict_follows_the_last_outcome_within_a_second(redis_url: str, tmp_path: Path) -> None:
    house, took = new_house(tmp_path), []
    async with auditing(house, redis_url):
        for run_id in THRICE:
            attempts = [
                house.attempted(run_id=run_id, kind=kind, fetched=len(SYMBOLS)) for kind in ("metadata", "bars")
            ]
            *first, last = [opening(house, run_id), *attempts, *house.all_of(SYMBOLS, run_id)]
            await client.publish(redis_url, first)
            assert await client.settle(redis_url, timeout_s=60) == []
            begun = time.monotonic()
            await client.publish(redis_url, [last])
            async for followed in client.follow(redis_url, {"promotion-decided": "0-0"}, timeout_s=60):
                if followed.event.data.run == run_id:
                    break
            took.append(time.monotonic() - begun)
    assert min(took) < 1


async def test_the_alert_of_a_silent_run_comes_within_a_second_of_its_deadline(redis_url: str, tmp_path: Path) -> None:
    house, took = new_house(tmp_path), []
    async with auditing(house, redis_url):
        for run_id in THRICE:
            await client.publish(redis_url, [opening(house, run_id, deadline_s=0.5)])
            begun = time.monotonic()
            async for followed in client.follow(redis_url, {"alerts": "0-0"}, timeout_s=60):
                if f"{run_id} is blocked" in followed.event.data.annotations["summary"]:  # type: ignore[attr-defined]
                    break
            took.append(time.monotonic() - begun - 0.5)
    assert min(took) < 1


async def test_an_auditor_killed_at_any_moment_loses_no_outcome_and_decides_once(
    redis_url: str, tmp_path: Path
) -> None:
    house = new_house(tmp_path)
    runs = 6
    rng = random.Random(11)
    events = [event for number in range(runs) for event in story(house, f"r{number}", number)]
    rng.shuffle(events)
    process = auditor_process(house, redis_url)
    try:
        for start in range(0, len(events), 13):
            before = written(house)
            await client.publish(redis_url, events[start : start + 13])

            async def at_work(before: int = before) -> bool:
                return written(house) > before

            await until(at_work)
            await asyncio.sleep(rng.uniform(0, 0.03))
            process.kill()
            process.wait()
            process = auditor_process(house, redis_url)

        async def all_decided() -> bool:
            return len({decision.run_id for decision in await decided(redis_url)}) == runs

        await until(all_decided, timeout_s=60)
    finally:
        process.kill()
        process.wait()
    check_one_decision_each(house, runs, await decided(redis_url))


async def test_two_auditors_by_accident_make_one_decision_each_and_one_chain(redis_url: str, tmp_path: Path) -> None:
    house = new_house(tmp_path)
    runs = 50
    events = [event for number in range(runs) for event in story(house, f"r{number}", number)]
    random.Random(5).shuffle(events)
    async with auditing(house, redis_url, auditors=2):
        await client.publish(redis_url, events)
        assert await client.settle(redis_url, timeout_s=60) == []
    check_one_decision_each(house, runs, await decided(redis_url))


async def test_a_service_that_reads_nothing_while_events_wait_is_an_alert_until_it_reads(
    redis_url: str, tmp_path: Path
) -> None:
    house = new_house(tmp_path)
    auditor = create_app(Settings(home=house.home.root, tick_s=0.1, stuck_s=0.6))
    fetcher = Service("fetcher", (Subscription("run-candidates", nothing),), tmp_path / "fetcher")
    async with running(fetcher, url=redis_url):
        pass  # its group exists from here on, and nobody reads for it
    async with running(auditor, url=redis_url, settings=QUICK):
        await client.publish(redis_url, [opening(house, "r1")])
        stuck = await alert_of(redis_url, "ConsumerStuck", "firing")
        assert (stuck.labels["group"], stuck.labels["stream"]) == ("fetcher", "run-candidates")
        assert stuck.error == "1 events wait for it"
        async with running(fetcher, url=redis_url):
            ended = await alert_of(redis_url, "ConsumerStuck", "resolved")
    assert ended.fingerprint == stuck.fingerprint


async def test_the_metrics_show_the_coverage_of_the_run_decided_last_also_after_a_restart(
    redis_url: str, tmp_path: Path
) -> None:
    house, served = new_house(tmp_path), QUICK.model_copy(update={"port": free_port()})

    async def shown() -> dict[str, float]:
        lines = [line for line in (await metrics(served)).splitlines() if line.startswith("asof_coverage")]
        return {name: float(value) for name, value in map(str.split, lines)}

    async def counted() -> bool:
        return bool(await shown())

    def auditor() -> AbstractAsyncContextManager[None]:
        return running(create_app(Settings(home=house.home.root, tick_s=0.1)), url=redis_url, settings=served)

    async with auditor():
        assert await shown() == {}, "no run is not a run without coverage"
        await client.publish(redis_url, story(house, "r0", 0))
        await until(counted)
        blocked = await shown()
        assert blocked.pop("asof_coverage_ratio") == round(11 / 12, 6)
        assert blocked.pop("asof_coverage_with_waivers_ratio") == round(11 / 12, 6)
        gaps = {name: int(value) for name, value in blocked.items()}
        stages = ("candidates", "metadata", "bars", "validation", "ratings")
        assert gaps == {f'asof_coverage_gaps{{stage="{stage}"}}': int(stage == "bars") for stage in stages}
    async with auditor():
        await until(counted)
        assert (await shown())["asof_coverage_ratio"] == round(11 / 12, 6)
        await client.publish(redis_url, story(house, "r1", 1))

        async def granted() -> bool:
            return (await shown())["asof_coverage_ratio"] == 1

        await until(granted)
        assert (await shown())['asof_coverage_gaps{stage="bars"}'] == 0


async def nothing(event: Event[Any]) -> list[Event[Any]]:
    return []


async def test_a_group_that_nobody_declared_is_an_alert_until_it_is_gone(redis_url: str, tmp_path: Path) -> None:
    house, name = new_house(tmp_path), b"mine \xff"  # whoever makes a group names it
    auditor = create_app(Settings(home=house.home.root, tick_s=0.1, stuck_s=0.6))
    async with (
        running(auditor, url=redis_url, settings=QUICK),
        Redis.from_url(redis_url) as redis,
    ):
        await redis.xgroup_create("alerts", name, id="$", mkstream=True)
        fired = await alert_of(redis_url, "UndeclaredGroup", "firing")
        assert (fired.labels["stream"], fired.labels["group"]) == ("alerts", "mine \\xff")
        await redis.xgroup_destroy("alerts", name)
        ended = await alert_of(redis_url, "UndeclaredGroup", "resolved")
    assert ended.fingerprint == fired.fingerprint
    assert [row["labels"]["alertname"] for row in list_alerts(house.home, now=house.now)] == ["UndeclaredGroup"]


async def test_a_full_server_is_told_to_channels_while_it_refuses_and_published_when_it_does_not(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    house, url, printed = new_house(tmp_path), own_redis.url(), tmp_path / "alerts.txt"
    auditor = create_app(Settings(home=house.home.root, tick_s=0.1, stuck_s=0.6, alert_file=printed))
    async with running(auditor, url=url, settings=QUICK), Redis.from_url(url) as redis:
        await redis.config_set("maxmemory", 1)

        async def told() -> bool:
            return printed.exists() and "FIRING  Redis runs out of memory" in printed.read_text()

        await until(told)
        assert await redis.xlen("alerts") == 0, "it takes no events now"
        await redis.config_set("maxmemory", 1 << 30)
        fired = await alert_of(url, "RedisFull", "firing")
        ended = await alert_of(url, "RedisFull", "resolved")
    assert ended.fingerprint == fired.fingerprint
    assert "writes are refused from 0 MiB on" in fired.error


async def alert_of(url: str, name: str, status: str) -> Alert:
    async for followed in client.follow(url, {"alerts": "0-0"}, timeout_s=10):
        alert = followed.event.data
        if isinstance(alert, Alert) and (alert.labels["alertname"], alert.status) == (name, status):
            return alert
    raise AssertionError(f"no alert that is {status} came")
