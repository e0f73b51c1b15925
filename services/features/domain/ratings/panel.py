"""Ratings of a whole panel: `[T, S]` arrays in, `[T, S]` arrays out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.features.domain.ratings import kernel, layout
from services.features.domain.ratings.bars import Bars, checked_bars, packed, padded, unpacked
from services.features.domain.ratings.lanes import COMPILED, WIDTH
from services.features.domain.ratings.rules import Rules, Switches, rules_named, switches

Array = NDArray[np.float64]

TILE: Final = 64
"""The most symbols that one pass walks in step: their state, 7 KiB each, stays in a core's second-level cache."""

STRETCH: Final = 2_048
"""Bars that are copied at once where a tile has to be filled up: small enough to stay in the cache."""


class PanelRatings(NamedTuple):
    """Ratings in [−1, 1], RSI and ADX in [0, 100]: `[T, S]` for a panel, `[S]` for one bar; NaN where NA."""

    recommend_ma: Array
    recommend_other: Array
    recommend_all: Array
    rsi: Array
    adx: Array


def compute_panel(
    open: ArrayLike,  # noqa: A002  the field's name
    high: ArrayLike,
    low: ArrayLike,
    close: ArrayLike,
    volume: ArrayLike,
    rules: str = "screener",
    *,
    threads: int | None = None,
) -> PanelRatings:
    """Ratings, RSI and ADX of every bar of every symbol.

    The five arrays are time-major `[T, S]` (a row a bar, a column a symbol), ascending in time. A bar with a NaN
    open, high, low or close is no bar: its row is NaN and is not counted. A NaN volume counts as 0. `threads` is
    the most threads to use, by default one a core. Raises `ContractError` for other shapes and for infinities.
    """
    return panel_ratings(checked_bars(open, high, low, close, volume), rules_named(rules), threads)


def panel_ratings(bars: Bars, rules: Rules, threads: int | None = None) -> PanelRatings:
    """`compute_panel` of checked bars."""
    return _walk(bars, rules, threads)[0]


def panel_ratings_and_state(bars: Bars, rules: Rules, threads: int | None = None) -> tuple[PanelRatings, Array]:
    """`panel_ratings` and `panel_state` in one pass."""
    return _walk(bars, rules, threads)


def panel_trace(bars: Bars, rules: Rules) -> Array:
    """The 26 votes in the order of `rules.VOTES`, then `layout.INPUTS`, `[T, layout.PLACES, S]`; NaN where NA."""
    trace = np.empty((bars.close.shape[0], layout.PLACES, bars.close.shape[1]))
    _walk(bars, rules, 1, trace)
    return trace


def panel_state(bars: Bars, rules: Rules, threads: int | None = None) -> Array:
    """The state `[blocks, layout.ROWS, WIDTH]` after the last bar, at phase T.

    Symbol s is lane s % WIDTH of block s // WIDTH.
    """
    return _walk(bars, rules, threads)[1]


def _walk(bars: Bars, rules: Rules, threads: int | None, trace: Array | None = None) -> tuple[PanelRatings, Array]:
    width = bars.close.shape[1]
    state = layout.empty(-(-width // WIDTH))
    # In one piece, for large pages.
    out = PanelRatings(*layout.aligned((len(PanelRatings._fields), *bars.close.shape)))
    numbers = switches(rules)

    def one(tile: tuple[int, int]) -> None:
        first, last = tile
        own = state[first // WIDTH : -(-last // WIDTH)]
        as_they_lie = COMPILED and (last - first) % WIDTH == 0 and trace is None
        if as_they_lie and not bars.has_gaps(first, last):
            kernel.advance(own, 0, numbers, first, *bars.arrays, *out, None)
        elif COMPILED and last - first == 1 and trace is None:
            _advance_alone(own, numbers, bars, out, first)
        else:
            _advance_packed(own, numbers, bars, out, trace, first, last)

    threads = threads or os.cpu_count() or 1
    tiles = list(_tiles(width, threads))
    if len(tiles) == 1 or threads == 1:
        for tile in tiles:
            one(tile)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, tiles):
                pass
    return out, state


def _tiles(width: int, threads: int) -> Iterator[tuple[int, int]]:
    """First and last column of each: whole blocks, shared out evenly, then the columns that fill none."""
    whole = width - width % WIDTH
    if whole:
        blocks, count = whole // WIDTH, max(-(-whole // TILE), threads)
        edges = [number * blocks // count * WIDTH for number in range(count + 1)]
        yield from ((first, last) for first, last in pairwise(edges) if first < last)
    if whole < width:
        yield whole, width


def _advance_alone(state: Array, rules: Switches, bars: Bars, out: PanelRatings, column: int) -> None:
    """One symbol: in a state without lanes."""
    own, order = packed(bars, column, column + 1)
    alone = np.ascontiguousarray(state[:, :, 0])
    as_it_lies = order is None and own.close.shape == out.rsi.shape
    found = out if as_it_lies else PanelRatings(*(np.empty(own.close.shape) for _ in out))
    kernel.advance(alone, 0, rules, 0, *own.arrays, *found, None)
    state[:] = alone[:, :, None]
    if not as_it_lies:
        for whole, values in zip(out, found, strict=True):
            whole[:, column : column + 1] = values if order is None else unpacked(values, order)


def _advance_packed(
    state: Array, rules: Switches, bars: Bars, out: PanelRatings, trace: Array | None, first: int, last: int
) -> None:
    """A tile whose columns have gaps or fill no whole block: packed, and filled up stretch by stretch of time."""
    tile, order = packed(bars, first, last)
    height, width = tile.close.shape
    found = [whole[:, first:last] if order is None else np.empty((height, width)) for whole in out]
    traced = None if trace is None else np.empty((height, layout.PLACES, width))
    for start in range(0, height, STRETCH):
        rows = slice(start, start + STRETCH)
        stretch = padded(tile.rows(rows))
        part = PanelRatings(*(np.empty(stretch.close.shape) for _ in out))
        noted = None if trace is None else np.zeros((stretch.close.shape[0], layout.PLACES, stretch.close.shape[1]))
        with np.errstate(all="ignore"):
            kernel.advance(state, start, rules, 0, *stretch.arrays, *part, noted)
        for values, some in zip(found, part, strict=True):
            values[rows] = some[:, :width]
        if traced is not None and noted is not None:
            traced[rows] = noted[:, :, :width]
    if order is not None:
        for whole, values in zip(out, found, strict=True):
            whole[:, first:last] = unpacked(values, order)
    if trace is not None and traced is not None:
        for place in range(layout.PLACES):
            trace[:, place, first:last] = traced[:, place] if order is None else unpacked(traced[:, place], order)
        trace[:, :, first:last][np.broadcast_to(bars.missing[:, None, first:last], trace[:, :, first:last].shape)] = (
            np.nan
        )
