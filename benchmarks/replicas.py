"""Symbols a second of 1, 2 and 4 features processes that share a run's batches, through the real bus.

    .venv/bin/python benchmarks/replicas.py [--symbols 1000] [--rounds 3]

BARS=2000 stored daily bars each. The run is open and every process warm when its batches of 50 are published; the clock
stops with the last `ratings-computed`. What fetches, versions and judges does not run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL

import psutil
from features import BARS, BATCH, START, made_bars  # type: ignore[import-not-found]  # it lies beside this file
from redis.asyncio import Redis

from asof.embedded import embedded_redis
from shared.bars import BarsTable, Trading
from shared.bus import client
from shared.events import Bars, BarsHydrated, Event, RunCandidates
from shared.paths import Home

_HOURS = {"timezone": "Etc/UTC", "session": "24x7"}


async def main(symbols: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder) / "data")
        stored = [_store(home, f"X:S{number:04}", number) for number in range(symbols)]
        async with embedded_redis(home) as url, Redis.from_url(url) as redis:
            for replicas in (1, 2, 4):
                async with _services(replicas, {"ASOF_HOME": str(home.root), "ASOF_REDIS_URL": url}) as processes:
                    await _carry_out(redis, url, home, f"warm-{replicas}", stored[: 4 * BATCH * replicas])
                    took, shares = [], []
                    for number in range(rounds):
                        before = [_processor_s(process) for process in processes]
                        took.append(await _carry_out(redis, url, home, f"r-{replicas}-{number}", stored))
                        spent = [_processor_s(one) - began for one, began in zip(processes, before, strict=True)]
                        shares.append(min(spent) / max(spent))
                seconds = statistics.median(took)
                print(
                    f"{replicas} replicas {symbols / seconds:>8,.0f} symbols/s, {symbols * BARS / seconds / 1e6:6.2f} "
                    f"million bars/s; the least busy did {statistics.median(shares):.0%} of the busiest's work",
                    flush=True,
                )


def _store(home: Home, symbol: str, seed: int) -> Bars:
    root = home.bars_table("1d", symbol)
    info = BarsTable.open(root).append(made_bars(BARS, seed), run_id="fetched", trading=Trading(**_HOURS)).info
    assert info.first_bar is not None
    assert info.last_bar is not None
    return Bars(
        symbol=symbol,
        path=home.relative(root),
        table_version=info.version,
        sha256=info.sha256,
        rows=info.rows,
        first_bar=info.first_bar.to_pydatetime(),
        last_bar=info.last_bar.to_pydatetime(),
        added=info.rows,
        revised=0,
        **_HOURS,
    )


async def _carry_out(redis: Redis, url: str, home: Home, run_id: str, stored: Sequence[Bars]) -> float:
    """Seconds from a run's first batch to its last ratings."""
    asked = RunCandidates(candidates=[one.symbol for one in stored], run_id=run_id, as_of=START)
    await client.publish(url, [Event.of(asked, source="benchmark", time=START)])
    await _exists(home.run(run_id).staged_parts / "run.json")
    parts = [stored[start : start + BATCH] for start in range(0, len(stored), BATCH)]
    said = [
        BarsHydrated(run_id=run_id, batch=batch, interval="1d", hydrated=tuple(part))
        for batch, part in enumerate(parts)
    ]
    done = await redis.xlen("ratings-computed") + len(said)
    began = time.perf_counter()
    await client.publish(url, [Event.of(one, source="benchmark", time=START) for one in said])
    while True:
        if await redis.xlen("ratings-computed") >= done:
            return time.perf_counter() - began
        await asyncio.sleep(0.005)


async def _exists(path: Path) -> None:
    while True:
        if await asyncio.to_thread(path.exists):
            return
        await asyncio.sleep(0.01)


@asynccontextmanager
async def _services(replicas: int, settings: dict[str, str]) -> AsyncIterator[list[psutil.Process]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")} | settings
    command = (sys.executable, "-m", "asof", "up", "features")
    processes = [
        await asyncio.create_subprocess_exec(*command, env=environment, stdout=DEVNULL, stderr=DEVNULL)
        for _ in range(replicas)
    ]
    try:
        yield [psutil.Process(process.pid) for process in processes]
    finally:
        for process in processes:
            process.terminate()
            await process.wait()


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How the features service scales with its replicas")
    parser.add_argument("--symbols", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(main(given.symbols, given.rounds))
