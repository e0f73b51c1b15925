"""The four services under faults: what they leave is what a fault-free house leaves, and the ledger verifies."""

from __future__ import annotations

import asyncio
import random
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest
import redis

from asof.lakehouse import Lakehouse
from shared.bus import client
from tests.e2e.conftest import AS_OF, House
from tests.faults.house_faults import FAULTS, GARBAGE

pytestmark = pytest.mark.timeout(240)

RUNS = {"left": ["PSE:JFC", "PSE:BDO", "PSE:SM"], "right": ["PSE:SM", "PSE:AC", "PSE:ALI"]}


@contextmanager
def a_house(folder: Path, cache: Path) -> Iterator[House]:
    folder.mkdir()
    house = House(folder, cache)
    try:
        # What was answered is on the disk: what a sync a second may lose of a sender without an outbox is not at stake.
        house.server("--appendfsync", "always")
        house.replay()
        house.services()
        yield house
    finally:
        house.close()


def start_runs(house: House) -> None:
    for run_id, symbols in RUNS.items():
        house.publish(candidates=symbols, as_of=AS_OF, run_id=run_id)


def finish(house: House) -> None:
    """Both runs end granted, and every service is done with everything; only what was no event is a dead letter."""
    for run_id in RUNS:
        verdict = house.verdict(run_id, timeout_s=120)
        assert (verdict["decision"], verdict["covered"]) == ("granted", 1.0), verdict
    assert asyncio.run(client.settle(house.url, timeout_s=60)) == []
    assert [
        letter for letter in house.dead_letters() if GARBAGE.encode() not in b64decode(letter["fields"]["data"])
    ] == []


def torment(house: House, kinds: Sequence[str], seed: int) -> None:
    chance = random.Random(seed)
    for kind in kinds:
        with suppress(redis.ConnectionError):  # the server was killed a moment ago
            FAULTS[kind](house, chance)
        time.sleep(chance.uniform(0.1, 0.8))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Catalog and features of a house that nothing befell."""
    with a_house(tmp_path_factory.mktemp("quiet") / "house", cache) as house:
        start_runs(house)
        finish(house)
        assert house.dead_letters() == []
        return left_by(house)


def left_by(house: House) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every instrument as it is now, without when, and for which of two runs at once, it was seen; and the features."""
    lake = Lakehouse(house.home.root)
    found = lake.catalog.at(pd.Timestamp.now("UTC"))
    times = [name for name in found.columns if isinstance(found[name].dtype, pd.DatetimeTZDtype)]
    catalog = found.drop(columns=[*times, "run_id"]).sort_values("symbol").reset_index(drop=True)
    return catalog, lake.features.matrix()


def check_that_nothing_is_left_of(kinds: Sequence[str], seed: int, folder: Path, cache: Path, quiet: object) -> None:
    with a_house(folder, cache) as house:
        start_runs(house)
        torment(house, kinds, seed)
        finish(house)
        house.asof("audit", "ledger")
        house.asof("audit", "pit")
        found = left_by(house)
    for one, other in zip(found, quiet, strict=True):  # type: ignore[call-overload]
        pd.testing.assert_frame_equal(one, other)
    assert sorted(found[0]["symbol"]) == sorted({symbol for symbols in RUNS.values() for symbol in symbols})
    assert not found[1].empty


def test_faults_of_every_kind_leave_the_catalog_and_features_of_a_quiet_house(
    tmp_path: Path, cache: Path, quiet: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    kinds = random.Random(11).sample([*FAULTS], k=len(FAULTS))
    check_that_nothing_is_left_of(kinds, 11, tmp_path / "house", cache, quiet)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", FAULTS)
def test_faults_of_one_kind_leave_the_catalog_and_features_of_a_quiet_house(
    kind: str, seed: int, tmp_path: Path, cache: Path, quiet: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    check_that_nothing_is_left_of([kind] * 3, seed, tmp_path / "house", cache, quiet)


def test_a_server_that_is_full_past_the_deadline_blocks_the_promotion(tmp_path: Path, cache: Path) -> None:
    with a_house(tmp_path / "full", cache) as house:
        house.publish(candidates=RUNS["left"], as_of=AS_OF, run_id="left", deadline_s=4)
        house.wait(lambda: house.home.run("left").manifest.exists(), "the run to be opened")
        house.redis().config_set("maxmemory", 1)
        time.sleep(6)
        house.redis().config_set("maxmemory", 0)
        verdict = house.verdict("left", timeout_s=60)
        assert verdict["decision"] == "blocked", verdict
        assert {gap["symbol"] for gap in verdict["gaps"]} <= set(RUNS["left"])
        assert verdict["gaps"]
        house.asof("audit", "ledger")


def test_flushall_in_the_middle_of_a_run_ends_in_a_verdict_that_names_what_is_missing(
    tmp_path: Path, cache: Path
) -> None:
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
