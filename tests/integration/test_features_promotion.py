"""Staged rows to the master feature store: one commit, exactly what was decided, whatever else happens."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from services.features.adapters.reader import FeatureReader
from services.features.domain.ratings.frames import TechnicalRatings
from shared.errors import IntegrityError, TransientError
from shared.events import Versions
from tests.integration.features_house import FeaturesHouse, good, holds
from tests.unit.features import made
from tests.unit.features.made import instant


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


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
        # Well-formed rows of the right symbol, only not those that were decided on.
        rows = pq.read_table(path)
        rows = rows.set_column(rows.column_names.index("rsi"), "rsi", [[50.0] * len(rows)])
        pq.write_table(rows, path)
    with pytest.raises(IntegrityError, match="not the file that was decided on" if damage == "changed" else "is gone"):
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
    assert house.promote(house.decided("r1", [said], decision="blocked")) is None
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
