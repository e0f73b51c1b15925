"""Several processes in one house, and processes that die: the master is whole, and each run is in it once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from shared import files
from tests.integration.features_house import FeaturesHouse, good, holds, said_by_replicas


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def _promote(root, run_id, barrier, results):
    house = FeaturesHouse(root)
    receipts = house.workspace.receipts(run_id)
    event = house.decided(run_id, [receipt.said for receipt in receipts])
    barrier.wait()
    results.put((run_id, house.promote(event).feature_version))


def test_processes_that_promote_at_once_all_get_in_and_each_run_once(house):
    """Four runs, each promoted by two replicas at the same moment."""
    runs = {f"r{number}": good(f"X:{'ABCD'[number]}", "X:SHARED", shift=number) for number in range(4)}
    for run_id, frames in runs.items():
        house.open(run_id, frames)
        house.rate(house.hydrated(house.write_bars(frames), run_id))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=_promote, args=(house.home.root, run_id, barrier, results))
        for run_id in runs
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    promoted = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert house.table().versions() == [0, 1, 2, 3, 4]
    assert len(set(promoted)) == 4
    assert house.table().tags() == {"prod": 4}
    order = [run_id for run_id, _ in sorted(set(promoted), key=lambda one: one[1])]
    expected = {symbol: frame for run_id in order for symbol, frame in runs[run_id].items()}
    assert holds(house.matrix(), expected)
    assert pq.read_schema(house.home.features_export).metadata[b"asof.version"] == b"4"


def test_replicas_that_rate_the_same_batch_at_once_say_and_write_the_same(house):
    frames = good("X:A", "X:B", "X:C")
    house.open(candidates=frames)
    bars = house.write_bars(frames)
    assert len(said_by_replicas(house, bars, "r1")) == 1
    names = sorted(path.name for path in house.home.run("r1").staged_parts.iterdir())
    assert names == ["0.histories", "0.json", "0.parquet", "run.json"]
    house.promote(house.decided("r1", [house.rate(house.hydrated(bars))]))
    assert holds(house.matrix(), frames)


@pytest.mark.parametrize("seed", range(3))
def test_batches_in_any_order_and_any_number_of_times_give_the_same_master(house, tmp_path, seed):
    frames = good(*(f"X:{name}" for name in "ABCDEF"))
    plain = FeaturesHouse(tmp_path / "plain")
    for one, order in ((plain, [0, 1, 2]), (house, [*random.Random(seed).choices([0, 1, 2], k=9), 2, 0, 1])):
        one.open(candidates=frames)
        bars = one.write_bars(frames)
        said = {batch: one.rate(one.hydrated(bars[2 * batch : 2 * batch + 2], batch=batch)) for batch in order}
        shuffled = random.Random(seed).sample(list(said.values()), k=3)
        one.promote(one.decided("r1", shuffled))
    assert house.table().load().read() == plain.table().load().read()
    assert house.home.features_export.read_bytes() == plain.home.features_export.read_bytes()
    assert house.home.run("r1").features.read_bytes() == plain.home.run("r1").features.read_bytes()


_STEPS = ("write_new", "write_atomic", "create_if_absent", "sync_dir", "sync_file")


def _merge_until(root, step):
    """Promote r2, and be killed just before the `step`-th thing that is done to the disk."""
    left = step

    def watched(real):
        def act(*given, **named):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*given, **named)

        return act

    modules = [module for name, module in sys.modules.items() if name.startswith(("shared", "services.features"))]
    for name in _STEPS:
        real = getattr(files, name)
        for module in modules:
            if getattr(module, name, None) is real:
                setattr(module, name, watched(real))
    house = FeaturesHouse(root)
    house.promote(house.decided("r2", [receipt.said for receipt in house.workspace.receipts("r2")]))


def test_a_merge_killed_at_any_step_leaves_the_old_version_whole_and_can_be_done_again(house):
    first, second = good("X:A", "X:B"), good("X:B", "X:C", shift=3)
    house.run("r1", first)
    house.open("r2", second)
    said = house.rate(house.hydrated(house.write_bars(second), "r2"))
    context = multiprocessing.get_context("fork")
    killed = {1: 0, 2: 0}
    step = 0
    while True:
        process = context.Process(target=_merge_until, args=(house.home.root, step))
        process.start()
        process.join(timeout=60)
        newest = house.table().load().version
        assert holds(house.matrix(), first if newest == 1 else {**first, **second})
        assert holds(house.matrix(version=1), first)
        assert house.table().verify() == []
        exported = pd.read_parquet(house.home.features_export)
        assert ("X:C" in exported) in ({False} if newest == 1 else {False, True})
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        # What comes after the commit begins anew: most of what came before it is not done again.
        step = 0 if newest == 2 and not killed[2] else step + 1
        killed[newest] += 1
    assert min(killed.values()) >= 3, "it was killed before the commit and after it"
    assert house.promote(house.decided("r2", [said])).feature_version == 2
    assert house.table().versions() == [0, 1, 2]
    assert house.table().tags() == {"prod": 2}
    assert holds(pd.read_parquet(house.home.features_export), {**first, **second})


def test_a_run_of_many_batches_is_still_one_commit(house):
    names = [f"X:S{number:03}" for number in range(24)]
    frames = good(*names)
    house.open(candidates=names)
    bars = house.write_bars(frames)
    said = [house.rate(house.hydrated(bars[start : start + 3], batch=start // 3)) for start in range(0, 24, 3)]
    promoted = house.promote(house.decided("r1", said))
    assert (promoted.symbols, promoted.feature_version) == (24, 1)
    assert holds(house.matrix(), frames)
