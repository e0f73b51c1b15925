"""Where each value of a symbol lives in its state: `ROWS` numbers, `[blocks, ROWS, WIDTH]` for a panel.

A *value* takes one row: what a bar computed, kept for the next bar. A *ring* keeps the last `size` bars of a series,
`each` rows a bar: that of phase p begins at row `first + each * (p mod size)`. All symbols of a state share one
phase; a symbol without a bar has its rings turned by one bar instead (`TURNED`).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.domain.ratings.lanes import WIDTH
from services.features.domain.ratings.rules import VOTES

VERSION: Final = 2
"""Raise it whenever a row moves or changes its meaning: a saved state of another version is refused."""


class Ring(NamedTuple):
    first: int
    size: int  # a power of 2
    each: int


# Values that start at 0. BARS counts the bars seen; an EMA, a Wilder average and the MACD signal hold the running sum
# of their first window until they are seeded.
BARS, DX_SEEN, EMA10, EMA20, EMA30, EMA50, EMA100, EMA200, EMA12, EMA26, EMA13 = range(11)
SIGNAL, GAIN, LOSS, TRUE_RANGE, PLUS_MOVE, MINUS_MOVE, DX_SUM = range(11, 18)
_FIRST_NA = 18
# Values that start as NA.
HULL_RAW1, HULL_RAW2, CCI, ADX, PLUS_DI, MINUS_DI, AO1, AO2, MOM, WILLIAMS_R, BULL, BEAR = range(18, 30)
# Of the Stochastics: K and D of the bar before, and the last two inputs of each that existed.
STOCH_K, STOCH_D, STOCH_RAW1, STOCH_RAW2, STOCH_K1, STOCH_K2 = range(30, 36)
STOCH_RSI_K, STOCH_RSI_D, STOCH_RSI_RAW1, STOCH_RSI_RAW2, STOCH_RSI_K1, STOCH_RSI_K2 = range(36, 42)
_VALUES = 42

INPUTS: Final = (
    *(f"{kind}{length}" for length in (10, 20, 30, 50, 100, 200) for kind in ("sma", "ema")),
    *("hull9", "vwma20", "conversion", "base", "lead1_26", "lead2_26", "rsi", "stoch_k", "stoch_d", "cci"),
    *("adx", "plus_di", "minus_di", "ao", "mom", "macd", "signal", "stoch_rsi_k", "stoch_rsi_d", "williams_r"),
    *("bull", "bear", "uo"),
)
"""The values that votes compare. A trace `[T, PLACES, S]` holds the 26 ballots and then these."""
PLACES: Final = len(VOTES) + len(INPUTS)

# A running sum takes two rows a bar: the sum, and what its rounding lost.
_SIZES: Final = {
    "HIGH": (2, 1),
    "LOW": (2, 1),
    "CLOSE": (16, 1),
    "RSI": (2, 1),
    "SOURCE": (32, 1),
    "CLOSE_SUM": (256, 2),
    "HL2_SUM": (64, 2),
    "SOURCE_SUM": (32, 2),
    "TRADED_SUM": (32, 2),
    "VOLUME_SUM": (32, 2),
    "PRESSURE_SUM": (32, 2),
    "RANGE_SUM": (32, 2),
    # Extremes over the last 2, 4, 8 … bars: that of 8 is the extreme of two of 4, four bars apart.
    "HIGH2": (4, 1),
    "HIGH4": (8, 1),
    "HIGH8": (16, 1),
    "HIGH16": (32, 1),
    "HIGH32": (32, 1),
    "LOW2": (4, 1),
    "LOW4": (8, 1),
    "LOW8": (16, 1),
    "LOW16": (32, 1),
    "LOW32": (32, 1),
    "RSI_HIGH2": (4, 1),
    "RSI_HIGH4": (8, 1),
    "RSI_HIGH8": (8, 1),
    "RSI_LOW2": (4, 1),
    "RSI_LOW4": (8, 1),
    "RSI_LOW8": (8, 1),
    "LEAD1": (32, 1),
    "LEAD2": (32, 1),
}


def _rings() -> dict[str, Ring]:
    rings, first = {}, _VALUES
    for name, (size, each) in _SIZES.items():
        rings[name] = Ring(first, size, each)
        first += size * each
    return rings


RINGS: Final = _rings()
ROWS: Final = _VALUES + sum(size * each for size, each in _SIZES.values())

HIGH, LOW, CLOSE, RSI, SOURCE = (RINGS[name] for name in ("HIGH", "LOW", "CLOSE", "RSI", "SOURCE"))
CLOSE_SUM, HL2_SUM, SOURCE_SUM = RINGS["CLOSE_SUM"], RINGS["HL2_SUM"], RINGS["SOURCE_SUM"]
TRADED_SUM, VOLUME_SUM = RINGS["TRADED_SUM"], RINGS["VOLUME_SUM"]
PRESSURE_SUM, RANGE_SUM = RINGS["PRESSURE_SUM"], RINGS["RANGE_SUM"]
HIGH2, HIGH4, HIGH8, HIGH16, HIGH32 = (RINGS[f"HIGH{n}"] for n in (2, 4, 8, 16, 32))
LOW2, LOW4, LOW8, LOW16, LOW32 = (RINGS[f"LOW{n}"] for n in (2, 4, 8, 16, 32))
RSI_HIGH2, RSI_HIGH4, RSI_HIGH8 = (RINGS[f"RSI_HIGH{n}"] for n in (2, 4, 8))
RSI_LOW2, RSI_LOW4, RSI_LOW8 = (RINGS[f"RSI_LOW{n}"] for n in (2, 4, 8))
LEAD1, LEAD2 = RINGS["LEAD1"], RINGS["LEAD2"]


def _turned() -> NDArray[np.intp]:
    rows = np.arange(ROWS)
    for ring in RINGS.values():
        here = slice(ring.first, ring.first + ring.size * ring.each)
        rows[here] = np.roll(rows[here], ring.each)
    return rows


TURNED: Final = _turned()
"""`column[TURNED]` is a symbol's state one phase later without a bar: values as they are, rings a bar further."""


def aligned(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An array whose rows of `WIDTH` each fill one cache line: one that straddles two costs twice."""
    size = math.prod(shape)
    raw = np.empty(size + WIDTH)
    start = -(raw.ctypes.data // 8) % WIDTH
    return raw[start : start + size].reshape(shape)


def empty(blocks: int) -> NDArray[np.float64]:
    """The state `[blocks, ROWS, WIDTH]` of symbols that have seen no bar."""
    state = aligned((blocks, ROWS, WIDTH))
    state[:] = 0.0
    state[:, _FIRST_NA:_VALUES] = np.nan
    state[:, RSI.first : RSI.first + RSI.size] = np.nan
    return state
