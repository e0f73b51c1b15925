"""The fused pass: one walk in time, eight symbols in step, nothing stored but what the next bar needs.

`advance` is the only compiled entry. The indicators are in `averages.py` and `oscillators.py`, the votes in `votes.py`,
the rows of a state in `layout.py`, what a symbol is in `lanes.py`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.features.domain.ratings import averages, lanes, layout, oscillators
from services.features.domain.ratings.here import (
    Bar,
    Here,
    ago,
    before,
    highest8,
    keep,
    lowest8,
    note,
    note_vote,
    place,
    push,
)
from services.features.domain.ratings.lanes import Value, entry, inlined, where
from services.features.domain.ratings.rules import VOTES, Switches
from services.features.domain.ratings.votes import PRICE_TIE, average, exists

Panel = NDArray[np.float64]

(
    SMA10, EMA10, SMA20, EMA20, SMA30, EMA30, SMA50, EMA50, SMA100, EMA100, SMA200, EMA200, HULL9, VWMA20, ICHIMOKU,
    RSI, STOCH, CCI, ADX, AO, MOM, MACD, STOCH_RSI, WILLIAMS_R, BULL_BEAR, UO,
) = range(len(VOTES))  # fmt: skip
_FIRST_AVERAGE: Final = place("sma10")


class Tally(NamedTuple):
    """Of one group: the sum of its votes, and how many of them are not NA."""

    total: Value
    voters: Value


@inlined
def counted(here: Here, vote: int, ballot: Any, tally: Tally) -> Tally:
    """The tally with one more ballot."""
    known, buy, sell = ballot
    note_vote(here, vote, where(known, where(buy, 1.0, where(sell, -1.0, 0.0)), np.nan))
    total = where(buy, tally.total + 1.0, tally.total)
    return Tally(where(sell, total - 1.0, total), where(known, tally.voters + 1.0, tally.voters))


@inlined
def simple_and_exponential(here: Here, bar: Bar, total: Value, length: int, row: int, vote: int, tally: Tally) -> Tally:
    tally = counted(here, vote, averages.simple(here, bar, total, length, _FIRST_AVERAGE + vote), tally)
    ema = averages.exponential(here, bar, length, row)
    note(here, _FIRST_AVERAGE + vote + 1, ema)
    defined = bar.settled | (bar.count >= float(length))
    return counted(here, vote + 1, average(defined, bar.close, ema, bar.tie), tally)


@inlined
def moving_averages(here: Here, bar: Bar, rules: Switches, high8: Value, low8: Value, tally: Tally) -> Tally:
    """The fifteen ballots."""
    sum10, sum20, sum30, sum50, sum100, sum200 = averages.closes(here, bar)
    tally = simple_and_exponential(here, bar, sum10, 10, layout.EMA10, SMA10, tally)
    tally = simple_and_exponential(here, bar, sum20, 20, layout.EMA20, SMA20, tally)
    tally = simple_and_exponential(here, bar, sum30, 30, layout.EMA30, SMA30, tally)
    tally = simple_and_exponential(here, bar, sum50, 50, layout.EMA50, SMA50, tally)
    tally = simple_and_exponential(here, bar, sum100, 100, layout.EMA100, SMA100, tally)
    tally = simple_and_exponential(here, bar, sum200, 200, layout.EMA200, SMA200, tally)
    tally = counted(here, HULL9, averages.hull9(here, bar), tally)
    tally = counted(here, VWMA20, averages.volume_weighted20(here, bar), tally)
    return counted(here, ICHIMOKU, averages.ichimoku(here, bar, rules, high8, low8), tally)


@inlined
def all_votes(here: Here, bar: Bar, rules: Switches) -> Any:
    """The sums of the ballots of both groups, RSI and ADX."""
    high1, low1 = ago(here, layout.HIGH, 1), ago(here, layout.LOW, 1)
    close1 = ago(here, layout.CLOSE, 1)
    high8 = highest8(here, bar.high, high1, layout.HIGH2, layout.HIGH4, layout.HIGH8)
    low8 = lowest8(here, bar.low, low1, layout.LOW2, layout.LOW4, layout.LOW8)
    no_votes = Tally(bar.close * 0.0, bar.close * 0.0)
    averages_tally = moving_averages(here, bar, rules, high8, low8, no_votes)
    ema50 = lanes.where(bar.settled | (bar.count >= 50.0), before(here, layout.EMA50), np.nan)

    rsi, ballot = oscillators.relative_strength(here, bar, close1)
    tally = counted(here, RSI, ballot, no_votes)
    push(here, layout.RSI, rsi)
    tally = counted(here, STOCH, oscillators.stochastic(here, bar, rules, high8, low8), tally)
    tally = counted(here, CCI, oscillators.commodity_channel(here, bar, rules), tally)
    adx, ballot = oscillators.directional(here, bar, rules, high1, low1, close1)
    tally = counted(here, ADX, ballot, tally)
    tally = counted(here, AO, oscillators.awesome(here, bar), tally)
    tally = counted(here, MOM, oscillators.momentum(here, bar), tally)
    tally = counted(here, MACD, oscillators.convergence(here, bar), tally)
    tally = counted(here, STOCH_RSI, oscillators.stochastic_rsi(here, bar, rules, rsi, ema50), tally)
    tally = counted(here, WILLIAMS_R, oscillators.williams_r(here, bar, rules, high8, low8), tally)
    tally = counted(here, BULL_BEAR, oscillators.bull_bear(here, bar, rules, ema50), tally)
    tally = counted(here, UO, oscillators.ultimate(here, bar, close1), tally)
    push(here, layout.HIGH, bar.high)
    push(here, layout.LOW, bar.low)
    return averages_tally, tally, rsi, adx


@entry
def advance(
    state: Panel, phase: int, rules: Switches, first: int,
    open_: Panel, high: Panel, low: Panel, close: Panel, volume: Panel,
    recommend_ma: Panel, recommend_other: Panel, recommend_all: Panel, rsi: Panel, adx: Panel, trace: Any,
) -> None:  # fmt: skip
    """Advance `state` by every bar of its columns, from `first` on, of the panels `[T, S]` and store what they give.

    `state` is `[blocks, layout.ROWS, WIDTH]` at `phase` bars; `trace` is `[T, layout.PLACES, S]`, or None where nobody
    asks for it. A column may begin with NaN bars; after its first bar it has to have one in every row.
    Uncompiled, the panels have to be exactly as wide as the state.
    """
    for row in range(close.shape[0]):
        for block in lanes.blocks(state):
            here = Here(state, block, phase + row, trace, row, first)
            # Before a symbol's first bar everything is NaN and is taken as 0, so that sums stay 0.
            top, bottom = lanes.take(high, row, first, block), lanes.take(low, row, first, block)
            price, traded = lanes.take(close, row, first, block), lanes.take(volume, row, first, block)
            exist = exists(lanes.take(open_, row, first, block) + top + bottom + price)
            count = before(here, layout.BARS) + where(exist, 1.0, 0.0)
            keep(here, layout.BARS, count)
            price, top, bottom = where(exist, price, 0.0), where(exist, top, 0.0), where(exist, bottom, 0.0)
            traded = where(exist & exists(traded), traded, 0.0)
            tie = PRICE_TIE * abs(price)
            # Past the longest warm-up, 201 bars and a seeded ADX, no warm-up condition is asked.
            if lanes.every((count > 201.0) & (before(here, layout.DX_SEEN) > 14.0)):
                averages_tally, others_tally, strength, trend = all_votes(
                    here, Bar(count, top, bottom, price, traded, tie, True), rules
                )
            else:
                averages_tally, others_tally, strength, trend = all_votes(
                    here, Bar(count, top, bottom, price, traded, tie, False), rules
                )
            ma, other = (
                averages_tally.total / averages_tally.voters,
                others_tally.total / others_tally.voters,
            )  # NA without a vote: 0/0
            both = rules.weight_ma * ma + rules.weight_other * other
            lanes.put(recommend_ma, row, first, block, ma)
            lanes.put(recommend_other, row, first, block, other)
            lanes.put(recommend_all, row, first, block, where(exists(ma), where(exists(other), both, ma), other))
            lanes.put(rsi, row, first, block, strength)
            lanes.put(adx, row, first, block, trend)
