"""The oscillators of a bar: each function works one out, keeps what the next bar needs and returns its ballot."""

from __future__ import annotations

from typing import Any

from services.features.domain.ratings import layout, votes
from services.features.domain.ratings.here import (
    Bar,
    Here,
    ago,
    before,
    highest8,
    keep,
    lowest8,
    note,
    place,
    push,
    sum5,
    sums20,
    sums28,
)
from services.features.domain.ratings.lanes import Value, inlined, where
from services.features.domain.ratings.rules import Switches
from services.features.domain.ratings.series import NA, if_seen, larger, mean_of_last_three, smaller, smooth

WILDER = 1.0 / 14.0

_RSI, _STOCH_K, _STOCH_D, _CCI, _ADX = (place(name) for name in ("rsi", "stoch_k", "stoch_d", "cci", "adx"))
_PLUS_DI, _MINUS_DI, _AO, _MOM = (place(name) for name in ("plus_di", "minus_di", "ao", "mom"))
_MACD, _SIGNAL, _STOCH_RSI_K, _STOCH_RSI_D = (place(name) for name in ("macd", "signal", "stoch_rsi_k", "stoch_rsi_d"))
_WILLIAMS_R, _BULL, _BEAR, _UO = (place(name) for name in ("williams_r", "bull", "bear", "uo"))


@inlined
def relative_strength(here: Here, bar: Bar, close1: Value) -> Any:
    """RSI 14 on Wilder averages of the up and down moves; 100 when that of the down moves is 0. And its ballot."""
    changes = bar.count - 1.0
    move = where(bar.settled | (changes > 0.0), bar.close - close1, 0.0)
    up = smooth(before(here, layout.GAIN), larger(move, 0.0), changes, 14.0, WILDER, bar.settled)
    down = smooth(before(here, layout.LOSS), larger(-move, 0.0), changes, 14.0, WILDER, bar.settled)
    rsi = if_seen(where(down == 0.0, 100.0, 100.0 * up / (up + down)), changes, 14.0, bar.settled)
    vote = votes.rsi(rsi, ago(here, layout.RSI, 1), bar.settled)
    keep(here, layout.GAIN, up)
    keep(here, layout.LOSS, down)
    note(here, _RSI, rsi)
    return rsi, vote


@inlined
def smoothed_twice(here: Here, raw: Value, first: int) -> Any:
    """K and D of a raw Stochastic, and D of the bar before; `first` is the row of the five that it keeps."""
    d1 = before(here, first)
    k, raw1, raw2 = mean_of_last_three(raw, before(here, first + 1), before(here, first + 2))
    d, k1, k2 = mean_of_last_three(k, before(here, first + 3), before(here, first + 4))
    keep(here, first, d)
    keep(here, first + 1, raw1)
    keep(here, first + 2, raw2)
    keep(here, first + 3, k1)
    keep(here, first + 4, k2)
    return k, d, d1


@inlined
def stochastic(here: Here, bar: Bar, rules: Switches, high8: Value, low8: Value) -> Value:
    """100 · (close − lowest) / (highest − lowest) over 8 or 14 bars, smoothed 3 (K) and 3 again (D); NA when flat."""
    overlap = rules.stochastic_length - 8
    top = larger(high8, ago(here, layout.HIGH8, overlap))
    bottom = smaller(low8, ago(here, layout.LOW8, overlap))
    full = bar.settled | (bar.count >= float(rules.stochastic_length))
    raw = where(full & (top > bottom), 100.0 * (bar.close - bottom) / (top - bottom), NA)
    k, d, d1 = smoothed_twice(here, raw, layout.STOCH_D)
    note(here, _STOCH_K, k)
    note(here, _STOCH_D, d)
    return votes.stochastic(k, d, d1, rules.one_input)


@inlined
def stochastic_rsi(here: Here, bar: Bar, rules: Switches, rsi: Value, trend: Any) -> Value:
    """The Stochastic of RSI 14 over 14 bars, smoothed 3 and 3; NA when the RSI's range is ≤ 1e-7."""
    rsi1 = ago(here, layout.RSI, 1)
    high8 = highest8(here, rsi, rsi1, layout.RSI_HIGH2, layout.RSI_HIGH4, layout.RSI_HIGH8)
    low8 = lowest8(here, rsi, rsi1, layout.RSI_LOW2, layout.RSI_LOW4, layout.RSI_LOW8)
    top = larger(high8, ago(here, layout.RSI_HIGH8, 6))
    bottom = smaller(low8, ago(here, layout.RSI_LOW8, 6))
    full = bar.settled | (bar.count >= 28.0)
    raw = where(full & (top - bottom > 1e-7), 100.0 * (rsi - bottom) / (top - bottom), NA)
    k, d, d1 = smoothed_twice(here, raw, layout.STOCH_RSI_D)
    note(here, _STOCH_RSI_K, k)
    note(here, _STOCH_RSI_D, d)
    return votes.stochastic_rsi(k, d, d1, trend, rules.one_input)


@inlined
def commodity_channel(here: Here, bar: Bar, rules: Switches) -> Value:
    """CCI 20: (x − mean) / (0.015 · mean deviation); NA when the mean deviation is ≤ 1e-9 · |mean|."""
    x = where(rules.cci_of_close, bar.close, (bar.high + bar.low + bar.close) * (1.0 / 3.0))
    _, total = sums20(here, x, layout.SOURCE, layout.SOURCE2, layout.SOURCE5, layout.SOURCE10)
    mean = total * (1.0 / 20.0)
    deviations = abs(x - mean)
    for bars in range(1, 20):
        deviations = deviations + abs(ago(here, layout.SOURCE, bars) - mean)
    deviation = deviations * (1.0 / 20.0)
    moves = (bar.settled | (bar.count >= 20.0)) & (deviation > 1e-9 * abs(mean))
    cci = where(moves, (x - mean) / (0.015 * deviation), NA)
    vote = votes.cci(cci, before(here, layout.CCI), rules.one_input)
    keep(here, layout.CCI, cci)
    note(here, _CCI, cci)
    return vote


@inlined
def directional(here: Here, bar: Bar, rules: Switches, high1: Value, low1: Value, close1: Value) -> Any:
    """±DI 14 and ADX 14; and its ballot.

    The true range is NA on the first bar; the first directional movement belongs to bar `moves_from` (0-based).
    DI is NA until a true range has been seen and holds its last value over a later 0/0; DX is 0 when +DI + −DI is 0.
    """
    ranges, moves = bar.count - 1.0, bar.count - rules.moves_from
    follows = bar.settled | (ranges > 0.0)
    up = where(follows, bar.high - high1, 0.0)
    down = where(follows, low1 - bar.low, 0.0)
    true_range = where(follows, larger(bar.high, close1) - smaller(bar.low, close1), 0.0)
    rise = where((up > down) & (up > 0.0), up, 0.0)
    fall = where((down > up) & (down > 0.0), down, 0.0)
    average_range = smooth(before(here, layout.TRUE_RANGE), true_range, ranges, 14.0, WILDER, bar.settled)
    average_rise = smooth(before(here, layout.PLUS_MOVE), rise, moves, 14.0, WILDER, bar.settled)
    average_fall = smooth(before(here, layout.MINUS_MOVE), fall, moves, 14.0, WILDER, bar.settled)
    keep(here, layout.TRUE_RANGE, average_range)
    keep(here, layout.PLUS_MOVE, average_rise)
    keep(here, layout.MINUS_MOVE, average_fall)

    plus1, minus1 = before(here, layout.PLUS_DI), before(here, layout.MINUS_DI)
    share = 100.0 / average_range
    defined = (bar.settled | (ranges >= 14.0)) & (average_range > 0.0)
    plus = where(defined, average_rise * share, plus1)
    minus = where(defined, average_fall * share, minus1)
    keep(here, layout.PLUS_DI, plus)
    keep(here, layout.MINUS_DI, minus)

    both = plus + minus
    seen = before(here, layout.DX_SEEN) + where(bar.settled | votes.exists(both), 1.0, 0.0)
    dx = where(both > 0.0, 100.0 * abs(plus - minus) / both, 0.0)
    smoothed = smooth(before(here, layout.DX_SUM), dx, seen, 14.0, WILDER, bar.settled)
    adx = if_seen(smoothed, seen, 14.0, bar.settled)
    vote = votes.adx(adx, before(here, layout.ADX), plus, minus, plus1, minus1, rules.one_input, bar.settled)
    keep(here, layout.DX_SEEN, seen)
    keep(here, layout.DX_SUM, smoothed)
    keep(here, layout.ADX, adx)
    note(here, _ADX, adx)
    note(here, _PLUS_DI, plus)
    note(here, _MINUS_DI, minus)
    return adx, vote


@inlined
def awesome(here: Here, bar: Bar) -> Value:
    """SMA5 − SMA34 of (high + low) / 2."""
    last5 = sum5(here, (bar.high + bar.low) * 0.5, layout.MIDDLE, layout.MIDDLE2)
    last15 = last5 + ago(here, layout.MIDDLE5, 5) + ago(here, layout.MIDDLE5, 10)
    last17 = last15 + ago(here, layout.MIDDLE2, 15)
    last34 = last17 + ago(here, layout.MIDDLE17, 17)
    push(here, layout.MIDDLE5, last5)
    push(here, layout.MIDDLE17, last17)
    ao, ao1 = (
        if_seen(last5 * (1.0 / 5.0) - last34 * (1.0 / 34.0), bar.count, 34.0, bar.settled),
        before(here, layout.AO1),
    )
    vote = votes.awesome(ao, ao1, before(here, layout.AO2), bar.tie, bar.settled)
    keep(here, layout.AO2, ao1)
    keep(here, layout.AO1, ao)
    note(here, _AO, ao)
    return vote


@inlined
def momentum(here: Here, bar: Bar) -> Value:
    """close − close ten bars ago."""
    mom = if_seen(bar.close - ago(here, layout.CLOSE, 10), bar.count, 11.0, bar.settled)
    vote = votes.momentum(mom, before(here, layout.MOM), bar.tie, bar.settled)
    keep(here, layout.MOM, mom)
    note(here, _MOM, mom)
    return vote


@inlined
def convergence(here: Here, bar: Bar) -> Value:
    """MACD: EMA12 − EMA26; its signal is their EMA9, seeded with the first nine."""
    fast = smooth(before(here, layout.EMA12), bar.close, bar.count, 12.0, 2.0 / 13.0, bar.settled)
    slow = smooth(before(here, layout.EMA26), bar.close, bar.count, 26.0, 2.0 / 27.0, bar.settled)
    seen = bar.count - 25.0
    macd = if_seen(fast - slow, seen, 1.0, bar.settled)
    known = where(bar.settled | (seen >= 1.0), macd, 0.0)
    smoothed = smooth(before(here, layout.SIGNAL), known, seen, 9.0, 2.0 / 10.0, bar.settled)
    signal = if_seen(smoothed, seen, 9.0, bar.settled)
    keep(here, layout.EMA12, fast)
    keep(here, layout.EMA26, slow)
    keep(here, layout.SIGNAL, smoothed)
    note(here, _MACD, macd)
    note(here, _SIGNAL, signal)
    return votes.macd(macd, signal, bar.tie, bar.settled)


@inlined
def williams_r(here: Here, bar: Bar, rules: Switches, high8: Value, low8: Value) -> Value:
    """−100 · (highest − close) / (highest − lowest) over 14 bars; NA when flat."""
    top = larger(high8, ago(here, layout.HIGH8, 6))
    bottom = smaller(low8, ago(here, layout.LOW8, 6))
    full = bar.settled | (bar.count >= 14.0)
    percent_r = where(full & (top > bottom), -100.0 * (top - bar.close) / (top - bottom), NA)
    vote = votes.williams_r(percent_r, before(here, layout.WILLIAMS_R), rules.one_input)
    keep(here, layout.WILLIAMS_R, percent_r)
    note(here, _WILLIAMS_R, percent_r)
    return vote


@inlined
def bull_bear(here: Here, bar: Bar, rules: Switches, trend: Any) -> Value:
    """Bull: high − EMA13; bear: low − EMA13."""
    smoothed = smooth(before(here, layout.EMA13), bar.close, bar.count, 13.0, 2.0 / 14.0, bar.settled)
    middle = if_seen(smoothed, bar.count, 13.0, bar.settled)
    bull, bear = bar.high - middle, bar.low - middle
    vote = votes.bull_bear(
        bull, bear, before(here, layout.BULL), before(here, layout.BEAR), trend, bar.tie, rules.one_input, bar.settled
    )
    keep(here, layout.EMA13, smoothed)
    keep(here, layout.BULL, bull)
    keep(here, layout.BEAR, bear)
    note(here, _BULL, bull)
    note(here, _BEAR, bear)
    return vote


@inlined
def ultimate(here: Here, bar: Bar, close1: Value) -> Value:
    """100 · (4 · a7 + 2 · a14 + a28) / 7, each a buying pressure (close − true low) over true range, summed.

    NA when a window's true ranges sum to 0: the shortest lies inside the others, so only its can alone.
    """
    follows = bar.settled | (bar.count > 1.0)
    true_low = smaller(bar.low, close1)
    pressure = where(follows, bar.close - true_low, 0.0)
    true_range = where(follows, larger(bar.high, close1) - true_low, 0.0)
    bought7, bought14, bought28 = sums28(
        here, pressure, layout.PRESSURE, layout.PRESSURE2, layout.PRESSURE7, layout.PRESSURE14
    )
    range7, range14, range28 = sums28(here, true_range, layout.RANGE, layout.RANGE2, layout.RANGE7, layout.RANGE14)
    shares = 4.0 * bought7 / range7 + 2.0 * bought14 / range14 + bought28 / range28
    full = bar.settled | (bar.count >= 29.0)
    uo = where(full & (abs(range7) > 0.0), shares * (100.0 / 7.0), NA)
    note(here, _UO, uo)
    return votes.ultimate(uo)
