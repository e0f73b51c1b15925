"""Where each value of a symbol lives in its state: `ROWS` numbers, `[blocks, ROWS, WIDTH]` for a panel.

A *value* takes one row: what a bar computed, kept for the next bar. A *ring* keeps the last `size` bars of a series:
that of phase p is row `first + (p mod size)`. All symbols of a state share one
phase; a symbol without a bar has its rings turned by one bar instead (`TURNED`).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.domain.ratings.lanes import WIDTH
from services.features.domain.ratings.rules import VOTES

VERSION: Final = 4
"""Raise it whenever a row moves or changes its meaning: a saved state of another version is refused."""


class Ring(NamedTuple):
    first: int
    size: int  # a power of 2


# Values that start at 0. BARS counts the bars seen; an EMA, a Wilder average and the MACD signal hold the running sum
# of their first window until they are seeded.
BARS, DX_SEEN, EMA10, EMA20, EMA30, EMA50, EMA100, EMA200, EMA12, EMA26, EMA13 = range(11)
SIGNAL, GAIN, LOSS, TRUE_RANGE, PLUS_MOVE, MINUS_MOVE, DX_SUM = range(11, 18)
_FIRST_NA = 18
# Values that start as NA.
HULL_RAW1, HULL_RAW2, CCI, ADX, PLUS_DI, MINUS_DI, AO1, AO2, MOM, WILLIAMS_R, BULL, BEAR = range(18, 30)
# Of the Stochastics: D of the bar before, and the last two inputs of K and of D that existed.
STOCH_D, STOCH_RAW1, STOCH_RAW2, STOCH_K1, STOCH_K2 = range(30, 35)
STOCH_RSI_D, STOCH_RSI_RAW1, STOCH_RSI_RAW2, STOCH_RSI_K1, STOCH_RSI_K2 = range(35, 40)
_VALUES = 40

INPUTS: Final = (
    *(f"{kind}{length}" for length in (10, 20, 30, 50, 100, 200) for kind in ("sma", "ema")),
    *("hull9", "vwma20", "conversion", "base", "lead1_26", "lead2_26", "rsi", "stoch_k", "stoch_d", "cci"),
    *("adx", "plus_di", "minus_di", "ao", "mom", "macd", "signal", "stoch_rsi_k", "stoch_rsi_d", "williams_r"),
    *("bull", "bear", "uo"),
)
"""The values that votes compare. A trace `[T, PLACES, S]` holds the 26 ballots and then these."""
PLACES: Final = len(VOTES) + len(INPUTS)

_SIZES: Final = {
    "HIGH": 2,
    "LOW": 2,
    "RSI": 2,
    # Sums over the last 2, 5, 10 … bars, after the series itself: that of 10 is the sum of two of 5, five bars apart.
    "CLOSE": 16,
    "CLOSE2": 4,
    "CLOSE5": 8,
    "CLOSE10": 32,
    "CLOSE20": 32,
    "CLOSE50": 64,
    "CLOSE100": 128,
    "SOURCE": 32,
    "SOURCE2": 4,
    "SOURCE5": 8,
    "SOURCE10": 16,
    "TRADED": 8,
    "TRADED2": 4,
    "TRADED5": 8,
    "TRADED10": 16,
    "VOLUME": 8,
    "VOLUME2": 4,
    "VOLUME5": 8,
    "VOLUME10": 16,
    "MIDDLE": 8,
    "MIDDLE2": 16,
    "MIDDLE5": 16,
    "MIDDLE17": 32,
    "PRESSURE": 8,
    "PRESSURE2": 8,
    "PRESSURE7": 8,
    "PRESSURE14": 16,
    "RANGE": 8,
    "RANGE2": 8,
    "RANGE7": 8,
    "RANGE14": 16,
    # Extremes over the last 2, 4, 8 … bars: that of 8 is the extreme of two of 4, four bars apart.
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

HIGH, LOW, RSI = (RINGS[name] for name in ("HIGH", "LOW", "RSI"))
CLOSE, CLOSE2, CLOSE5, CLOSE10 = (RINGS[f"CLOSE{n}"] for n in ("", 2, 5, 10))
CLOSE20, CLOSE50, CLOSE100 = (RINGS[f"CLOSE{n}"] for n in (20, 50, 100))
SOURCE, SOURCE2, SOURCE5, SOURCE10 = (RINGS[f"SOURCE{n}"] for n in ("", 2, 5, 10))
TRADED, TRADED2, TRADED5, TRADED10 = (RINGS[f"TRADED{n}"] for n in ("", 2, 5, 10))
VOLUME, VOLUME2, VOLUME5, VOLUME10 = (RINGS[f"VOLUME{n}"] for n in ("", 2, 5, 10))
MIDDLE, MIDDLE2, MIDDLE5, MIDDLE17 = (RINGS[f"MIDDLE{n}"] for n in ("", 2, 5, 17))
PRESSURE, PRESSURE2, PRESSURE7, PRESSURE14 = (RINGS[f"PRESSURE{n}"] for n in ("", 2, 7, 14))
RANGE, RANGE2, RANGE7, RANGE14 = (RINGS[f"RANGE{n}"] for n in ("", 2, 7, 14))
HIGH2, HIGH4, HIGH8, HIGH16, HIGH32 = (RINGS[f"HIGH{n}"] for n in (2, 4, 8, 16, 32))
LOW2, LOW4, LOW8, LOW16, LOW32 = (RINGS[f"LOW{n}"] for n in (2, 4, 8, 16, 32))
RSI_HIGH2, RSI_HIGH4, RSI_HIGH8 = (RINGS[f"RSI_HIGH{n}"] for n in (2, 4, 8))
RSI_LOW2, RSI_LOW4, RSI_LOW8 = (RINGS[f"RSI_LOW{n}"] for n in (2, 4, 8))
LEAD1, LEAD2 = RINGS["LEAD1"], RINGS["LEAD2"]


_LARGE_PAGE: Final = 2**18  # numbers: 2 MiB


def _turned() -> NDArray[np.intp]:
    rows = np.arange(ROWS)
    for ring in RINGS.values():
        here = slice(ring.first, ring.first + ring.size)
        rows[here] = np.roll(rows[here], 1)
    return rows


TURNED: Final = _turned()
"""`column[TURNED]` is a symbol's state one phase later without a bar: values as they are, rings a bar further."""


def rotated(phase: int) -> NDArray[np.intp]:
    """`column[rotated(phase)]` is a symbol's state of that phase as it stands at phase 0."""
    rows = np.arange(ROWS)
    for ring in RINGS.values():
        here = slice(ring.first, ring.first + ring.size)
        rows[here] = np.roll(rows[here], -(phase % ring.size))
    return rows


def aligned(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An array whose rows of `WIDTH` each fill one cache line: one that straddles two costs twice.

    A large array fills large pages, which the system gives in a fraction of the time of the small ones around them.
    """
    size = math.prod(shape)
    unit = WIDTH if size < 2 * _LARGE_PAGE else _LARGE_PAGE
    raw = np.empty((-(-size // unit) + 1) * unit)
    start = -(raw.ctypes.data // 8) % unit
    return raw[start : start + size].reshape(shape)


def empty(blocks: int) -> NDArray[np.float64]:
    """The state `[blocks, ROWS, WIDTH]` of symbols that have seen no bar."""
    state = aligned((blocks, ROWS, WIDTH))
    state[:] = 0.0
    state[:, _FIRST_NA:_VALUES] = np.nan
    state[:, RSI.first : RSI.first + RSI.size] = np.nan
    return state
