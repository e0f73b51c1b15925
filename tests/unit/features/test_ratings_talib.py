"""Where the definitions agree, the indicators are TA-Lib's."""

from __future__ import annotations

import numpy as np
import pytest

from services.features.domain.ratings import layout
from services.features.domain.ratings.bars import bars_of_frame
from services.features.domain.ratings.panel import panel_ratings, panel_trace
from services.features.domain.ratings.rules import PINE_V3, SCREENER, VOTES
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import walk

talib = pytest.importorskip("talib")


def inputs_of(bars, rules):
    trace = panel_trace(bars_of_frame(ratings_bars.frame(bars)), rules)[:, len(VOTES) :, 0]
    return dict(zip(layout.INPUTS, trace.T, strict=True))


def near(found, theirs, first, tolerance):
    assert np.isfinite(theirs[first:]).all()
    np.testing.assert_allclose(found[first:], theirs[first:], rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1e-6, 100.0, 1e9])
def test_averages_and_oscillators_are_talibs_from_their_first_bar_on(scale):
    bars = walk(900, 3, scale=scale)
    _, high, low, close, _ = np.ascontiguousarray(bars.T)
    ours, pine = inputs_of(bars, SCREENER), inputs_of(bars, PINE_V3)
    price = 1e-12 * close.max()
    for length in (10, 20, 30, 50, 100, 200):
        near(ours[f"sma{length}"], talib.SMA(close, length), length - 1, price)
        near(ours[f"ema{length}"], talib.EMA(close, length), length - 1, price)
    near(ours["rsi"], talib.RSI(close, 14), 14, 1e-10)
    near(ours["williams_r"], talib.WILLR(high, low, close, 14), 13, 1e-10)
    near(ours["uo"], talib.ULTOSC(high, low, close, 7, 14, 28), 28, 1e-10)
    near(ours["cci"], talib.CCI(high, low, close, 20), 19, 1e-9)
    near(pine["cci"], talib.CCI(close, close, close, 20), 19, 1e-9)
    for values, length in ((ours, 8), (pine, 14)):
        k, d = talib.STOCH(high, low, close, length, 3, 0, 3, 0)
        near(values["stoch_k"], k, length + 3, 1e-10)
        near(values["stoch_d"], d, length + 3, 1e-10)
    near(ours["mom"], talib.MOM(close, 10), 10, price)


def test_adx_is_talibs_from_its_first_bar_on():
    bars = walk(900, 3)
    _, high, low, close, _ = np.ascontiguousarray(bars.T)
    theirs = talib.ADX(high, low, close, 14)
    ours = panel_ratings(bars_of_frame(ratings_bars.frame(bars)), SCREENER).adx[:, 0]
    assert np.isnan(ours[:27]).all()
    near(ours, theirs, 27, 1e-10)


def test_what_is_seeded_otherwise_comes_together():
    bars = walk(900, 3)
    _, high, low, close, _ = np.ascontiguousarray(bars.T)
    ours, pine = inputs_of(bars, SCREENER), inputs_of(bars, PINE_V3)
    macd, signal, _ = talib.MACD(close, 12, 26, 9)
    near(ours["macd"], macd, 104, 1e-6 * close.max())
    near(ours["signal"], signal, 104, 1e-6 * close.max())
    near(ours["plus_di"], talib.PLUS_DI(high, low, close, 14), 199, 1e-6 * 100)
    near(ours["minus_di"], talib.MINUS_DI(high, low, close, 14), 199, 1e-6 * 100)
    near(pine["adx"], talib.ADX(high, low, close, 14), 199, 1e-6 * 100)
