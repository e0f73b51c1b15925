"""Bars that find mistakes in ratings: flat, tied, gapped, without volume, huge and tiny; and real ones."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from asof.upstream.pse import locate
from shared.errors import NotFoundError
from tests.fixtures_dir import FIXTURES

COLUMNS = ["open", "high", "low", "close", "volume"]
RULES = ["screener", "pine_v3", "institutional"]
VOTES = [
    *(f"{kind}{length}" for length in (10, 20, 30, 50, 100, 200) for kind in ("sma", "ema")),
    *("hull9", "vwma20", "ichimoku", "rsi", "stoch", "cci", "adx", "ao", "mom", "macd", "stoch_rsi", "williams_r"),
    *("bull_bear", "uo"),
]


def walk(count, seed=0, *, step=0.02, tick=None, scale=100.0, still=0.0, silent=0.0, missing=0.0, jump=None):
    """A seeded random walk `[count, 5]`.

    `tick`: prices are whole multiples of it. `still`, `silent`, `missing`: the share of bars that repeat the close
    before them, have no volume, are no bars. `jump`: the close is multiplied by it once, half way.
    """
    random = np.random.default_rng(seed)
    moves = random.normal(0, step, count) * (random.random(count) >= still)
    if jump is not None and count:
        moves[count // 2] += np.log(jump)
    close = np.exp(np.cumsum(moves))
    quiet = random.random(count) < still
    open_ = np.where(quiet, close, close * np.exp(random.normal(0, step / 3, count)))
    high = np.maximum(open_, close) * np.where(quiet, 1.0, 1 + random.random(count) * step / 2)
    low = np.minimum(open_, close) * np.where(quiet, 1.0, 1 - random.random(count) * step / 2)
    bars = np.stack([open_, high, low, close, np.round(random.random(count) * 1e6)], axis=1)
    if tick is not None:
        bars[:, :4] = np.maximum(np.round(bars[:, :4] / tick), 1) * tick
    bars[:, :4] *= scale
    bars[random.random(count) < silent, 4] = 0.0
    bars[random.random(count) < missing, random.integers(0, 4)] = np.nan
    bars[random.random(count) < missing, 4] = np.nan
    return bars


def flat(count, price=10.0, volume=0.0):
    bars = np.full((count, 5), price)
    bars[:, 4] = volume
    return bars


def nasty(most=300):
    """Walks of 1 to `most` bars of every kind above."""
    share = st.sampled_from([0.0, 0.0, 0.05, 0.5, 0.95, 1.0])
    return st.builds(
        walk,
        st.integers(1, most),
        st.integers(0, 2**32 - 1),
        step=st.sampled_from([0.001, 0.02, 0.3]),
        tick=st.sampled_from([None, 0.0001, 0.01, 0.05, 0.5]),
        scale=st.sampled_from([1e-9, 1e-4, 1.0, 100.0, 65_000.0, 1e12]),
        still=share,
        silent=share,
        missing=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
        jump=st.sampled_from([None, None, 1e-3, 1e3]),
    )


def frame(bars, start="2001-01-01"):
    index = pd.date_range(start, periods=len(bars), freq="D", tz="UTC", name="ts")
    return pd.DataFrame(bars, index=index, columns=COLUMNS)


def panel(columns):
    """Five `[T, S]` arrays of symbols of different lengths: each ends at the last row, the rows before it are NaN."""
    longest = max(len(bars) for bars in columns)
    whole = np.full((5, longest, len(columns)), np.nan)
    for s, bars in enumerate(columns):
        whole[:, longest - len(bars) :, s] = bars.T
    return tuple(np.ascontiguousarray(x) for x in whole)


def recorded_files():
    folder = FIXTURES / "bars"
    return sorted(folder.glob("*/*.csv")) if folder.is_dir() else []


def recorded(path):
    """The bars `[T, 5]` of a recorded file; quotes have no volume: 0."""
    table = pd.read_csv(path)
    if "close" not in table:
        table = pd.read_csv(path, header=None)
        table = table.set_axis([*"t", *COLUMNS, *range(6, len(table.columns))], axis=1)
    return table[COLUMNS].to_numpy(float)


def manila():
    """The bars `[T, 5]` of each Philippine stock of the installed wheel; skips where it is not installed."""
    try:
        folder = locate()
    except NotFoundError as fault:
        pytest.skip(str(fault))
    packed = zipfile.ZipFile(folder / "merged_stock_data.zip")
    table = pd.read_csv(io.BytesIO(packed.read(packed.namelist()[0])), header=[0, 1], index_col=0)
    table = table[table.index != "dt"].apply(pd.to_numeric)
    stocks = {}
    for name in table.columns.get_level_values(0).unique():
        one = table[name].dropna(subset=["close"])
        volume = one["value"] / one["close"].where(one["close"] > 0, 1.0)
        stocks[name] = one.assign(volume=volume)[COLUMNS].to_numpy(float)
    return stocks
