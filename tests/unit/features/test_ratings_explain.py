"""An explanation says what the kernel decided, and its own comparisons lead to the same decision."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from services.features.domain.ratings.explain import explain
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.rules import VOTES
from shared.errors import ContractError, NotFoundError
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import RULES, walk


def decided(vote, rules):
    """The vote that follows from the comparisons alone, by the table of the documentation."""
    order = {(c.left, c.right): c.order for c in vote.comparisons}

    def all_are(wanted):
        return all(order[tuple(pair.split())] == sign for pair, sign in wanted.items())

    def either(buy, sell):
        return 1 if all_are(buy) else -1 if all_are(sell) else 0

    def mirrored(*pairs):
        return either(dict.fromkeys(pairs, 1), dict.fromkeys(pairs, -1))

    def stochastic(k, d):
        low = {f"{k} 20": -1, f"{d} 20": -1, f"{k} {d}": 1}
        high = {f"{k} 80": 1, f"{d} 80": 1, f"{k} {d}": -1}
        return low, high

    match vote.name:
        case "ichimoku" if rules == "screener":
            return 0
        case "ichimoku" if rules == "pine_v3":
            return mirrored("lead1_26 lead2_26", "base lead1_26", "conversion base", "close conversion")
        case "ichimoku":
            return mirrored("close base")
        case "rsi":
            return either({"rsi 30": -1, "rsi rsi[1]": 1}, {"rsi 70": 1, "rsi rsi[1]": -1})
        case "cci":
            return either({"cci -100": -1, "cci cci[1]": 1}, {"cci 100": 1, "cci cci[1]": -1})
        case "williams_r":
            own = "williams_r"
            return either({f"{own} -80": -1, f"{own} {own}[1]": 1}, {f"{own} -20": 1, f"{own} {own}[1]": -1})
        case "stoch":
            return either(*stochastic("stoch_k", "stoch_d"))
        case "stoch_rsi":
            low, high = stochastic("stoch_rsi_k", "stoch_rsi_d")
            return either({"close ema50": -1, **low}, {"close ema50": 1, **high})
        case "adx":
            rising = {"adx 20": 1, "adx adx[1]": 1}
            return either({**rising, "plus_di minus_di": 1}, {**rising, "plus_di minus_di": -1})
        case "ao":
            for sign in (1, -1):
                turned = all_are({"ao[1] 0": sign, "ao ao[1]": sign, "ao[2] ao[1]": sign})
                if order["ao", "0"] == sign and (order["ao[1]", "0"] != sign or turned):
                    return sign
            return 0
        case "mom":
            return mirrored("mom mom[1]")
        case "macd":
            return mirrored("macd signal")
        case "bull_bear":
            return either(
                {"close ema50": 1, "bear 0": -1, "bear bear[1]": 1},
                {"close ema50": -1, "bull 0": 1, "bull bull[1]": -1},
            )
        case "uo":
            return either({"uo 70": 1}, {"uo 30": -1})
        case average:
            return mirrored(f"close {average}")


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", [{}, {"tick": 0.5, "still": 0.5}, {"missing": 0.2, "step": 0.3}], ids=str)
def test_every_bar_is_explained_as_it_was_voted_and_the_comparisons_lead_there(kind, rules):
    frame = ratings_bars.frame(walk(260, 8, **kind))
    votes, ratings = TechnicalRatings.votes(frame, rules), TechnicalRatings.compute(frame, rules)
    bars = frame.index[frame[["open", "high", "low", "close"]].notna().all(axis=1)]
    for at in bars[:60].append(bars[60::5]):
        found = explain(frame, at, rules)
        assert found.at == at
        assert [vote.name for vote in found.votes] == list(VOTES)
        np.testing.assert_array_equal(np.array([vote.vote for vote in found.votes], float), votes.loc[at].to_numpy())
        for vote in found.votes:
            if vote.vote is not None:
                assert vote.vote == decided(vote, rules), (at, vote)
        three = [found.recommend_ma, found.recommend_other, found.recommend_all]
        np.testing.assert_array_equal(np.array(three, float), ratings.loc[at].to_numpy()[:3])


def test_an_explanation_tells_value_value_before_and_comparison_in_words():
    closes = np.linspace(10, 20, 60)
    frame = ratings_bars.frame(np.column_stack([closes] * 4 + [np.ones(60)]))
    found = explain(frame)
    assert (found.bars, found.close, str(found.rules)) == (60, 20.0, "screener@2025-09")
    by_name = {vote.name: vote for vote in found.votes}
    assert (by_name["sma10"].vote, by_name["sma10"].group) == (1, "ma")
    assert str(by_name["sma10"].comparisons[0]) == "close 20 is above sma10 19.2373"
    value, before = by_name["rsi"].inputs[0].value, by_name["rsi"].inputs[0].before
    assert (value, before) == (100.0, 100.0)
    assert [str(c) for c in by_name["rsi"].comparisons] == [
        "rsi 100 is above 30",
        "rsi 100 is above 70",
        "rsi 100 is equal to rsi[1] 100",
    ]
    assert by_name["sma200"].vote is None
    assert str(by_name["sma200"].comparisons[0]) == "close 20 is not comparable with sma200 n/a"


def test_an_instant_between_bars_is_that_of_the_bar_before():
    frame = ratings_bars.frame(walk(80))
    assert explain(frame, frame.index[70] + pd.Timedelta("3h")) == explain(frame, frame.index[70])
    assert explain(frame) == explain(frame, frame.index[-1])


def test_a_row_without_a_bar_is_passed_over():
    frame = ratings_bars.frame(walk(80))
    frame.iloc[70, 3] = np.nan
    assert explain(frame, frame.index[70]).at == frame.index[69]


def test_what_cannot_be_explained_is_refused():
    frame = ratings_bars.frame(walk(30))
    with pytest.raises(NotFoundError, match="there is no bar at 2000"):
        explain(frame, pd.Timestamp("2000-01-01", tz="UTC"))
    with pytest.raises(NotFoundError, match="there is no bar"):
        explain(frame[:0])
    with pytest.raises(ContractError, match="unknown rating rules"):
        explain(frame, None, "mine")
