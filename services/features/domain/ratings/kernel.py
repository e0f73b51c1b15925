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
    put,
    take,
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
    return Tally(lanes.swayed(tally.total, buy, sell), where(known, tally.voters + 1.0, tally.voters))


@inlined
def simple_and_exponential(here: Here, bar: Bar, total: Value, length: int, row: int, vote: int, tally: Tally) -> Any:
    """The tally with both ballots, and that of the exponential one."""
    tally = counted(here, vote, averages.simple(here, bar, total, length, _FIRST_AVERAGE + vote), tally)
    ema = averages.exponential(here, bar, length, row)
    note(here, _FIRST_AVERAGE + vote + 1, ema)
    defined = bar.settled | (bar.count >= float(length))
    trend = average(defined, ema, bar.floor, bar.ceiling)
    return counted(here, vote + 1, trend, tally), trend


@inlined
def moving_averages(here: Here, bar: Bar, rules: Switches, high8: Value, low8: Value, tally: Tally) -> Any:
    """The tally of the fifteen ballots, and that of EMA50: the trend that two oscillators ask for."""
    sum10, sum20, sum30, sum50, sum100, sum200 = averages.closes(here, bar)
    tally, _ = simple_and_exponential(here, bar, sum10, 10, layout.EMA10, SMA10, tally)
    tally, _ = simple_and_exponential(here, bar, sum20, 20, layout.EMA20, SMA20, tally)
    tally, _ = simple_and_exponential(here, bar, sum30, 30, layout.EMA30, SMA30, tally)
    tally, trend = simple_and_exponential(here, bar, sum50, 50, layout.EMA50, SMA50, tally)
    tally, _ = simple_and_exponential(here, bar, sum100, 100, layout.EMA100, SMA100, tally)
    tally, _ = simple_and_exponential(here, bar, sum200, 200, layout.EMA200, SMA200, tally)
    tally = counted(here, HULL9, averages.hull9(here, bar), tally)
    tally = counted(here, VWMA20, averages.volume_weighted20(here, bar), tally)
    return counted(here, ICHIMOKU, averages.ichimoku(here, bar, rules, high8, low8), tally), trend


@inlined
def all_votes(here: Here, bar: Bar, rules: Switches) -> Any:
    """The sums of the ballots of both groups, RSI and ADX."""
    high1, low1 = ago(here, layout.HIGH, 1), ago(here, layout.LOW, 1)
    close1 = ago(here, layout.CLOSE, 1)
    high8 = highest8(here, bar.high, high1, layout.HIGH2, layout.HIGH4, layout.HIGH8)
    low8 = lowest8(here, bar.low, low1, layout.LOW2, layout.LOW4, layout.LOW8)
    none = where(exists(bar.close), 0.0, 0.0)  # 0 for the compiler too, which then counts what is always there itself
    no_votes = Tally(none, none)
    averages_tally, trend = moving_averages(here, bar, rules, high8, low8, no_votes)

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
    tally = counted(here, STOCH_RSI, oscillators.stochastic_rsi(here, bar, rules, rsi, trend), tally)
    tally = counted(here, WILLIAMS_R, oscillators.williams_r(here, bar, rules, high8, low8), tally)
    tally = counted(here, BULL_BEAR, oscillators.bull_bear(here, bar, rules, trend), tally)
    tally = counted(here, UO, oscillators.ultimate(here, bar, close1), tally)
    push(here, layout.HIGH, bar.high)
    push(here, layout.LOW, bar.low)
    return averages_tally, tally, rsi, adx


@inlined
def at_bar(here: Here, count: Value, high: Value, low: Value, close: Value, volume: Value, settled: bool) -> Bar:
    keep(here, layout.BARS, count)
    tie = PRICE_TIE * abs(close)
    return Bar(count, high, low, close, volume, tie, close - tie, close + tie, settled)


@inlined
def next_bar(here: Here, rules: Switches, open_: Panel, high: Panel, low: Panel, close: Panel, volume: Panel) -> Any:
    """What `all_votes` gives of the bar that a row of the panels holds."""
    seen = before(here, layout.BARS)
    top, bottom, price, traded = take(here, high), take(here, low), take(here, close), take(here, volume)
    traded = where(exists(traded), traded, 0.0)
    # Past the longest warm-up, 201 bars and a seeded ADX, no warm-up condition is asked.
    if lanes.every((seen > 200.0) & (before(here, layout.DX_SEEN) > 14.0)):
        return all_votes(here, at_bar(here, seen + 1.0, top, bottom, price, traded, True), rules)
    # Before a symbol's first bar everything is NaN and is taken as 0, so that sums stay 0.
    exist = exists(take(here, open_) + top + bottom + price)
    top, bottom, price = where(exist, top, 0.0), where(exist, bottom, 0.0), where(exist, price, 0.0)
    traded, seen = where(exist, traded, 0.0), seen + where(exist, 1.0, 0.0)
    return all_votes(here, at_bar(here, seen, top, bottom, price, traded, False), rules)


@entry
def advance(
    state: Panel, phase: int, rules: Switches, first: int,
    open_: Panel, high: Panel, low: Panel, close: Panel, volume: Panel,
    recommend_ma: Panel, recommend_other: Panel, recommend_all: Panel, rsi: Panel, adx: Panel, trace: Any,
) -> None:  # fmt: skip
    """Advance `state` by every bar of its columns, from `first` on, of the panels `[T, S]` and store what they give.

    `state` is `[blocks, layout.ROWS, WIDTH]`, or `[symbols, layout.ROWS]` of single symbols, at `phase` bars; `trace`
    is `[T, layout.PLACES, S]`, or None where nobody asks for it. A column may begin with NaN bars; after its first bar
    it has to have one in every row.
    Uncompiled, the panels have to be exactly as wide as the state.
    """
    height = close.shape[0]
    for start in range(0, height, lanes.STEP):
        for block in lanes.blocks(state):
            for row in range(start, min(start + lanes.STEP, height)):
                here = Here(state, block, phase + row, trace, row, first)
                averages_tally, others_tally, strength, trend = next_bar(here, rules, open_, high, low, close, volume)
                ma = averages_tally.total / averages_tally.voters  # NA without a vote: 0/0
                other = others_tally.total / others_tally.voters
                both = rules.weight_ma * ma + rules.weight_other * other
                put(here, recommend_ma, ma)
                put(here, recommend_other, other)
                put(here, recommend_all, where(exists(ma), where(exists(other), both, ma), other))
                put(here, rsi, strength)
                put(here, adx, trend)
