"""What the rules say outright: the first bar of each vote, the quirks of each rule set, ties, 0/0, the words."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.labels import label
from services.features.domain.ratings.rules import MA_VOTES, OSCILLATOR_VOTES, RULE_SETS
from shared.errors import ContractError
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import RULES, flat, walk

FIRST = {
    **{f"{kind}{length}": length - 1 for length in (10, 20, 30, 50, 100, 200) for kind in ("sma", "ema")},
    "hull9": 10,
    "vwma20": 19,
    "ichimoku": 51,
    "rsi": 15,
    "stoch": 12,
    "cci": 20,
    "adx": 27,
    "ao": 34,
    "mom": 11,
    "macd": 33,
    "stoch_rsi": 32,
    "williams_r": 14,
    "bull_bear": 13,
    "uo": 28,
}
FIRST_IN = {
    "screener": {},
    "institutional": {},
    "pine_v3": {"stoch": 18, "stoch_rsi": 49, "bull_bear": 49},
}


def votes_of(bars, rules="screener"):
    return TechnicalRatings.votes(ratings_bars.frame(bars), rules)


@pytest.mark.parametrize("rules", RULES)
def test_each_vote_exists_from_its_first_bar_on(rules):
    votes = votes_of(walk(260), rules)
    firsts = {name: int(np.argmax(votes[name].notna())) for name in votes}
    assert firsts == {**FIRST, **FIRST_IN[rules]}
    for name, first in firsts.items():
        assert votes[name][first:].notna().all()


def test_a_rating_is_the_mean_of_the_votes_that_exist():
    frame = ratings_bars.frame(walk(120, 3))
    votes = TechnicalRatings.votes(frame)
    ratings = TechnicalRatings.compute(frame)
    ma, other = votes[list(MA_VOTES)].mean(axis=1), votes[list(OSCILLATOR_VOTES)].mean(axis=1)
    pd.testing.assert_series_equal(ratings["recommend_ma"], ma, check_names=False, rtol=0, atol=1e-15)
    pd.testing.assert_series_equal(ratings["recommend_other"], other, check_names=False, rtol=0, atol=1e-15)
    assert TechnicalRatings.calculate_recommend_ma_series(frame).equals(ratings["recommend_ma"])
    assert TechnicalRatings.calculate_recommend_other_series(frame).equals(ratings["recommend_other"])
    assert TechnicalRatings.calculate_recommend_all_series(frame).equals(ratings["recommend_all"])


def test_all_is_the_plain_mean_or_the_weighted_sum_or_the_one_that_exists():
    frame = ratings_bars.frame(walk(120, 3))
    for rules, (a, b) in {"screener": (0.5, 0.5), "pine_v3": (0.5, 0.5), "institutional": (0.574, 0.3914)}.items():
        ratings = TechnicalRatings.compute(frame, rules)
        ma, other = ratings["recommend_ma"], ratings["recommend_other"]
        both = (a * ma + b * other).where(ma.notna() & other.notna(), ma.fillna(other))
        pd.testing.assert_series_equal(ratings["recommend_all"], both, check_names=False, rtol=0, atol=1e-15)
        assert ratings["recommend_all"].iloc[9] == ma.iloc[9]
        assert np.isnan(other.iloc[9])


def test_the_screeners_ichimoku_never_votes_and_still_counts():
    frame = ratings_bars.frame(walk(120, 3))
    votes = TechnicalRatings.votes(frame)
    assert (votes["ichimoku"][51:] == 0).all()
    means = votes[list(MA_VOTES)][51:].sum(axis=1) / votes[list(MA_VOTES)][51:].notna().sum(axis=1)
    np.testing.assert_allclose(TechnicalRatings.compute(frame)["recommend_ma"][51:], means, atol=1e-15)


def test_prices_that_tie_vote_for_nobody():
    """Ten closes whose mean is the last close, off by rounding only."""
    closes = [0.1, 0.2, 0.3, 0.1, 0.3, 0.2, 0.1, 0.3, 0.2, 0.2]
    bars = np.repeat(np.array(closes * 4)[:, None], 5, axis=1)
    assert (votes_of(bars)["sma10"][9::10] == 0).all()


def test_a_price_that_never_moves_has_an_rsi_of_100_and_no_votes_of_ranges():
    frame = ratings_bars.frame(flat(120))
    ratings, votes = TechnicalRatings.compute(frame), TechnicalRatings.votes(frame)
    assert (ratings["rsi"][14:] == 100).all()
    for name in ("vwma20", "stoch", "cci", "adx", "stoch_rsi", "williams_r", "uo"):
        assert votes[name].isna().all(), name
    assert ratings["adx"].isna().all()
    assert (votes["sma10"][9:] == 0).all()


def test_a_window_without_volume_after_heavy_volume_has_no_vwma():
    bars = walk(120, 4)
    bars[:60, 4] = 1e15 / 3
    bars[60:90, 4] = 0.0
    votes = votes_of(bars)["vwma20"]
    assert votes[79:90].isna().all()
    assert votes[78:79].notna().all()
    assert votes[90:].notna().all()


def test_a_row_without_a_bar_is_not_counted_and_stays_empty():
    bars = walk(150, 5)
    holed = np.insert(bars, [40, 40, 90], np.nan, axis=0)
    one, other = (TechnicalRatings.compute(ratings_bars.frame(x)) for x in (bars, holed))
    empty = np.isnan(holed[:, 3])
    assert other[empty].isna().all(axis=None)
    np.testing.assert_array_equal(other[~empty].to_numpy(), one.to_numpy())


@pytest.mark.parametrize(
    ("rating", "word"),
    [
        (1.0, "strong buy"), (np.nextafter(0.5, 1), "strong buy"), (0.5, "buy"), (np.nextafter(0.1, 1), "buy"),
        (0.1, "neutral"), (0.0, "neutral"), (-0.0, "neutral"), (-0.1, "neutral"), (np.nextafter(-0.1, -1), "sell"),
        (-0.5, "sell"), (np.nextafter(-0.5, -1), "strong sell"), (-1.0, "strong sell"), (math.nan, None),
    ],
)  # fmt: skip
def test_a_rating_has_a_word(rating, word):
    assert label(rating) == word


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda f: f.tz_localize(None), "no time zone"),
        (lambda f: f.tz_convert("Asia/Manila"), "is in Asia/Manila"),
        (lambda f: f.iloc[::-1], "does not ascend"),
        (lambda f: pd.concat([f.iloc[:5], f.iloc[4:]]), "repeats"),
        (lambda f: f.reset_index(drop=True), "is a RangeIndex"),
        (lambda f: f.drop(columns="volume"), "no column volume"),
    ],
)
def test_bars_that_are_no_series_are_refused(broken, message):
    with pytest.raises(ContractError, match=message):
        TechnicalRatings.compute(broken(ratings_bars.frame(walk(30))))


def test_rules_have_an_id_and_a_version_and_unknown_ones_are_refused():
    assert {name: str(rules) for name, rules in RULE_SETS.items()} == {
        "screener": "screener@2025-09",
        "pine_v3": "pine_v3@2024-11",
        "institutional": "institutional@1",
    }
    with pytest.raises(ContractError, match="known rules: screener, pine_v3, institutional"):
        TechnicalRatings.compute(ratings_bars.frame(walk(30)), "pine")
