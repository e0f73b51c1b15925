"""`FeatureStoreSchema`: what may be stored, to the last bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from services.features.domain.bars_batch import BarsBatch
from services.features.domain.rating import rate
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.validation import FeatureStoreSchema
from services.features.domain.validation_features import FEATURES, describe
from shared.errors import ContractError
from tests.unit.features import made

BOUNDED = [(name, -1.0, 1.0) for name in FEATURES[:3]] + [(name, 0.0, 100.0) for name in FEATURES[3:]]


def computed(bars, rules="screener"):
    return TechnicalRatings.compute(bars, rules=rules)[list(FEATURES)]


def refused(features, bars=None):
    with pytest.raises(ContractError) as fault:
        FeatureStoreSchema.validate(features, bars)
    return fault.value.what


@pytest.mark.parametrize("rules", ["screener", "pine_v3", "institutional"])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 12, 14, 15, 27, 28, 60])
def test_computed_ratings_pass_at_every_length(rules, count):
    bars = made.bars(count)
    features = computed(bars, rules)
    pd.testing.assert_frame_equal(FeatureStoreSchema.validate(features, bars), features)


@pytest.mark.parametrize("rules", ["screener", "pine_v3", "institutional"])
def test_ratings_of_series_that_do_not_move_pass(rules):
    """0/0 everywhere: no ADX ever, RSI 100, votes of 0."""
    bars = made.flat(80)
    features = computed(bars, rules)
    assert features["adx"].isna().all()
    FeatureStoreSchema.validate(features, bars)


@pytest.mark.parametrize("quiet", [5, 13, 14, 15, 16, 30, 50])
def test_adx_begins_where_a_series_that_began_flat_has_moved(quiet):
    """Directional values need a true range: fourteen values of DX after the first bar that moves."""
    moving = made.bars(60, start="2022-01-01")
    bars = pd.concat([made.flat(quiet, price=float(moving["open"].iloc[0])), moving])
    features = computed(bars)
    first = int(np.flatnonzero(features["adx"].notna())[0])
    assert first >= 27
    FeatureStoreSchema.validate(features, bars)
    hidden = features.copy()
    hidden.iloc[first, hidden.columns.get_loc("adx")] = np.nan
    assert "where its definition gives a value" in refused(hidden, bars)


def test_rows_without_a_bar_have_no_value_and_are_not_counted():
    bars = made.bars(60)
    bars.iloc[[0, 5, 33, 59], :4] = np.nan
    features = computed(bars)
    assert features.iloc[[0, 5, 33, 59]].isna().all(axis=None)
    FeatureStoreSchema.validate(features, bars)
    invented = features.copy()
    invented.iloc[33] = features.iloc[34]
    assert "null" not in refused(invented, bars)
    assert "where its definition gives none" in refused(invented, bars)


@pytest.mark.parametrize(("name", "low", "high"), BOUNDED)
def test_a_value_on_its_bound_is_stored_as_it_is(name, low, high):
    bars = made.bars(60)
    for bound in (low, high):
        features = computed(bars)
        features.loc[features.index[40], name] = bound
        assert FeatureStoreSchema.validate(features, bars)[name].iloc[40] == bound


@pytest.mark.parametrize(("name", "low", "high"), BOUNDED)
@pytest.mark.parametrize("outside", [1e-9, 5e-10, 2**-52])
def test_rounding_over_a_bound_is_clipped_to_it(name, low, high, outside):
    bars = made.bars(60)
    for bound, value in ((high, high + outside), (low, low - outside)):
        features = computed(bars)
        features.loc[features.index[40], name] = value
        assert FeatureStoreSchema.validate(features, bars)[name].iloc[40] == bound


@pytest.mark.parametrize(("name", "low", "high"), BOUNDED)
@pytest.mark.parametrize("outside", [1e-8, 2e-9, 0.5, 1e300, np.inf])
def test_more_than_rounding_over_a_bound_is_refused(name, low, high, outside):
    bars = made.bars(60)
    for value in (high + outside, low - outside):
        features = computed(bars)
        features.loc[features.index[40], name] = value
        assert refused(features, bars).startswith(f"{name} is {value!r} on 2021-02-13, ")


def test_the_refusal_prints_the_value_as_it_is_and_how_far_outside_it_is():
    bars = made.bars(60)
    features = computed(bars)
    features.loc[features.index[[40, 41]], "recommend_all"] = 1.00000001
    said = refused(features, bars)
    assert said == ("recommend_all is 1.00000001 on 2021-02-13, 9.99999993922529e-09 outside [-1, 1]; and 1 more rows")


@pytest.mark.parametrize("name", FEATURES)
def test_a_value_inside_the_warm_up_is_refused(name):
    bars = made.bars(60)
    features = computed(bars)
    features.loc[features.index[8], name] = 0.25
    assert refused(features, bars) == f"{name} is 0.25 on 2021-01-12, where its definition gives none"


@pytest.mark.parametrize("name", FEATURES)
def test_a_null_after_the_warm_up_is_refused(name):
    bars = made.bars(60)
    features = computed(bars)
    features.loc[features.index[40], name] = np.nan
    assert refused(features, bars) == f"{name} is null on 2021-02-13, where its definition gives a value"


def test_without_bars_nulls_stay_as_they_are_and_bounds_are_still_checked():
    features = computed(made.bars(60))
    features.iloc[40] = np.nan
    FeatureStoreSchema.validate(features)
    features.loc[features.index[50], "rsi"] = 100.1
    assert "rsi is 100.1" in refused(features)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda f: f.tz_localize(None), "UTC"),
        (lambda f: f.tz_convert("Asia/Manila"), "UTC"),
        (lambda f: f.reset_index(drop=True), "UTC"),
        (lambda f: f.iloc[::-1], "ascend"),
        (lambda f: pd.concat([f, f.iloc[[-1]]]), "repeats"),
        (lambda f: f.drop(columns="rsi"), "lack rsi"),
        (lambda f: f.astype({"adx": "float32"}), "float32, not float64"),
        (lambda f: f.astype({"adx": "object"}), "not float64"),
    ],
)
def test_features_of_another_shape_are_refused(broken, words):
    assert words in refused(broken(computed(made.bars(60))))


def test_features_that_are_not_of_these_bars_are_refused():
    assert "index of their bars" in refused(computed(made.bars(60)), made.bars(59))


def test_one_symbol_that_fails_stops_no_other():
    frames = {"X:A": made.bars(60, seed=1), "X:B": made.bars(60, seed=2), "X:C": made.bars(60, seed=3)}
    batch = BarsBatch.of(frames)
    values = {name: np.concatenate([computed(frame)[name] for frame in frames.values()]) for name in FEATURES}
    values["recommend_all"][60 + 40] = 1.00000001
    values["recommend_ma"][120 + 40] = 1 + 1e-10
    features, rejected = FeatureStoreSchema.inspect(describe(batch, np.ones(180, bool), values))
    assert list(rejected) == ["X:B"]
    assert rejected["X:B"].code == "schema"
    assert list(rejected["X:B"].rows) == [100]
    assert features.values["recommend_ma"][160] == 1.0


def test_bars_are_counted_by_symbol_and_without_the_rows_that_are_none():
    frames = {"X:A": made.bars(4), "X:B": made.bars(3), "X:C": made.bars(3), "X:D": made.bars(1)}
    usable = np.array([0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0], dtype=bool)
    nothing = {name: np.full(11, np.nan) for name in FEATURES}
    assert describe(BarsBatch.of(frames), usable, nothing).bar.tolist() == [-1, 0, -1, 1, 0, 1, 2, -1, 0, 1, -1]


def test_an_empty_batch_has_nothing_wrong():
    features, rejected = FeatureStoreSchema.inspect(
        describe(BarsBatch.of({}), np.zeros(0, bool), {name: np.empty(0) for name in FEATURES})
    )
    assert not rejected
    assert len(features.bar) == 0


def test_ratings_that_fail_the_schema_are_refused_where_they_are_made(monkeypatch):
    """The gate is on the way to the staged rows, not beside it."""
    import services.features.domain.rating as module

    real = module.RatingState.rated

    def spoiled(*bars):
        panel, state = real(*bars)
        panel.rsi[40, 0] = 100.0001
        return panel, state

    monkeypatch.setattr(module.RatingState, "rated", spoiled)
    frames = {"X:A": made.bars(60, seed=1), "X:B": made.bars(60, seed=2)}
    rated = rate(
        BarsBatch.of(frames), markets={}, ticks={}, rules="screener", as_of=made.stamp("2021-03-10"), interval="1d"
    )
    assert rated.staged == ("X:B",)
    assert rated.refused["X:A"].stage == "validation"
    assert "rsi is 100.0001" in rated.refused["X:A"].finding.message
