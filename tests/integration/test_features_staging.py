"""Bars to staged rows on a real disk: the same bytes for the same bars, and a name for every symbol that fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.validation_features import FEATURES
from shared.bars import BarsTable
from shared.errors import ContractError, IntegrityError, TransientError
from shared.files import sha256_file
from tests.integration.features_house import FeaturesHouse, good, staged
from tests.unit.features import made


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def test_staged_rows_are_the_ratings_of_the_bars_with_the_instant_when_each_was_known(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    assert [one.symbol for one in said.staged] == ["X:A", "X:B"]
    assert said.rejected == {}
    rows = staged(house, said)
    assert said.file.rows == len(rows) == 160
    assert said.file.sha256 == sha256_file(house.home.root / said.file.path)
    for symbol, frame in frames.items():
        own = rows[rows["symbol"] == symbol].set_index("ts")
        expected = TechnicalRatings.compute(frame)
        for name in FEATURES:
            assert np.array_equal(own[name], expected[name], equal_nan=True), name
        assert (own["available_at"] == own.index + pd.Timedelta(days=1)).all()
    assert set(rows["source"]) == {"local"}
    assert set(rows["rules"]) == {"screener"}
    info = BarsTable.open(house.home.bars_table("1d", "X:A")).info()
    assert said.staged[0].bars_sha256 == info.sha256
    assert said.staged[0].last_bar == info.last_bar.to_pydatetime()


def test_staging_twice_gives_the_same_bytes_and_the_same_event(tmp_path):
    said, files = [], []
    for root in ("one", "two"):
        house = FeaturesHouse(tmp_path / root)
        frames = good("X:A", "X:B")
        house.open(candidates=[{"symbol": "X:A", "metadata": {"Recommend.All": 0.5}}, "X:B"])
        event = house.hydrated(house.write_bars(frames))
        said.append(house.rate(event))
        files.append((house.home.root / said[-1].file.path).read_bytes())
        before = house.contents()
        assert house.rate(event) == said[-1]
        assert house.contents() == before
    assert said[0] == said[1]
    assert files[0] == files[1]


def test_a_batch_redelivered_after_a_crash_between_file_and_receipt_says_the_same(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    event = house.hydrated(house.write_bars(frames))
    said = house.rate(event)
    whole = house.contents()
    (house.home.run("r1").staged_parts / "0.json").unlink()
    assert house.rate(event) == said
    assert house.contents() == whole


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_batch_whose_staged_file_was_lost_or_changed_is_made_again(house, damage):
    frames = good("X:A")
    house.open(candidates=frames)
    event = house.hydrated(house.write_bars(frames))
    said = house.rate(event)
    whole = house.contents()
    path = house.home.root / said.file.path
    path.unlink() if damage == "gone" else path.write_bytes(b"PAR1")
    assert house.rate(event) == said
    assert house.contents() == whole


def test_another_event_of_the_same_batch_is_rated_anew(house):
    """A fetcher that was killed may hydrate a batch again, and find more bars than before."""
    frames = good("X:A")
    house.open(candidates=frames)
    first = house.rate(house.hydrated(house.write_bars({"X:A": frames["X:A"].iloc[:70]})))
    second = house.rate(house.hydrated(house.write_bars(frames)))
    assert (first.staged[0].rows, second.staged[0].rows) == (70, 80)
    assert len(staged(house, second)) == 80


def test_a_bad_symbol_is_named_quarantined_with_its_reason_and_stops_no_other(house):
    frames = good("X:A", "X:BAD", "X:C")
    frames["X:BAD"] = made.with_value(frames["X:BAD"], 40, close=-1.0)
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    assert [one.symbol for one in said.staged] == ["X:A", "X:C"]
    assert set(staged(house, said)["symbol"]) == {"X:A", "X:C"}
    rejected = said.rejected["X:BAD"]
    assert (rejected.stage, rejected.failure.code) == ("validation", "bad_price")
    path = house.home.root / rejected.quarantine.path
    assert rejected.quarantine.sha256 == sha256_file(path)
    rows = pd.read_parquet(path)
    assert len(rows) == 80
    assert rows["reason"].notna().sum() == 1
    assert rows.loc[rows["reason"].notna(), "close"].tolist() == [-1.0]
    assert b"bad_price" in pq.read_schema(path).metadata[b"asof.reason"]


def test_bars_that_were_set_aside_are_kept_with_their_reason(house):
    frames = {"X:A": made.with_value(good("X:A")["X:A"], 40, open=0, high=0, low=0, close=0, volume=0)}
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    assert said.warnings["X:A"] == ("bars set aside, all zero: 1 (2021-02-19)",)
    aside = pd.read_parquet(house.home.quarantine / "r1" / "0" / "set-aside.parquet")
    assert aside[["symbol", "reason"]].values.tolist() == [["X:A", "all zero"]]


def test_bars_that_are_not_the_announced_ones_are_refused_by_name(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    bars = house.write_bars(frames)
    lying = bars[0].model_copy(update={"sha256": "0" * 64})
    said = house.rate(house.hydrated([lying, bars[1]]))
    assert [one.symbol for one in said.staged] == ["X:B"]
    assert said.rejected["X:A"].failure.code == "integrity"
    assert said.rejected["X:A"].stage == "bars"


def test_damaged_bars_are_refused_by_name(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    bars = house.write_bars(frames)
    for segment in house.home.bars_table("1d", "X:A").rglob("*.parquet"):
        segment.write_bytes(segment.read_bytes()[:-20])
    said = house.rate(house.hydrated(bars))
    assert [one.symbol for one in said.staged] == ["X:B"]
    assert said.rejected["X:A"].failure.code == "integrity"


def test_a_time_zone_that_is_none_is_a_warning_of_its_symbol_and_stops_no_other(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    odd = house.write_bars({"X:A": frames["X:A"]}, timezone="Mars/Olympus", session=None)
    said = house.rate(house.hydrated([*odd, *house.write_bars({"X:B": frames["X:B"]})]))
    assert [one.symbol for one in said.staged] == ["X:A", "X:B"]
    assert "'Mars/Olympus' is no time zone" in said.warnings["X:A"][0]
    rows = staged(house, said)
    known = rows[rows["symbol"] == "X:A"].set_index("ts")["available_at"]
    assert (known == known.index + pd.Timedelta(hours=38)).all()


def test_a_version_that_was_never_written_is_refused_by_name(house):
    frames = good("X:A", "X:B")
    house.open(candidates=frames)
    bars = house.write_bars(frames)
    said = house.rate(house.hydrated([bars[0].model_copy(update={"table_version": 9}), bars[1]]))
    assert said.rejected["X:A"].failure.code == "not_found"


def test_a_batch_of_nothing_but_failures_stages_no_file(house):
    frames = {"X:A": made.from_closes([1.0, 1.01] * 30 + [50.0] * 20, start="2021-01-10")}
    house.open(candidates=frames)
    said = house.rate(house.hydrated(house.write_bars(frames)))
    assert said.file is None
    assert said.staged == ()
    failure = said.rejected["X:A"].failure
    assert failure.code == "toxic"
    assert "asof adjust X:A --date 2021-03-11 --factor" in failure.message
    assert failure.fix is None
    assert house.rate(house.hydrated(house.write_bars({}), batch=0)) is None


def test_an_older_version_of_the_bars_is_read_as_it_was(house):
    """The event names a version: bars that came since do not reach the run."""
    frames = good("X:A")
    house.open(candidates=frames)
    old = house.write_bars({"X:A": frames["X:A"].iloc[:70]})
    house.write_bars(frames)
    assert house.rate(house.hydrated(old)).staged[0].rows == 70


def test_revised_history_is_said(house):
    frames = good("X:A")
    house.write_bars(frames)
    house.open(candidates=frames)
    revised = made.with_value(frames["X:A"], 10, volume=1.0)
    said = house.rate(house.hydrated(house.write_bars({"X:A": revised})))
    assert "history revised upstream: 1 stored bars changed" in said.warnings["X:A"][0]


def test_a_batch_of_a_run_that_is_not_open_yet_is_tried_again(house):
    with pytest.raises(TransientError, match="r9 is not open yet"):
        house.rate(house.hydrated(house.write_bars(good("X:A")), "r9"))


def test_a_batch_of_another_interval_than_its_run_is_refused(house):
    house.open(interval="1h")
    with pytest.raises(ContractError, match="of 1h bars"):
        house.rate(house.hydrated(house.write_bars(good("X:A"))))


def test_a_run_without_ratings_computes_nothing(house):
    house.open(stages=("metadata", "bars"))
    assert house.rate(house.hydrated(house.write_bars(good("X:A")))) is None
    assert list(house.home.run("r1").staged_parts.glob("*.parquet")) == []


def test_the_same_run_id_with_other_content_is_refused_and_the_first_stays(house):
    house.open(candidates=["X:A"])
    before = house.contents()
    house.open(candidates=["X:A"])
    with pytest.raises(ContractError, match="r1 exists with other content"):
        house.open(candidates=["X:B"])
    assert house.contents() == before


def test_no_candidates_are_refused(house):
    with pytest.raises(ContractError, match="asof refresh"):
        house.open(candidates=[])


def test_two_replicas_that_open_a_run_at_once_agree_on_its_record(house, monkeypatch):
    """The bars' versions are pinned by the first of them; what the other one saw meanwhile does not count."""
    frames = good("X:A")
    house.write_bars(frames)
    house.open(candidates=["X:A"], bars="lakehouse")
    late = house.workspace.record("r1").model_copy(update={"pins": {"X:A": 2}})
    # The other replica looked before the first one had written.
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "run.json" and exists(path))
    assert house.workspace.open(late).pins == {"X:A": 1}
    assert not list(house.home.run("r1").staged_parts.glob(".*"))


def test_a_damaged_record_is_an_integrity_error(house):
    house.open()
    (house.home.run("r1").staged_parts / "run.json").write_text("{}")
    with pytest.raises(IntegrityError, match="no record of a run"):
        house.workspace.record("r1")


def test_a_screeners_value_is_a_row_of_its_own_behind_the_closed_bars(house):
    seen = "2021-03-31T12:00:00Z"
    sent = [{"symbol": "X:A", "metadata": {"Recommend.All": 0.5, "RSI": 40.0}, "observed_at": seen}]
    house.open(candidates=sent)
    rows = staged(house, house.rate(house.hydrated(house.write_bars(good("X:A")))))
    (row,) = rows[rows["source"] == "screener"].to_dict("records")
    assert row["ts"] == row["available_at"] == pd.Timestamp(seen)
    assert (row["recommend_all"], row["rsi"]) == (0.5, 40.0)
    assert np.isnan(row["adx"])
    assert len(rows) == 81


def test_current_values_enter_no_other_rules_rows(house):
    house.open(candidates=[{"symbol": "X:A", "metadata": {"Recommend.All": 0.5}}], rules="pine_v3")
    rows = staged(house, house.rate(house.hydrated(house.write_bars(good("X:A")))))
    assert set(rows["source"]) == {"local"}


def test_garbage_in_a_candidates_metadata_is_a_warning_and_its_ratings_are_computed(house):
    house.open(candidates=[{"symbol": "X:A", "metadata": {"Recommend.All": "strong buy", "tick_size": 10**400}}])
    said = house.rate(house.hydrated(house.write_bars(good("X:A"))))
    assert [one.symbol for one in said.staged] == ["X:A"]
    assert "'strong buy', which is no number" in said.warnings["X:A"][0]


def test_a_candidates_tick_decides_what_is_outside_a_bars_range(house):
    frames = {"X:A": made.with_value(good("X:A")["X:A"], 40, high=100.0, low=99.0, open=98.9, close=99.5)}
    bars = house.write_bars(frames)
    house.open("r1", [{"symbol": "X:A", "metadata": {"tick_size": 0.25}}])
    assert house.rate(house.hydrated(bars, "r1")).warnings == {}
    house.open("r2", [{"symbol": "X:A", "metadata": {"tick_size": 0.05}}])
    assert "outside low to high" in house.rate(house.hydrated(bars, "r2")).warnings["X:A"][0]


def test_the_receipt_is_plain_json(house):
    frames = good("X:A")
    house.open(candidates=frames)
    event = house.hydrated(house.write_bars(frames))
    house.rate(event)
    receipt = json.loads((house.home.run("r1").staged_parts / "0.json").read_text())
    assert receipt["event_id"] == event.id
