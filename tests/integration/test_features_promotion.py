"""Staged rows to the master feature store: one commit, exactly what was decided, whatever else happens."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from services.features.adapters.reader import FeatureReader
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.validation_features import FEATURES
from shared import files
from shared.errors import IntegrityError, TransientError
from shared.events import Versions
from tests.integration.features_house import FeaturesHouse
from tests.unit.features import made
from tests.unit.features.made import instant


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def good(*names, count=80, shift=0):
    return {name: made.bars(count, seed=sum(map(ord, name)) + shift, start="2021-01-10", scale=50.0) for name in names}


def holds(matrix, frames, rules="screener"):
    """The matrix has exactly these bars' ratings."""
    assert sorted(set(matrix.columns.get_level_values("symbol"))) == sorted(frames)
    for symbol, frame in frames.items():
        expected = TechnicalRatings.compute(frame, rules=rules)
        own = matrix[symbol].loc[frame.index]
        for name in FEATURES:
            assert np.array_equal(own[name], expected[name], equal_nan=True), (symbol, name)
    return True


def test_promoting_brings_the_decided_rows_into_the_master_in_one_commit(house):
    frames = good("X:A", "X:B")
    said, promoted = house.run("r1", frames)
    assert (promoted.feature_version, promoted.parent, promoted.symbols, promoted.rows) == (1, 0, 2, 160)
    assert promoted.catalog_version == 7
    assert house.table().versions() == [0, 1]
    assert house.table().tags() == {"prod": 1}
    meta = house.table().load().meta
    assert (meta["run_id"], meta["catalog_version"], meta["rules"]) == ("r1", 7, "screener")
    assert meta["rules_version"] == said.rules.version
    assert holds(house.matrix(), frames)


def test_promoting_twice_is_one_commit_and_the_same_words(house):
    frames = good("X:A")
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    event = house.decided("r1", [said])
    first = house.promote(event)
    before = {path: digest for path, digest in house.contents().items() if "/features/" in path}
    assert house.promote(event) == first
    assert house.table().versions() == [0, 1]
    assert {path: digest for path, digest in house.contents().items() if "/features/" in path} == before


def test_promoting_again_after_another_run_changes_nothing(house):
    """A redelivery that comes late must not put older rows over newer ones."""
    frames = good("X:A")
    house.open("r1", frames)
    first = house.decided("r1", [house.rate(house.hydrated(house.write_bars(frames), "r1"))])
    promoted = house.promote(first)
    later = good("X:A", count=81)
    house.run("r2", later)
    assert house.promote(first) == promoted
    assert house.table().versions() == [0, 1, 2]
    assert holds(house.matrix(), later)


def test_promoting_again_after_a_compaction_finds_the_run(house):
    frames = good("X:A")
    house.open("r1", frames)
    first = house.decided("r1", [house.rate(house.hydrated(house.write_bars(frames), "r1"))])
    promoted = house.promote(first)
    house.table().compact()
    newest = house.table().load().version
    assert house.promote(first) == promoted
    assert house.table().load().version == newest


def test_promoting_again_after_a_rollback_does_not_undo_it(house):
    frames, later = good("X:A"), good("X:A", count=81)
    house.run("r1", frames)
    bars = house.write_bars(later)
    house.open("r2", later)
    second = house.decided("r2", [house.rate(house.hydrated(bars, "r2"))], base=Versions(features=1, catalog=7))
    promoted = house.promote(second)
    house.table().restore(1, base_version=2)
    assert house.promote(second) == promoted
    assert house.table().load().version == 3
    assert holds(house.matrix(), frames)


def test_a_run_over_other_symbols_leaves_the_rest_of_the_master_as_it_was(house):
    house.run("r1", good("X:A", "X:B"))
    segments = {segment.file for segment in house.table().load().segments}
    house.run("r2", good("X:C"))
    assert segments <= {segment.file for segment in house.table().load().segments}
    assert holds(house.matrix(), good("X:A", "X:B", "X:C"))


def test_two_runs_over_overlapping_symbols_end_with_the_rows_of_the_last(house):
    first, second = good("X:A", "X:B"), good("X:B", "X:C", shift=9)
    house.open("r1", first)
    house.open("r2", second)
    one = house.rate(house.hydrated(house.write_bars(first), "r1"))
    # The second run reads its own version of X:B's bars, all of which were revised.
    two = house.rate(house.hydrated(house.write_bars(second), "r2"))
    house.promote(house.decided("r1", [one]))
    house.promote(house.decided("r2", [two]))
    assert holds(house.matrix(), {**first, **second})
    assert holds(house.matrix(version=1), first)
    assert holds(house.matrix(run_id="r1"), first)
    assert holds(house.matrix(run_id="r2"), second)


def test_only_the_symbols_that_were_granted_enter(house):
    frames = good("X:A", "X:B", "X:C")
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    promoted = house.promote(house.decided("r1", [said], ["X:A", "X:C"]))
    assert promoted.symbols == 2
    assert holds(house.matrix(), {name: frames[name] for name in ("X:A", "X:C")})


def test_a_symbol_that_is_granted_and_was_never_staged_is_refused(house):
    frames = good("X:A")
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    with pytest.raises(IntegrityError, match="X:GHOST is granted and stands in no staged file"):
        house.promote(house.decided("r1", [said], ["X:A", "X:GHOST"]))
    assert house.table().versions() == [0]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_staged_file_that_changed_after_the_decision_is_refused_and_nothing_moves(house, damage):
    house.run("r0", good("X:Z"))
    before = {path: digest for path, digest in house.contents().items() if path.startswith("lakehouse/features")}
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    bars = house.write_bars(frames)
    said = house.rate(house.hydrated(bars[:1], batch=0))
    other = house.rate(house.hydrated(bars[1:], batch=1))
    event = house.decided("r1", [said, other])
    path = house.home.root / other.file.path
    if damage == "gone":
        path.unlink()
    else:
        # Well-formed rows, only not those that were decided on.
        path.write_bytes((house.home.root / said.file.path).read_bytes())
    with pytest.raises(IntegrityError):
        house.promote(event)
    after = {path: digest for path, digest in house.contents().items() if path.startswith("lakehouse/features")}
    assert after == before


def test_a_reference_that_leads_out_of_the_house_is_refused(house, tmp_path):
    frames = good("X:A")
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    outside = tmp_path / "0.parquet"
    outside.write_bytes((house.home.root / said.file.path).read_bytes())
    event = house.decided("r1", [said], staged=(said.file.model_copy(update={"path": "../0.parquet"}),))
    with pytest.raises(Exception, match="outside the allowed folders"):
        house.promote(event)


def test_a_blocked_decision_moves_nothing_and_the_runs_rows_can_be_read(house):
    house.run("r0", good("X:A"))
    before = {path: digest for path, digest in house.contents().items() if path.startswith("lakehouse/features")}
    frames = good("X:A", "X:B", shift=5)
    house.open("r1", frames)
    said = house.rate(house.hydrated(house.write_bars(frames), "r1"))
    assert house.promote(house.decided("r1", [said], decision="blocked", staged=(), symbols=())) is None
    after = {path: digest for path, digest in house.contents().items() if path.startswith("lakehouse/features")}
    assert after == before
    assert holds(house.matrix(run_id="r1"), frames)


def test_a_decision_on_a_run_that_is_not_open_here_is_tried_again(house):
    with pytest.raises(TransientError, match="r7 is not open yet"):
        house.promote(house.decided("r7", [], decision="blocked"))


def test_of_a_symbol_in_two_batches_the_later_one_counts(house):
    """A retry's batches come later, whatever order they arrive in and the event names them in."""
    frames = good("X:A", "X:B")
    old = {name: frame.iloc[:70] for name, frame in frames.items()}
    house.open(candidates=frames)
    early = house.rate(house.hydrated(house.write_bars(old), batch=2))
    late = house.rate(house.hydrated(house.write_bars({"X:B": frames["X:B"]}), batch=10))
    for order in ([early, late], [late, early]):
        promoted = house.promote(house.decided("r1", order))
    assert promoted.rows == 150
    expected = {"X:A": old["X:A"], "X:B": frames["X:B"]}
    assert holds(house.matrix(), expected)
    assert holds(house.matrix(run_id="r1"), expected)


def test_strict_scope_keeps_a_matrix_of_only_the_runs_symbols(house):
    house.run("r1", good("X:A", "X:B"))
    later = good("X:B", "X:C", shift=3)
    house.run("r2", later, strict_scope=True)
    assert holds(house.matrix(), later)
    assert holds(house.matrix(version=1), good("X:A", "X:B"))


def test_rules_have_tables_of_their_own(house):
    frames = good("X:A")
    house.run("r1", frames)
    house.run("r2", frames, rules="pine_v3")
    assert house.table("screener").versions() == [0, 1]
    assert holds(house.matrix(), frames)
    assert holds(house.matrix(rules="pine_v3"), frames, "pine_v3")


def test_what_a_screener_showed_stays_when_a_later_run_replaces_the_symbols_rows(house):
    frames = good("X:A")

    def candidates(value, at):
        return [{"symbol": "X:A", "metadata": {"Recommend.All": value}, "observed_at": at}]

    for number, (value, at) in enumerate([(0.5, "2021-03-30T12:00:00Z"), (0.25, "2021-03-31T12:00:00Z")]):
        run_id = f"r{number}"
        bars = house.write_bars(frames)
        house.open(run_id, candidates(value, at))
        house.promote(house.decided(run_id, [house.rate(house.hydrated(bars, run_id))]))
    shown = house.table().load().read(["symbol", "ts", "recommend_all", "source"]).to_pandas()
    shown = shown[shown["source"] == "screener"]
    assert shown["recommend_all"].tolist() == [0.5, 0.25]
    assert FeatureReader(house.home).current().loc["X:A", "recommend_all"] == 0.25
    assert holds(house.matrix(), frames)
    house.run("r2", frames)  # a run that brings no screener values
    assert FeatureReader(house.home).current().loc["X:A", "recommend_all"] == 0.25
    assert len(house.table().load().read(["source"])) == 82


def test_parity_stands_in_the_manifest_with_one_line_that_sums_it_up(house):
    """The screener was read after the close in New York on Wednesday 2021-03-31 and shows that day's bar."""
    frames = {name: made.bars(80, seed=n, start="2020-12-10", freq="B") for n, name in enumerate(["X:A", "X:B"])}
    local = TechnicalRatings.compute(frames["X:A"]).loc["2021-03-31"]
    shown = {"Recommend.MA": local["recommend_ma"], "Recommend.Other": local["recommend_other"]}
    sent = [
        {"symbol": "X:A", "metadata": {**shown, "Recommend.All": local["recommend_all"]}},
        {"symbol": "X:B", "metadata": {"Recommend.All": -1.0}},
    ]
    sent = [{**one, "observed_at": "2021-03-31T22:00:00Z"} for one in sent]
    house.open(candidates=sent, as_of=instant("2021-04-01T00:00"))
    bars = house.write_bars(frames, timezone="America/New_York", session="0930-1600", calendar="XNYS")
    said = [house.rate(house.hydrated(bars, batch=batch)) for batch in (0, 1)]  # rated twice: counted once
    house.promote(house.decided("r1", said))
    parity = house.table().load().meta["parity"]
    assert parity["badge"] == "parity 1e-6: 1 of 2"
    assert parity["differences"]["X:A"] == {"recommend_ma": 0.0, "recommend_other": 0.0, "recommend_all": 0.0}
    assert list(parity["differences"]["X:B"]) == ["recommend_all"]


# -- the plain files


def test_the_plain_matrix_opens_in_pandas_and_duckdb_wide_and_in_utc(house):
    frames = good("X:A", "X:B")
    house.run("r1", frames)
    path = house.home.features_export
    wide = pd.read_parquet(path)
    assert str(wide.index.tz) == "UTC"
    assert wide.index.name == "ts"
    assert wide.columns.names == ["symbol", "feature"]
    assert holds(wide, frames)
    assert (wide["X:A", "available_at"] == wide.index + pd.Timedelta(days=1)).all()
    with duckdb.connect() as db:
        columns = [row[0] for row in db.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()]
        assert "('X:A', 'recommend_all')" in columns
        query = f"""SELECT "('X:B', 'rsi')" FROM '{path}' ORDER BY ts"""
        assert np.array_equal(
            db.execute(query).df().iloc[:, 0], TechnicalRatings.compute(frames["X:B"])["rsi"], equal_nan=True
        )


def test_the_plain_matrix_is_of_the_newest_version_and_says_which(house):
    house.run("r1", good("X:A"))
    later = good("X:A", "X:B", count=81)
    house.run("r2", later)
    path = house.home.features_export
    assert pq.read_schema(path).metadata[b"asof.version"] == b"2"
    assert holds(pd.read_parquet(path), later)


def test_a_merge_that_overtakes_an_export_is_exported_too(house, monkeypatch):
    """Of two writers of the plain file, the one that read the older version may finish last."""
    import services.features.adapters.store as module

    house.run("r1", good("X:A"))
    real, overtaken = module.wide_table, []

    def slow(rows):
        if not overtaken:
            overtaken.append(True)
            house.run("r2", good("X:B"))  # commits and exports while this export has read its rows
        return real(rows)

    monkeypatch.setattr(module, "wide_table", slow)
    house.store.export("1d", "screener")
    assert holds(pd.read_parquet(house.home.features_export), good("X:A", "X:B"))


def test_other_intervals_and_rules_have_no_plain_file(house):
    house.run("r1", good("X:A"), rules="pine_v3")
    assert not house.home.features_export.exists()


def test_the_runs_own_file_opens_in_pandas_and_holds_current_values_of_refused_symbols_too(house):
    frames = good("X:A", "X:BAD")
    frames["X:BAD"] = made.with_value(frames["X:BAD"], 40, close=-1.0)
    house.open(candidates=["X:A", {"symbol": "X:BAD", "metadata": {"Recommend.All": 0.5}}])
    said = house.rate(house.hydrated(house.write_bars(frames)))
    house.promote(house.decided("r1", [said], decision="blocked"))
    rows = pd.read_parquet(house.home.run("r1").features)
    assert rows.groupby("symbol", observed=True).size().to_dict() == {"X:A": 80, "X:BAD": 1}
    assert rows.loc[rows["symbol"] == "X:BAD", "source"].tolist() == ["screener"]


# -- several processes


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


def _rate(root, bars, barrier, results):
    house = FeaturesHouse(root)
    barrier.wait()
    results.put(house.rate(house.hydrated(bars)).model_dump_json())


def test_replicas_that_rate_the_same_batch_at_once_say_and_write_the_same(house):
    frames = good("X:A", "X:B", "X:C")
    house.open(candidates=frames)
    bars = house.write_bars(frames)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_rate, args=(house.home.root, bars, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    said = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(timeout=30)
    assert len(said) == 1
    names = sorted(path.name for path in house.home.run("r1").staged_parts.iterdir())
    assert names == ["0.json", "0.parquet", "run.json"]
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
    for step in range(100):
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
