"""The book of adjustments on a real disk, and a split symbol on its way into the master."""

from __future__ import annotations

import json
import multiprocessing
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from services.features.adapters.adjustments import LakehouseAdjustments
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.validation_features import FEATURES
from shared.errors import ContractError, NotFoundError
from tests.integration.features_house import FeaturesHouse
from tests.unit.features import made
from tests.unit.features.made import instant

SPLIT = date(2021, 2, 19)
WHO = {"recorded_by": "mia", "reason": "16 into 1"}


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def bars():
    return made.bars(80, start="2021-01-10")


def after_split(factor=16.0):
    frame = bars()
    frame.iloc[40:, :4] *= factor
    frame.iloc[40:, 4] /= factor
    assert frame.index[40].date() == SPLIT
    return frame


def test_a_record_comes_back_as_it_was_written(house):
    assert house.adjustments.newest() == (0, ())
    made_ = house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    version, standing = LakehouseAdjustments(house.home, house.clock).newest()
    assert (version, standing) == (1, (made_,))
    assert made_.date == made_.known_at == instant("2021-02-19")
    assert made_.recorded_at == house.now


def test_an_adjustment_of_a_day_to_come_is_known_from_now_on(house):
    ahead = house.adjustments.record("X:A", date(2030, 1, 1), 0.5, **WHO)
    assert ahead.known_at == ahead.recorded_at


def test_recording_the_same_again_makes_no_version(house):
    one = house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    assert house.adjustments.record("X:A", SPLIT, 16.0, recorded_by="jo", reason="again") == one
    assert house.adjustments.newest()[0] == 1


def test_a_later_record_of_the_same_date_takes_the_place_of_the_earlier(house):
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    house.adjustments.record("X:A", SPLIT, 18.0, **WHO)
    house.adjustments.record("X:A", date(2021, 3, 1), 2.0, **WHO)
    assert [(one.date.month, one.factor) for one in house.adjustments.newest()[1]] == [(2, 18.0), (3, 2.0)]


def test_a_withdrawn_record_stands_no_more(house):
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    house.adjustments.withdraw("X:A", SPLIT, **WHO)
    house.adjustments.withdraw("X:A", SPLIT, **WHO)  # a command that is delivered twice
    assert house.adjustments.newest() == (2, ())
    with pytest.raises(NotFoundError, match="no adjustment of X:A at 2021-02-20"):
        house.adjustments.withdraw("X:A", date(2021, 2, 20), **WHO)
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    assert len(house.adjustments.newest()[1]) == 1


def test_a_book_can_be_read_as_it_was_when_a_batch_was_rated_with_it(house):
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    house.adjustments.withdraw("X:A", SPLIT, **WHO)
    versions = [LakehouseAdjustments(house.home, version=version).newest() for version in (0, 1, 2)]
    assert [len(standing) for _, standing in versions] == [0, 1, 0]


def test_what_is_no_adjustment_is_not_written(house):
    with pytest.raises(ContractError):
        house.adjustments.record("X:A", SPLIT, 0.0, **WHO)
    assert house.adjustments.newest()[0] == 0
    assert not (house.home.lakehouse / "adjustments").exists()


def _record(root, number, barrier):
    house = FeaturesHouse(root)
    barrier.wait()
    house.adjustments.record(f"X:S{number}", SPLIT, 2.0 + number, **WHO)


def test_processes_that_record_at_once_all_get_in(house):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(6)
    workers = [context.Process(target=_record, args=(house.home.root, n, barrier)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    version, standing = house.adjustments.newest()
    assert version == 6
    assert [one.factor for one in standing] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_a_split_symbol_enters_the_master_by_its_record_and_both_files_name_it(house):
    frames = {"X:A": after_split(), "X:B": made.bars(80, seed=5, start="2021-01-10")}
    stored = house.write_bars(frames)
    house.open("r1", frames)
    assert house.rate(house.hydrated(stored, "r1")).rejected["X:A"].failure.code == "toxic"

    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    again = house.rate(house.hydrated(stored[:1], "r1", batch=1))  # asof retry
    assert [one.symbol for one in again.staged] == ["X:A"]
    assert again.warnings["X:A"] == ("adjusted: 2021-02-19 × 16 (16 into 1; recorded by mia)",)
    stated = json.loads(pq.read_schema(house.home.root / again.file.path).metadata[b"asof.adjustments"])
    named = {"X:A": [{"date": "2021-02-19", "factor": 16.0, "reason": "16 into 1", "recorded_by": "mia"}]}
    assert stated == named
    assert house.workspace.receipt("r1", 1).adjustments_version == 1

    first = house.workspace.receipt("r1", 0).said
    house.promote(house.decided("r1", [first, again]))
    assert house.table().load().meta["adjustments"] == named
    matrix, expected = house.matrix(), TechnicalRatings.compute(bars())
    for name in FEATURES:
        np.testing.assert_allclose(matrix["X:A", name], expected[name], rtol=0, atol=1e-9)
    assert np.array_equal(matrix["X:A", "rsi"][:40], expected["rsi"][:40], equal_nan=True)


def test_rows_before_the_split_have_the_same_bytes_with_and_without_the_record(house):
    house.run("before", {"X:A": after_split().iloc[:40]}, as_of=instant("2021-03-01"))
    before = house.matrix()
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    house.run("after", {"X:A": after_split()})
    pd.testing.assert_frame_equal(house.matrix(end="2021-02-18"), before, check_exact=True, check_freq=False)


def test_a_batch_that_was_rated_says_the_same_when_it_is_redelivered_after_a_record(house):
    frames = {"X:A": after_split()}
    event = house.hydrated(house.write_bars(frames))
    house.open(candidates=frames)
    said = house.rate(event)
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    assert house.rate(event) == said


def test_bars_stay_as_they_were_traded(house):
    """An adjustment is no repair: the stored bars, and those in quarantine, are the exchange's."""
    from shared.bars import BarsTable

    frames = {"X:A": after_split()}
    house.write_bars(frames)
    house.adjustments.record("X:A", SPLIT, 16.0, **WHO)
    house.open(candidates=frames, bars="lakehouse")
    stored = BarsTable.open(house.home.bars_table("1d", "X:A")).read()
    pd.testing.assert_frame_equal(stored, frames["X:A"], check_freq=False, check_index_type=False)


def test_an_older_receipt_without_a_book_can_still_be_read(house):
    frames = {"X:A": bars()}
    house.open(candidates=frames)
    house.rate(house.hydrated(house.write_bars(frames)))
    path = house.home.run("r1").staged_parts / "0.json"
    receipt = json.loads(path.read_text())
    del receipt["adjustments_version"]
    path.write_text(json.dumps(receipt))
    assert house.workspace.receipt("r1", 0).adjustments_version == 0


def test_the_factor_is_not_known_before_it_is_recorded_as_known(house):
    known = instant("2021-03-15T09:00:00")
    house.adjustments.record("X:A", SPLIT, 16.0, known_at=known, **WHO)
    house.run("r1", {"X:A": after_split()})
    available = house.matrix()["X:A", "available_at"]
    assert (available[40:] >= known).all()
    assert (available[:40] == available.index[:40] + timedelta(days=1)).all()
