"""Runs over stored bars, and strict runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from structlog.testing import capture_logs

from services.auditor.domain.assess import assess
from services.auditor.domain.manifest import DeadlinePolicy, open_run
from services.auditor.domain.notes import note_of
from services.auditor.domain.tally import fold
from shared.events import Event, FileRef, RunCandidates, Versions
from tests.integration.features_house import START, FeaturesHouse, good, staged
from tests.unit.features import made


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def test_stored_bars_are_rated_at_once_and_what_is_missing_is_named(house):
    frames = good("X:A", "X:B", "X:C")
    house.write_bars({name: frames[name] for name in ("X:A", "X:C")})
    (said,) = house.open(candidates=frames, bars="lakehouse")
    assert [one.symbol for one in said.staged] == ["X:A", "X:C"]
    rejected = said.rejected["X:B"]
    assert (rejected.stage, rejected.failure.code) == ("bars", "not_stored")
    assert "no 1d bars of X:B are stored" in rejected.failure.message
    assert "without --bars lakehouse" in rejected.failure.fix


def test_a_run_of_which_no_bar_is_stored_names_every_symbol(house):
    said = house.open(candidates=["X:A", "X:B", "X:C"], bars="lakehouse", batch_size=2)
    assert [sorted(one.rejected) for one in said] == [["X:A", "X:B"], ["X:C"]]
    assert [one.batch for one in said] == [0, 1]


def test_a_redelivered_lakehouse_run_reads_the_versions_that_it_pinned(house):
    frames = good("X:A", "X:B", "X:C")
    house.write_bars({name: frame.iloc[:70] for name, frame in frames.items()})
    first = house.open(candidates=frames, bars="lakehouse", batch_size=2)
    (house.home.run("r1").staged_parts / "1.json").unlink()
    house.write_bars(frames)
    assert house.open(candidates=frames, bars="lakehouse", batch_size=2) == first


def test_a_damaged_table_of_one_symbol_stops_no_other(house):
    """Neither when the run is opened nor when it comes to that symbol's batch."""
    frames = good("X:A", "X:BAD", "X:C", "X:LATER")
    house.write_bars(frames)
    for manifest in (house.home.bars_table("1d", "X:BAD") / "manifests").glob("0*.json"):
        manifest.write_bytes(manifest.read_bytes()[:-9])
    said = house.open(candidates=frames, bars="lakehouse", batch_size=2)
    assert [one.symbol for each in said for one in each.staged] == ["X:A", "X:C", "X:LATER"]
    failure = said[0].rejected["X:BAD"].failure
    assert (failure.code, said[0].rejected["X:BAD"].stage) == ("integrity", "bars")
    for manifest in (house.home.bars_table("1d", "X:LATER") / "manifests").glob("0*.json"):
        manifest.write_bytes(b"{}")
    (house.home.run("r1").staged_parts / "1.json").unlink()
    again = house.open(candidates=frames, bars="lakehouse", batch_size=2)
    assert again[0] == said[0]
    assert again[1].rejected["X:LATER"].failure.code == "integrity"
    assert [one.symbol for one in again[1].staged] == ["X:C"]


def test_a_run_over_stored_bars_knows_when_each_was_known(house):
    """The close of the session comes from what was stored with the bars."""
    frames = {"X:A": made.bars(60, start="2021-01-04", freq="B")}
    told = {"timezone": "America/New_York", "session": "0930-1600", "calendar": "XNYS"}
    bars = house.write_bars(frames, **told)
    (stored,) = house.open("r1", frames, bars="lakehouse")
    house.open("r2", frames)
    hydrated = house.rate(house.hydrated(bars, "r2"))
    rows, others = staged(house, stored), staged(house, hydrated)
    pd.testing.assert_frame_equal(rows, others)
    last = rows.set_index("ts").loc["2021-03-26", "available_at"]
    assert last == pd.Timestamp("2021-03-26T20:00:00Z")


def test_a_hydrating_run_does_not_read_stored_bars_by_itself(house):
    house.write_bars(good("X:A"))
    assert house.open(candidates=["X:A"]) == []


def test_a_strict_run_ends_with_its_first_failure_and_stages_nothing_of_that_batch(house):
    frames = good("X:A", "X:BAD", "X:WORSE", "X:Z")
    frames["X:BAD"] = made.with_value(frames["X:BAD"], 40, close=-1.0)
    frames["X:WORSE"] = made.with_value(frames["X:WORSE"], 40, high=np.inf)
    house.open(candidates=frames, strict=True)
    event = house.hydrated(house.write_bars(frames))
    with capture_logs() as logs:
        said = house.rate(event)
    assert said.staged == ()
    assert said.file is None
    assert sorted(said.rejected) == ["X:BAD", "X:WORSE"]
    assert said.rejected["X:BAD"].failure.message.startswith(
        "fatal: the run is strict and X:BAD failed: a price that is not positive and finite on 2021-02-19"
    )
    assert not said.rejected["X:WORSE"].failure.message.startswith("fatal")
    (line,) = [line for line in logs if line["log_level"] == "critical"]
    assert (line["event"], line["symbol"], line["code"]) == ("strict_run_aborted", "X:BAD", "bad_price")
    assert list(house.home.run("r1").staged_parts.glob("*.parquet")) == []
    assert house.rate(event) == said


def test_a_strict_run_without_failures_is_like_any_other(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames, strict=True)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    assert [one.symbol for one in said.staged] == ["X:A", "X:B"]


def test_a_strict_lakehouse_run_rates_no_batch_after_the_one_that_failed(house):
    frames = good("X:A", "X:B", "X:C", "X:D", "X:E")
    house.write_bars({name: frame for name, frame in frames.items() if name != "X:C"})
    said = house.open(candidates=frames, bars="lakehouse", strict=True, batch_size=2)
    assert [one.batch for one in said] == [0, 1]
    assert [one.symbol for one in said[0].staged] == ["X:A", "X:B"]
    assert list(said[1].rejected) == ["X:C"]
    assert said[1].staged == ()
    assert "fatal: the run is strict and X:C failed" in said[1].rejected["X:C"].failure.message
    assert house.open(candidates=frames, bars="lakehouse", strict=True, batch_size=2) == said


def test_the_auditor_ends_a_strict_run_by_what_the_features_service_says(house):
    """Its coverage has the fatal words at the symbol that failed, and everything else as aborted."""
    frames = good("X:A", "X:BAD")
    frames["X:BAD"] = made.with_value(frames["X:BAD"], 40, close=-1.0)
    house.open(candidates=frames, strict=True)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    nowhere = FileRef(path="runs/r1/candidates.json", sha256="0" * 64)
    manifest = open_run(
        RunCandidates(candidates=[*frames, "X:LATER"], run_id="r1", strict=True, stages=("bars", "ratings")),
        run_id="r1",
        event_id="0" * 32,
        event_time=START,
        now=START,
        base=Versions(features=0, catalog=0),
        candidates=nowhere,
        deadlines=DeadlinePolicy(base_s=60, per_symbol_s=1, longest_s=120),
        default_exchange=None,
    )
    tally = fold([note_of(Event.of(said, source="features", time=START))])
    assert tally.failed(manifest)
    coverage = assess(manifest, tally, closed_at=START, closed_by="strict")
    assert {gap.symbol: gap.code for gap in coverage.gaps} == {
        "X:A": "aborted",
        "X:BAD": "bad_price",
        "X:LATER": "aborted",
    }
    (bad,) = [gap for gap in coverage.gaps if gap.symbol == "X:BAD"]
    assert bad.cause.startswith("fatal: the run is strict and X:BAD failed")
