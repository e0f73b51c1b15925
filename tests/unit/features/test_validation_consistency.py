"""`FeatureConsistencyValidator`: features against their bars, their calendar and their own rules."""

from __future__ import annotations

import numpy as np
import pytest

from services.features.domain.bars_batch import BarsBatch
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.sessions import Market
from services.features.domain.validation import FeatureConsistencyValidator
from services.features.domain.validation_features import FEATURES, describe
from tests.unit.features import made


def features_of(frames, rules="screener"):
    batch = BarsBatch.of(frames)
    usable = ~np.isnan(batch.values[:, :4]).any(axis=1)
    parts = [TechnicalRatings.compute(frame, rules=rules) for frame in frames.values()]
    return describe(batch, usable, {name: np.concatenate([part[name] for part in parts]) for name in FEATURES})


def inspect(features, as_of="2021-03-10", **settings):
    return FeatureConsistencyValidator(made.stamp(as_of), **settings).inspect(features)


def test_sound_features_pass():
    assert inspect(features_of({"X:A": made.bars(60), "X:B": made.bars(60, seed=2)})) == {}


@pytest.mark.parametrize(
    ("as_of", "behind"),
    [
        # 20 sessions after 2021-06-30 (5 July is a holiday): the one of 2021-07-29, which closes at 20:00 UTC.
        ("2021-07-29T20:00:00", 0),
        ("2021-07-30T19:59:59", 0),
        ("2021-07-30T20:00:00", 21),
    ],
)
def test_more_than_twenty_closed_sessions_behind_is_stale(as_of, behind):
    frame = made.bars(40, start="2021-05-06", freq="B")
    assert str(frame.index[-1].date()) == "2021-06-30"
    found = inspect(features_of({"X:A": frame}), as_of, markets={"X:A": made.NEW_YORK})
    assert list(found) == (["X:A"] if behind else [])
    if behind:
        assert found["X:A"].code == "stale"
        assert found["X:A"].message.startswith("its newest bar is of 2021-06-30, 21 sessions before the run's as_of")


@pytest.mark.parametrize(("as_of", "stale"), [("2021-07-29", False), ("2021-07-30", True)])
def test_without_a_calendar_monday_to_friday_count(as_of, stale):
    frame = made.bars(40, start="2021-05-06", freq="B")
    assert bool(inspect(features_of({"X:A": frame}), as_of)) == stale


@pytest.mark.parametrize(("as_of", "stale"), [("2021-03-25", False), ("2021-03-26", True)])
def test_where_the_market_never_closes_every_day_counts(as_of, stale):
    frame = made.bars(60)
    assert str(frame.index[-1].date()) == "2021-03-04"
    assert bool(inspect(features_of({"X:A": frame}), as_of, markets={"X:A": made.CRYPTO})) == stale


def test_rows_after_the_last_bar_do_not_make_a_series_fresh():
    """A feed that goes on sending empty rows is stale from its last real bar on."""
    frame = made.bars(90)
    frame.iloc[60:, :4] = np.nan
    found = inspect(features_of({"X:A": frame}), "2021-04-04", markets={"X:A": made.CRYPTO})
    assert found["X:A"].code == "stale"
    assert "2021-03-04" in found["X:A"].message


@pytest.mark.parametrize(("absent", "refused"), [(0, False), (16, False), (17, True), (100, True)])
def test_more_than_a_tenth_of_nulls_after_the_warm_up_is_no_series(absent, refused):
    """160 rows count: those from the 29th bar on."""
    frame = made.bars(188)
    frame.iloc[range(40, 40 + absent), :4] = np.nan
    # Absent rows come before the newest bar and after the warm-up, so the count stays 160.
    found = inspect(features_of({"X:A": frame}), "2021-07-11")
    assert [finding.code for finding in found.values()] == (["nan_density"] if refused else [])
    if refused:
        assert len(found["X:A"].rows) == absent


def test_nulls_within_the_warm_up_are_no_fault():
    frame = made.bars(40)
    frame.iloc[2:20, :4] = np.nan
    assert inspect(features_of({"X:A": frame}), "2021-02-14") == {}


def test_the_density_of_one_symbol_is_not_that_of_its_neighbours():
    holes = made.bars(100, seed=3)
    holes.iloc[40:80, :4] = np.nan
    frames = {"X:A": made.bars(100), "X:B": holes, "X:C": made.bars(5), "X:D": made.bars(100, seed=4)}
    found = inspect(features_of(frames), "2021-04-15", markets=dict.fromkeys(frames, Market()))
    assert {symbol: finding.code for symbol, finding in found.items()} == {"X:B": "nan_density", "X:C": "stale"}


@pytest.mark.parametrize("rules", ["screener", "pine_v3", "institutional"])
def test_all_agrees_with_ma_and_other_by_the_rules_that_made_it(rules):
    features = features_of({"X:A": made.bars(60)}, rules)
    assert inspect(features, rules=rules) == {}
    features.values["recommend_all"][40] += 1e-6
    found = inspect(features, rules=rules)["X:A"]
    assert found.code == "disagreement"
    assert rules in found.message
    assert "2021-02-13" in found.message
    assert list(found.rows) == [40]


def test_the_rules_of_another_set_do_not_agree():
    assert inspect(features_of({"X:A": made.bars(60)}, "institutional"), rules="screener")["X:A"].code == "disagreement"


def test_all_is_the_one_that_exists_where_the_other_does_not():
    features = features_of({"X:A": made.bars(60)})
    features.values["recommend_all"][9] = np.nan
    assert inspect(features)["X:A"].code == "disagreement"


def test_rows_that_are_missing_are_named():
    found = inspect(features_of({"X:A": made.bars(60), "X:B": made.bars(60)}), due={"X:A": 60, "X:B": 61})
    assert {symbol: finding.message for symbol, finding in found.items()} == {"X:B": "60 rows of features for 61 bars"}


def test_an_empty_batch_has_nothing_wrong():
    assert inspect(features_of({"X:A": made.bars(60).iloc[:0]})) == {}
