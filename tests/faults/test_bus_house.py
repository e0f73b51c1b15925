"""The four services under faults: what they leave is what a fault-free house leaves, and the ledger verifies."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from asof.lakehouse import Lakehouse
from shared.bus import client
from shared.streams import SERVICES
from tests.e2e.conftest import AS_OF, House

pytestmark = pytest.mark.timeout(240)

RUNS = {"left": ["PSE:JFC", "PSE:BDO", "PSE:SM"], "right": ["PSE:SM", "PSE:AC", "PSE:ALI"]}
FAULTS = 5


@contextmanager
def a_house(folder: Path, cache: Path) -> Iterator[House]:
    folder.mkdir()
    house = House(folder, cache)
    try:
        house.server()
        house.replay()
        house.services()
        yield house
    finally:
        house.close()


def start_runs(house: House) -> None:
    for run_id, symbols in RUNS.items():
        house.publish(candidates=symbols, as_of=AS_OF, run_id=run_id)


def finish(house: House) -> None:
    """Both runs end granted, and every service is done with everything."""
    for run_id in RUNS:
        verdict = house.verdict(run_id, timeout_s=120)
        assert (verdict["decision"], verdict["covered"]) == ("granted", 1.0), verdict
    assert asyncio.run(client.settle(house.url, timeout_s=60)) == []
    assert house.dead_letters() == []


def kill_redis(house: House) -> None:
    server = house.processes["redis"]
    server.send_signal(signal.SIGKILL)
    server.wait()
    house.processes["redis"] = subprocess.Popen(server.args, stdout=subprocess.DEVNULL, text=True)


def undecided(house: House) -> bool:
    return not all(house.home.run(run_id).coverage.exists() for run_id in RUNS)


def torment(house: House, seed: int) -> list[str]:
    """Seeded faults while the runs are under way; what was hit before their verdicts, in order."""
    chance, done = random.Random(seed), []
    for _ in range(FAULTS):
        if not undecided(house):
            break
        victim = chance.choice([*SERVICES, "redis"])
        done.append(victim)
        if victim == "redis":
            kill_redis(house)
        else:
            house.kill(victim)
            house.service(victim)
        time.sleep(chance.uniform(0.2, 1.2))
    return done


def catalog_of(house: House) -> pd.DataFrame:
    """Every instrument as it is now, without when, and for which of two runs at once, this house saw it."""
    found = Lakehouse(house.home.root).catalog.at(pd.Timestamp.now("UTC"))
    times = [name for name in found.columns if isinstance(found[name].dtype, pd.DatetimeTZDtype)]
    return found.drop(columns=[*times, "run_id"]).sort_values("symbol").reset_index(drop=True)


def test_random_kills_leave_the_catalog_and_features_of_a_quiet_house(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with a_house(tmp_path / "quiet", cache) as quiet:
        start_runs(quiet)
        finish(quiet)
    with a_house(tmp_path / "loud", cache) as loud:
        start_runs(loud)
        done = torment(loud, seed=11)
        finish(loud)
        loud.asof("audit", "ledger")
    assert len(done) >= 3, "the faults have to come before the verdicts"
    pd.testing.assert_frame_equal(catalog_of(loud), catalog_of(quiet))
    assert sorted(catalog_of(loud)["symbol"]) == sorted({symbol for symbols in RUNS.values() for symbol in symbols})
    features = [Lakehouse(house.home.root).features.matrix() for house in (loud, quiet)]
    pd.testing.assert_frame_equal(*features)
    assert not features[0].empty


def test_flushall_in_the_middle_of_a_run_ends_in_a_verdict_that_names_what_is_missing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with a_house(tmp_path / "flushed", cache) as house:
        house.publish(candidates=RUNS["left"], as_of=AS_OF, run_id="left", deadline_s=8)
        house.wait(lambda: house.home.run("left").manifest.exists(), "the run to be opened")
        house.redis().flushall()
        verdict = house.verdict("left", timeout_s=60)
        if verdict["decision"] == "granted":
            assert verdict["covered"] == 1.0
        else:
            assert verdict["covered"] < 1.0
            assert {gap["symbol"] for gap in verdict["gaps"]} <= set(RUNS["left"])
            assert all(gap["code"] and gap["stage"] for gap in verdict["gaps"])
        # The house works on: another run is granted.
        house.publish(candidates=RUNS["left"], as_of=AS_OF, run_id="after")
        assert house.verdict("after", timeout_s=60)["decision"] == "granted"
        house.asof("audit", "ledger")
