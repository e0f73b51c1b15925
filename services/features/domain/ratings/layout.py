"""Where each value of a symbol lives in the state matrix `[ROWS, symbols]`.

A state is one float64 matrix, a column a symbol. A *value* takes one row: what a bar computed, kept for the next bar.
A *ring* takes 2^k rows: the last 2^k values of a series, that of phase p in row `first + p mod 2^k`. All symbols of a
state share one phase; a symbol without a bar has its rings turned by one row instead (`TURNED`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION: Final = 1
"""Raise it whenever a row moves or changes its meaning: a saved state of another version is refused."""


class Ring(NamedTuple):
    first: int
    size: int


# Values that start at 0. BARS counts the bars seen; TIE is PRICE_TIE times |close|; an EMA, a Wilder average and the
# MACD signal hold the running sum of their first window until they are seeded.
BARS, VOLUME, TIE, DX_SEEN = range(4)
EMA10, EMA20, EMA30, EMA50, EMA100, EMA200, EMA12, EMA26, EMA13 = range(4, 13)
SIGNAL_SUM, GAIN, LOSS, TRUE_RANGE, PLUS_MOVE, MINUS_MOVE, DX_SUM = range(13, 20)
_FIRST_NA = 20
# Values that start as NA.
SMA10, SMA20, SMA30, SMA50, SMA100, SMA200 = range(20, 26)
EMA50_VALUE, HULL9, HULL_RAW, HULL_RAW1, VWMA20, CONVERSION, BASE, LEAD1_26, LEAD2_26 = range(26, 35)
CCI, ADX, PLUS_DI, MINUS_DI, AO, AO1, MOM, MACD, SIGNAL, WILLIAMS_R, BULL, BEAR, UO = range(35, 48)
STOCH_K, STOCH_D, STOCH_RAW1, STOCH_RAW2, STOCH_K1, STOCH_K2 = range(48, 54)
STOCH_RSI_K, STOCH_RSI_D, STOCH_RSI_RAW1, STOCH_RSI_RAW2, STOCH_RSI_K1, STOCH_RSI_K2 = range(54, 60)
_VALUES = 60

_SIZES: Final = {
    "HIGH": 2,
    "LOW": 2,
    "CLOSE": 16,
    "RSI": 2,
    "SOURCE": 32,
    # running sums, each with what its rounding lost
    "CLOSE_SUM": 256,
    "CLOSE_SUM_LOST": 256,
    "HL2_SUM": 64,
    "HL2_SUM_LOST": 64,
    "SOURCE_SUM": 32,
    "SOURCE_SUM_LOST": 32,
    "TRADED_SUM": 32,
    "TRADED_SUM_LOST": 32,
    "VOLUME_SUM": 32,
    "VOLUME_SUM_LOST": 32,
    "PRESSURE_SUM": 32,
    "PRESSURE_SUM_LOST": 32,
    "RANGE_SUM": 32,
    "RANGE_SUM_LOST": 32,
    # extremes over the last 2, 4, 8 … bars: that of 8 is the extreme of two of 4, four bars apart
    "HIGH2": 4,
    "HIGH4": 8,
    "HIGH8": 16,
    "HIGH16": 32,
    "HIGH32": 32,
    "LOW2": 4,
    "LOW4": 8,
    "LOW8": 16,
    "LOW16": 32,
    "LOW32": 32,
    "RSI_HIGH2": 4,
    "RSI_HIGH4": 8,
    "RSI_HIGH8": 8,
    "RSI_LOW2": 4,
    "RSI_LOW4": 8,
    "RSI_LOW8": 8,
    "LEAD1": 32,
    "LEAD2": 32,
}


def _rings() -> dict[str, Ring]:
    rings, first = {}, _VALUES
    for name, size in _SIZES.items():
        rings[name] = Ring(first, size)
        first += size
    return rings


RINGS: Final = _rings()
ROWS: Final = _VALUES + sum(_SIZES.values())


def _turned() -> NDArray[np.intp]:
    rows = np.arange(ROWS)
    for ring in RINGS.values():
        here = slice(ring.first, ring.first + ring.size)
        rows[here] = np.roll(rows[here], 1)
    return rows


TURNED: Final = _turned()
"""`column[TURNED]` is a symbol's column one phase later without a bar: values as they are, rings a row further."""


def empty(width: int) -> NDArray[np.float64]:
    """The state `[ROWS, width]` of symbols that have seen no bar."""
    state = np.zeros((ROWS, width))
    state[_FIRST_NA:_VALUES] = np.nan
    state[RINGS["RSI"].first : RINGS["RSI"].first + RINGS["RSI"].size] = np.nan
    return state
