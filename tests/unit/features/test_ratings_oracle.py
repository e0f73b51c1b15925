"""The kernel says what the plain reference says: every vote, every rating, in all three rule sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.features.domain.ratings import panel
from services.features.domain.ratings.bars import checked_bars
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.panel import compute_panel
from services.features.domain.ratings.rules import MA_VOTES, PINE_V3, VOTES
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import COLUMNS, RULES, flat, nasty, recorded, recorded_files, walk
from tests.oracles.ratings_reference import reference, sma3_of_existing, windowed

RSI_ROUNDING = 1e-12
"""Two right ways to work out an RSI are closer than this: seventy times the last bit of 100."""


def undecided(rsi):
    """Bars whose Stochastic RSI vote is a matter of RSI's last bits: each of K, D and K − D is known only within what
    `RSI_ROUNDING` makes of it, and one of them is so near to the edge of a tie that both sides of it are right.

    It takes a stretch of closes that hardly move: K divides RSI by its range over 14 bars, and the rules ask no more of
    that range than 1e-7, where the last bit of an RSI is worth a hundred ties. No other vote divides by so little.
    """
    raw, error = [], []
    for x, top, bottom in zip(rsi, windowed(rsi, 14, max), windowed(rsi, 14, min), strict=True):
        known = top is not None and top - bottom > 1e-7
        raw.append(100 * (x - bottom) / (top - bottom) if known else None)
        error.append(200 * RSI_ROUNDING / (top - bottom) if known else None)
    k, k_error = sma3_of_existing(raw), sma3_of_existing(error)
    d, d_error = sma3_of_existing(k), sma3_of_existing(k_error)
    return [
        y is not None
        and any(
            abs(abs(distance) - 1e-7) <= within
            for distance, within in [
                *((value - edge, own) for value, own in ((x, e), (y, f)) for edge in (20, 80)),
                (x - y, e + f),
            ]
        )
        for x, y, e, f in zip(k, d, k_error, d_error, strict=True)
    ]


def excused(bars, rsi):
    """`undecided` as rows of `bars`."""
    rows = np.zeros(len(bars), dtype=bool)
    here = ~np.isnan(bars[:, :4]).any(axis=1)
    rows[here] = undecided([None if math.isnan(x) else x for x in np.array(rsi)[here]])
    return rows


def agree(bars, rules, *, excuse=False):
    """Every vote is the reference's, and so is every rating; but for undecided ones, with `excuse`."""
    votes, ratings = reference(*bars.T, rules)
    frame = ratings_bars.frame(bars)
    found, computed = TechnicalRatings.votes(frame, rules), TechnicalRatings.compute(frame, rules)
    assert list(found.columns) == list(VOTES) == ratings_bars.VOTES
    if excuse:
        take_undecided(found["stoch_rsi"].to_numpy(), bars, votes, ratings, rules)
    for name in VOTES:
        np.testing.assert_array_equal(found[name], votes[name], err_msg=f"{name} in {rules}")
    for name, values in ratings.items():
        near = RSI_ROUNDING if name == "rsi" else 1e-9 if name == "adx" else 1e-12
        np.testing.assert_allclose(computed[name], values, rtol=0, atol=near, err_msg=f"{name} in {rules}")


def take_undecided(found, bars, votes, ratings, rules):
    """Put what was found in the place of undecided votes of the reference, and count them in its ratings: these are
    then those of other votes, and still nothing but what the rules make of votes. NA is never undecided."""
    own = np.array(votes["stoch_rsi"])
    other = (found != own) & ~np.isnan(found) & ~np.isnan(own) & excused(bars, ratings["rsi"])
    votes["stoch_rsi"] = np.where(other, found, own)
    for row in np.flatnonzero(other):
        mean = np.nanmean([votes[name][row] for name in VOTES if name not in MA_VOTES])
        ratings["recommend_other"][row] = mean
        ratings["recommend_all"][row] = combined(ratings["recommend_ma"][row], mean, rules)


def combined(ma, other, rules):
    """All of MA and Other; a bar that has a Stochastic RSI vote has both."""
    return 0.574 * ma + 0.3914 * other if rules == "institutional" else (ma + other) / 2


def test_only_votes_that_rounding_decides_are_excused():
    """In the end of this walk RSI moves by 3e-7."""
    bars = walk(84, 1147579117, step=0.001, tick=0.0001, still=0.95, silent=0.05, missing=0.02, jump=1000.0)
    votes, ratings = reference(*bars.T, "institutional")
    found = TechnicalRatings.votes(ratings_bars.frame(bars), "institutional")["stoch_rsi"].to_numpy()
    rows = excused(bars, ratings["rsi"])
    differ = np.flatnonzero((found != np.array(votes["stoch_rsi"])) & ~np.isnan(found))
    assert rows[differ].all()
    assert 0 < rows.sum() < 10
    assert not excused(walk(300), reference(*walk(300).T, "screener")[1]["rsi"]).any()


@settings(max_examples=200, deadline=None)
@example(flat(120), "screener")
@example(flat(120, volume=5.0), "pine_v3")
@example(np.concatenate([walk(60), flat(60), walk(60, 1)]), "pine_v3")
@example(np.concatenate([flat(60), walk(90, tick=0.01)]), "screener")
@example(walk(98, 200, step=0.02, scale=1e-09, still=0.95, jump=1000.0), "screener")
@example(walk(299, tick=0.5, still=0.5, silent=0.5, missing=0.3), "institutional")
@given(nasty(), st.sampled_from(RULES))
def test_every_vote_and_rating_is_the_references_on_nasty_bars(bars, rules):
    agree(bars, rules, excuse=True)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("count", [1, 2, 3, 9, 14, 15, 28, 52, 53, 78, 201])
def test_every_length_of_history_is_the_references(count, rules):
    agree(walk(count, count), rules)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("path", recorded_files(), ids=lambda path: path.stem)
def test_every_vote_and_rating_of_every_recorded_bar_is_the_references(path, rules):
    agree(recorded(path), rules)


def test_philippine_stocks_are_the_references():
    """Real ticks: closes that tie with their averages, days without trade, all-zero rows."""
    stocks = ratings_bars.manila()
    for number, name in enumerate(sorted(stocks)[::16]):
        agree(stocks[name][-260:], RULES[number % 3])


@pytest.mark.parametrize("rules", RULES)
def test_a_panel_has_for_each_symbol_what_the_symbol_has_alone(rules):
    """70 symbols, more than two passes of lanes, of different lengths, some with gaps, in 1 and in 2 threads."""
    columns = [walk(260 - 3 * s, s, missing=0.1 if s % 5 == 0 else 0.0) for s in range(70)]
    arrays = ratings_bars.panel(columns)
    one, two = compute_panel(*arrays, rules, threads=1), compute_panel(*arrays, rules, threads=2)
    for s, bars in enumerate(columns):
        alone = TechnicalRatings.compute(ratings_bars.frame(bars), rules)
        for name, values in one._asdict().items():
            np.testing.assert_array_equal(values[260 - len(bars) :, s], alone[name].to_numpy())
            assert np.isnan(values[: 260 - len(bars), s]).all()
            np.testing.assert_array_equal(values, getattr(two, name))


@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_a_symbol_taken_in_stretches_is_the_symbol_taken_whole(monkeypatch, gaps):
    arrays = ratings_bars.panel([walk(260 - 9 * s, s, missing=gaps) for s in range(5)])
    bars = checked_bars(*arrays)
    whole, trace = compute_panel(*arrays, "pine_v3"), panel.panel_trace(bars, PINE_V3)
    monkeypatch.setattr(panel, "STRETCH", 37)
    for found, expected in zip(compute_panel(*arrays, "pine_v3"), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(panel.panel_trace(bars, PINE_V3), trace)


@pytest.mark.parametrize("rules", RULES)
def test_a_bar_that_moves_changes_nothing_before_it(rules):
    bars = walk(300)
    moved = bars.copy()
    moved[250:, :4] *= 3
    moved[260] = np.nan
    seen, other = (TechnicalRatings.compute(ratings_bars.frame(x), rules) for x in (bars, moved))
    assert seen[:250].equals(other[:250])
    assert not seen[250:].equals(other[250:])
    for cut in (60, 201, 250):
        assert TechnicalRatings.compute(ratings_bars.frame(bars[:cut]), rules).equals(seen[:cut])


def test_an_infinite_price_is_refused_by_its_place():
    bars = walk(20)
    bars[7, COLUMNS.index("low")] = np.inf
    with pytest.raises(Exception, match="low of bar 7"):
        TechnicalRatings.compute(ratings_bars.frame(bars))
