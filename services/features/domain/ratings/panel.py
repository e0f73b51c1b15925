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
from services.features.domain.ratings.bars import Bars, checked_bars, packed, unpacked
from services.features.domain.ratings.rules import Rules, Switches, rules_named, switches

Array = NDArray[np.float64]

TILE: Final = 256
"""Symbols that one pass walks in step: their state stays in a core's second-level cache."""


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
    out = PanelRatings(*(np.empty(bars.close.shape) for _ in PanelRatings._fields))
    _walk(bars, rules, out, np.empty((0, kernel.BALLOTS, 0)), threads)
    return out


def panel_votes(bars: Bars, rules: Rules) -> Array:
    """The 26 votes `[T, 26, S]` of every bar, NaN where NA, in the order of `rules.VOTES`."""
    out = PanelRatings(*(np.empty(bars.close.shape) for _ in PanelRatings._fields))
    votes = np.empty((bars.close.shape[0], kernel.BALLOTS, bars.close.shape[1]))
    _walk(bars, rules, out, votes, 1)
    return votes


def panel_state(bars: Bars, rules: Rules, threads: int | None = None) -> Array:
    """The state `[layout.ROWS, S]` after the last bar, at phase T."""
    state = layout.empty(bars.close.shape[1])
    out = PanelRatings(*(np.empty(bars.close.shape) for _ in PanelRatings._fields))
    _walk(bars, rules, out, np.empty((0, kernel.BALLOTS, 0)), threads, state)
    return state


def _walk(
    bars: Bars, rules: Rules, out: PanelRatings, votes: Array, threads: int | None, state: Array | None = None
) -> None:
    width = bars.close.shape[1]
    numbers = switches(rules)

    def one(tile: tuple[int, int]) -> None:
        _advance_tile(bars, numbers, out, votes, state, *tile)

    tiles = list(_tiles(width, threads or os.cpu_count() or 1))
    if len(tiles) == 1:
        one(tiles[0])
        return
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for _ in pool.map(one, tiles):
            pass


def _tiles(width: int, threads: int) -> Iterator[tuple[int, int]]:
    count = max(-(-width // TILE), min(threads, -(-width // 64)))
    edges = [width * tile // count for tile in range(count + 1)]
    yield from pairwise(edges)


def _advance_tile(
    bars: Bars, rules: Switches, out: PanelRatings, votes: Array, state: Array | None, first: int, last: int
) -> None:
    tile_state = layout.empty(last - first)
    ballots = np.zeros((kernel.BALLOTS, last - first))
    if bars.gaps is None or not bars.gaps[first:last].any():
        with np.errstate(all="ignore"):
            kernel.advance(tile_state, 0, rules, first, last, *bars.arrays, *out, ballots, votes)
    else:
        tile, order = packed(bars, first, last)
        tile_out = PanelRatings(*(np.empty(tile.close.shape) for _ in out))
        tile_votes = np.empty((votes.shape[0], kernel.BALLOTS, last - first if votes.shape[0] else 0))
        with np.errstate(all="ignore"):
            kernel.advance(tile_state, 0, rules, 0, last - first, *tile.arrays, *tile_out, ballots, tile_votes)
        for whole, part in zip(out, tile_out, strict=True):
            whole[:, first:last] = unpacked(part, order)
        if votes.shape[0]:
            for vote in range(kernel.BALLOTS):
                votes[:, vote, first:last] = unpacked(tile_votes[:, vote], order)
    if state is not None:
        state[:, first:last] = tile_state
