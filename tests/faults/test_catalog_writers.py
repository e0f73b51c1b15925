"""Four catalogs write one table; they are stopped past their lease and killed: no acknowledged write is lost.

The negative control keeps the lease and takes away the guard behind it: the manifest may be overwritten and the lease's
number is not compared. In the same test it must lose writes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from services.catalog import MetadataCatalog
from services.catalog.adapters.lease import RedisLease
from services.catalog.domain.decide import Batch
from services.catalog.handlers import Desk, commit

LEASE_S = 0.08
FAULTS = 3  # kills at least, and stops
T = datetime(2024, 1, 1, tzinfo=UTC)


def without_the_guard() -> None:
    """A manifest replaces one of the same number, as a plain rename would, and no number is compared."""
    from shared.tables import table as tables

    link = os.link

    def overwrite(source: Path, target: Path) -> None:
        aside = f"{target}.{os.getpid()}"
        link(source, aside)
        os.replace(aside, target)  # noqa: PTH105

    os.link = overwrite  # type: ignore[assignment]
    tables.check_base = lambda *args: None


async def write_until_told(root: Path, url: str, notes: Path, name: str, stop: Path) -> None:
    """Insert one symbol after another and note each that was acknowledged."""
    catalog = MetadataCatalog.open(root, clock=lambda: T)
    async with AsyncRedis.from_url(url) as redis:
        lease = RedisLease(lambda: f"{os.getpid()}-{name}", lasts_s=LEASE_S)
        lease.connect(redis)
        desk = Desk(catalog, catalog, None, None, lambda: T, None, None, lease, asyncio.Lock())  # type: ignore[arg-type]
        ours = os.open(notes / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        number = 0
        while not stop.exists():
            symbol = f"T:{name}N{number}"
            record = {"symbol": symbol, "sector": name, "pricescale": number}
            (result,) = await commit(catalog, [Batch("upsert", [record], T, T, event_id=symbol)], desk)
            assert result.inserted == (symbol,), result
            os.write(ours, f"{symbol}\n".encode())
            number += 1


def fork(root: Path, url: str, notes: Path, name: str, stop: Path, *, guarded: bool) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if not guarded:
                without_the_guard()
            asyncio.run(write_until_told(root, url, notes, name, stop))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


@dataclass
class Outcome:
    acknowledged: set[str]
    lost: set[str]
    catalog: MetadataCatalog
    codes: list[int]
    kills: int
    stops: int


def lines_in(notes: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in notes.iterdir())


def trial(tmp_path: Path, url: str, seed: int, commits: int, *, guarded: bool) -> Outcome:
    chance = random.Random(seed)
    root, notes, stop = tmp_path / "symbols", tmp_path / "notes", tmp_path / "stop"
    notes.mkdir(parents=True)
    names = iter(f"w{number}" for number in range(10_000))
    writers = [fork(root, url, notes, next(names), stop, guarded=guarded) for _ in range(4)]
    kills = stops = 0
    deadline = time.monotonic() + 60
    try:
        with Redis.from_url(url) as redis:
            # On a slow machine few faults fit between so many commits: then there are more commits.
            while min(kills, stops) < FAULTS or lines_in(notes) < commits:
                assert time.monotonic() < deadline, "too slow"
                time.sleep(chance.uniform(0, 0.03))
                holder = redis.get("asof:catalog:lease")
                victim = int(holder.split(b"-")[0]) if holder else 0
                victim = victim if victim in writers else chance.choice(writers)
                if chance.random() < 0.25:
                    os.kill(victim, signal.SIGKILL)
                    os.waitpid(victim, 0)
                    writers.remove(victim)
                    writers.append(fork(root, url, notes, next(names), stop, guarded=guarded))
                    kills += 1
                else:
                    os.kill(victim, signal.SIGSTOP)
                    time.sleep(LEASE_S * chance.uniform(1.2, 2))
                    os.kill(victim, signal.SIGCONT)
                    stops += 1
    finally:
        stop.touch()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in writers]
    acknowledged = {line for path in notes.iterdir() for line in path.read_text().split()}
    catalog = MetadataCatalog.open(root, clock=lambda: T)
    stored = set(catalog.history()["symbol"])
    return Outcome(acknowledged, acknowledged - stored, catalog, codes, kills, stops)


def test_no_acknowledged_write_is_lost_when_writers_outlive_their_lease_or_are_killed(
    tmp_path: Path, redis_url: str
) -> None:
    outcome = trial(tmp_path, redis_url, seed=1, commits=200, guarded=True)
    assert outcome.codes == [0] * 4
    assert min(outcome.kills, outcome.stops) >= FAULTS
    assert outcome.lost == set()
    assert outcome.catalog.audit() == []
    assert outcome.catalog.epoch > 4  # leases were taken, and their numbers written


def test_without_the_guard_the_lease_alone_loses_acknowledged_writes(tmp_path: Path, redis_url: str) -> None:
    lost: set[str] = set()
    for seed in range(6):
        with Redis.from_url(redis_url) as redis:
            redis.flushdb()
        outcome = trial(tmp_path / str(seed), redis_url, seed=seed, commits=120, guarded=False)
        lost |= outcome.lost
        if lost:
            break
    assert lost, "the control has to lose writes, or the test above proves nothing"


async def test_a_holder_from_before_is_refused_by_its_number_and_takes_the_lease_again(
    tmp_path: Path, redis_url: str
) -> None:
    from shared.errors import StaleEpochError

    catalog = MetadataCatalog.open(tmp_path / "symbols", clock=lambda: T)
    async with AsyncRedis.from_url(redis_url) as redis:
        lease = RedisLease(lambda: "one", lasts_s=LEASE_S)
        lease.connect(redis)
        async with lease.held(catalog.epoch) as early:
            await asyncio.sleep(LEASE_S * 1.5)  # paused; another one takes over
            other = RedisLease(lambda: "two", lasts_s=LEASE_S)
            other.connect(redis)
            async with other.held(catalog.epoch) as late:
                assert late > early
                catalog.apply([Batch("upsert", [{"symbol": "T:B"}], T, T)], epoch=late)
            with pytest.raises(StaleEpochError):
                catalog.apply([Batch("upsert", [{"symbol": "T:A"}], T, T)], epoch=early)
        desk = Desk(catalog, catalog, None, None, lambda: T, None, None, lease, asyncio.Lock())  # type: ignore[arg-type]
        (result,) = await commit(catalog, [Batch("upsert", [{"symbol": "T:A"}], T, T)], desk)
        assert result.inserted == ("T:A",)


async def test_a_redis_that_lost_its_memory_locks_no_writer_out(tmp_path: Path, redis_url: str) -> None:
    catalog = MetadataCatalog.open(tmp_path / "symbols", clock=lambda: T)
    async with AsyncRedis.from_url(redis_url) as redis:
        lease = RedisLease(lambda: "one")
        lease.connect(redis)
        for name in "ABC":
            async with lease.held(catalog.epoch) as epoch:
                catalog.apply([Batch("upsert", [{"symbol": f"T:{name}"}], T, T)], epoch=epoch)
            await redis.flushdb()
        assert catalog.epoch == 3
    assert len(catalog.history()) == 3


async def test_a_lease_that_cannot_be_had_says_so_and_may_be_tried_again(redis_url: str) -> None:
    from shared.errors import TransientError

    async with AsyncRedis.from_url(redis_url) as redis:
        one, two = RedisLease(lambda: "one"), RedisLease(lambda: "two", patience_s=0.05)
        one.connect(redis)
        two.connect(redis)
        async with one.held(0):
            with pytest.raises(TransientError, match="lease"):
                async with two.held(0):
                    pass
        async with two.held(0) as epoch:
            assert epoch == 2
