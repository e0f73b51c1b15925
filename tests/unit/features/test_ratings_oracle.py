"""The kernel says what the plain reference says: every vote, every rating, in all three rule sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.features.domain.ratings import panel
from services.features.domain.ratings.bars import checked_bars
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.panel import compute_panel
from services.features.domain.ratings.rules import PINE_V3, VOTES
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import COLUMNS, RULES, flat, nasty, recorded, recorded_files, walk
from tests.oracles.ratings_reference import reference


def undecided(rsi):
    """Rows whose Stochastic RSI is made of rounding: it divides the last bits of an RSI by a range that is hardly more
    than nothing, so two right ways to work out the RSI vote differently. Sixty bars later nothing of it is left."""
    seen = pd.Series(rsi)
    spread = seen.rolling(14, min_periods=1).max() - seen.rolling(14, min_periods=1).min()
    noise = (spread > 1e-8) & (spread < 1e-4)
    return noise.rolling(60, min_periods=1).max().to_numpy() > 0


def agree(bars, rules):
    votes, ratings = reference(*bars.T, rules)
    frame = ratings_bars.frame(bars)
    found = TechnicalRatings.votes(frame, rules)
    assert list(found.columns) == list(VOTES) == ratings_bars.VOTES
    decided = ~undecided(ratings["rsi"])
    for name in VOTES:
        rows = decided if name == "stoch_rsi" else slice(None)
        got, wanted = found[name].to_numpy()[rows], np.array(votes[name])[rows]
        np.testing.assert_array_equal(got, wanted, err_msg=f"{name} in {rules}")
    found = TechnicalRatings.compute(frame, rules)
    for name, values in ratings.items():
        near = 1e-12 if name.startswith("recommend") else 1e-9
        rows = decided if name in ("recommend_other", "recommend_all") else slice(None)
        got, wanted = found[name].to_numpy()[rows], np.array(values)[rows]
        np.testing.assert_allclose(got, wanted, rtol=near, atol=near, err_msg=f"{name} in {rules}")


def test_hardly_a_row_of_recorded_markets_is_undecided():
    rows = [undecided(reference(*recorded(path)[:400].T, "screener")[1]["rsi"]) for path in recorded_files()[:8]]
    if not rows:
        pytest.skip("the recorded bars are not here")
    assert np.concatenate(rows).mean() < 0.01


@settings(max_examples=200, deadline=None)
@example(flat(120), "screener")
@example(flat(120, volume=5.0), "pine_v3")
@example(np.concatenate([walk(60), flat(60), walk(60, 1)]), "pine_v3")
@example(np.concatenate([flat(60), walk(90, tick=0.01)]), "screener")
@example(walk(98, 200, step=0.02, scale=1e-09, still=0.95, jump=1000.0), "screener")
@example(walk(299, tick=0.5, still=0.5, silent=0.5, missing=0.3), "institutional")
@given(nasty(), st.sampled_from(RULES))
def test_every_vote_and_rating_is_the_references_on_nasty_bars(bars, rules):
    agree(bars, rules)


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
