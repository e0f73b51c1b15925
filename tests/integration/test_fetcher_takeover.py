"""A fetcher that is killed in the middle of a batch: another one finishes it, and asks nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from asof.upstream.app import endpoints
from asof.upstream.made import made_source
from shared.bus import client
from shared.events import Event, RunCandidates
from shared.paths import Home
from tests.integration.fetcher_fleet import NOW, redis_server, replaying

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = [f"MADE:S{number:04}" for number in range(24)]


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@contextmanager
def fetcher(base, redis_url, home):
    """`asof up fetcher`, a process that can be killed; one task at a time and one series after another."""
    addresses = endpoints(base)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")} | {
        "ASOF_HOME": str(home),
        "ASOF_REDIS_URL": redis_url,
        "ASOF_FETCHER_SCANNER_URL": addresses["scanner_url"],
        "ASOF_FETCHER_WS_URL": addresses["scanner_ws_url"],
        "ASOF_FETCHER_TASKS_IN_FLIGHT": "1",
        "ASOF_FETCHER_WORKERS": "1",
        "ASOF_FETCHER_BARS_BATCH": str(len(SYMBOLS)),
        "ASOF_BUS_MIN_IDLE_S": "1",
        "ASOF_BUS_RECLAIM_EVERY_S": "0.2",
    }
    command = [sys.executable, "-m", "asof", "up", "fetcher"]
    with (
        (home.parent / "fetcher.log").open("a") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def noted(home):
    """Symbols whose bars a fetcher has put down as done."""
    lines = [line for file in home.glob("r1/bars-*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(line)["bars"]["symbol"] for line in lines if line.endswith("}") and '"bars"' in line]


async def until(condition, *, timeout_s=30):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_batch_whose_fetcher_was_killed_is_finished_by_another_that_asks_nothing_twice(server, tmp_path):
    url = f"redis://127.0.0.1:{server.port}/1"
    home = tmp_path / "house"
    home.mkdir()
    runs = Home.at(home).state / "fetcher" / "runs"
    run = RunCandidates(run_id="r1", candidates=SYMBOLS, as_of=NOW, stages=["bars"])
    async with replaying(made_source(until=NOW, stocks=len(SYMBOLS)), latency_s=0.15) as (replay, base):
        with fetcher(base, url, home) as first:
            await client.publish(url, [Event.of(run, source="cli", time=NOW)])
            await until(lambda: first.poll() is not None or len(noted(runs)) >= 6)
            first.send_signal(signal.SIGKILL)
            first.wait()
        await until(lambda: replay.meters["scanner-ws"].in_flight == 0)
        finished, asked = set(noted(runs)), len(replay.record.entries())
        assert 6 <= len(finished) < len(SYMBOLS) - 2, "the kill did not fall into the batch"

        with fetcher(base, url, home):
            hydrated = []
            async for one in client.follow(url, {"bars-hydrated": "0"}, timeout_s=30):
                hydrated.append(one.event.data)
                break
            await client.settle(url, timeout_s=10)
        again = Counter(symbol for entry in list(replay.record.entries())[asked:] for symbol in entry.symbols)
    assert not finished & again.keys()
    assert again.keys() == set(SYMBOLS) - finished
    assert set(again.values()) == {1}
    (batch,) = hydrated
    assert [bars.symbol for bars in batch.hydrated] == SYMBOLS
    assert batch.failures == {}
