"""The 26 votes, each in one place, in the order of the table in docs/ratings.md.

Every function takes a bar's values of one symbol and returns a ballot: whether it is known, buy, sell. `x1` is x on
the bar before (NaN where it does not exist; a comparison with NaN is false). `tie` is the distance up to which two
values count as equal: `PRICE_TIE` times |close| for prices and price differences, `SCALE_TIE` for
oscillators. `one_input` is True for rules in which one input alone decides whether a vote is NA. `settled` is True past
all warm-ups: what only a warm-up can lack is then not asked for.
"""

from __future__ import annotations

from typing import Any, Final

from services.features.domain.ratings.lanes import Value, inlined

PRICE_TIE: Final = 1e-9
SCALE_TIE: Final = 1e-7  # 1e-9 of 100


@inlined
def above(a: Value, b: Value, tie: Value) -> Any:
    return a - b > tie


@inlined
def below(a: Value, b: Value, tie: Value) -> Any:
    return a - b < -tie


@inlined
def over(x: Value, level: float) -> Any:
    """An oscillator above a fixed level."""
    return x > level + SCALE_TIE


@inlined
def under(x: Value, level: float) -> Any:
    return x < level - SCALE_TIE


@inlined
def exists(x: Value) -> Any:
    return x == x  # noqa: PLR0124  NaN is the one value that differs from itself


@inlined
def ballot(known: Value, buy: Value, sell: Value) -> Any:
    """Whether a vote is not NA, whether it is +1, whether it is −1."""
    return known, known & buy, known & sell


# ---- moving averages ------------------------------------------------------------------------------------------------


@inlined
def average(defined: Value, mean: Value, floor: Value, ceiling: Value) -> Any:
    """sma10 … sma200, ema10 … ema200, hull9, vwma20. Buy: close > average. NA without the average.

    `floor` and `ceiling` are close − tie and close + tie: one comparison each, for fourteen votes.
    """
    return ballot(defined, mean < floor, mean > ceiling)


@inlined
def ichimoku_never(defined: Any) -> Any:
    """ichimoku in `screener`: its conditions contradict each other, so 0 once lead2 and close[1] exist."""
    return ballot(defined, defined & False, defined & False)


@inlined
def ichimoku_base_line(defined: Any, base: Value, floor: Value, ceiling: Value) -> Any:
    """ichimoku in `institutional`. Buy: close > base."""
    return ballot(defined, base < floor, base > ceiling)


@inlined
def ichimoku_cloud(
    defined: Any, close: Value, conversion: Value, base: Value, lead1_26: Value, lead2_26: Value, tie: Value
) -> Any:
    """ichimoku in `pine_v3`. Buy: lead1[26] > lead2[26], base > lead1[26], conversion > base, close > conversion."""
    return ballot(
        defined,
        above(lead1_26, lead2_26, tie)
        & above(base, lead1_26, tie)
        & above(conversion, base, tie)
        & above(close, conversion, tie),
        below(lead1_26, lead2_26, tie)
        & below(base, lead1_26, tie)
        & below(conversion, base, tie)
        & below(close, conversion, tie),
    )


# ---- oscillators ----------------------------------------------------------------------------------------------------


@inlined
def rsi(x: Value, x1: Value, settled: bool) -> Any:
    """Buy: < 30 and rising. Sell: > 70 and falling. NA unless RSI[1]."""
    return ballot(
        settled | exists(x1),
        under(x, 30.0) & above(x, x1, SCALE_TIE),
        over(x, 70.0) & below(x, x1, SCALE_TIE),
    )


@inlined
def stochastic(k: Value, d: Value, d1: Value, one_input: bool) -> Any:
    """Buy: K < 20, D < 20, K > D. Sell: K > 80, D > 80, K < D. NA unless K, D, K[1], D[1] (one input: D[1])."""
    return ballot(
        exists(d1) & (one_input | exists(d)),  # K exists wherever D, its mean, does
        under(k, 20.0) & under(d, 20.0) & above(k, d, SCALE_TIE),
        over(k, 80.0) & over(d, 80.0) & below(k, d, SCALE_TIE),
    )


@inlined
def cci(x: Value, x1: Value, one_input: bool) -> Any:
    """Buy: < −100 and rising. Sell: > 100 and falling. NA unless CCI, CCI[1] (one input: CCI[1])."""
    return ballot(
        exists(x1) & (one_input | exists(x)),
        under(x, -100.0) & above(x, x1, SCALE_TIE),
        over(x, 100.0) & below(x, x1, SCALE_TIE),
    )


@inlined
def adx(
    x: Value, x1: Value, plus: Value, minus: Value, plus1: Value, minus1: Value, one_input: bool, settled: bool
) -> Any:
    """ADX > 20 and rising; buy: +DI > −DI, sell: +DI < −DI. NA unless ADX, ±DI, ±DI[1] (one input: ADX)."""
    trending = over(x, 20.0) & above(x, x1, SCALE_TIE)
    return ballot(
        settled | (exists(x) & (one_input | (exists(plus) & exists(minus) & exists(plus1) & exists(minus1)))),
        trending & above(plus, minus, SCALE_TIE),
        trending & below(plus, minus, SCALE_TIE),
    )


@inlined
def awesome(x: Value, x1: Value, x2: Value, tie: Value, settled: bool) -> Any:
    """Buy: AO > 0 and AO[1] ≤ 0, or AO > 0, AO[1] > 0, AO > AO[1], AO[2] > AO[1]. Sell: mirror. NA unless AO[1].

    AO[1] > 0 of the second condition is what the first leaves.
    """
    return ballot(
        settled | exists(x1),
        (x > tie) & ((x1 <= tie) | (above(x, x1, tie) & above(x2, x1, tie))),
        (x < -tie) & ((x1 >= -tie) | (below(x, x1, tie) & below(x2, x1, tie))),
    )


@inlined
def momentum(x: Value, x1: Value, tie: Value, settled: bool) -> Any:
    """Buy: Mom > Mom[1]. Sell: Mom < Mom[1]. NA unless Mom[1]."""
    return ballot(settled | exists(x1), above(x, x1, tie), below(x, x1, tie))


@inlined
def macd(x: Value, signal: Value, tie: Value, settled: bool) -> Any:
    """Buy: macd > signal. Sell: macd < signal. NA unless both."""
    return ballot(settled | (exists(x) & exists(signal)), above(x, signal, tie), below(x, signal, tie))


@inlined
def stochastic_rsi(k: Value, d: Value, d1: Value, trend: Any, one_input: bool) -> Any:
    """Buy: downtrend, K < 20, D < 20, K > D. Sell: uptrend, K > 80, D > 80, K < D.

    `trend` is EMA50's ballot. NA unless K, D, K[1], D[1] (one input: EMA50).
    """
    trend_exists, uptrend, downtrend = trend
    return ballot(
        (one_input & trend_exists) | ((not one_input) & exists(d) & exists(d1)),  # K exists wherever D does
        downtrend & under(k, 20.0) & under(d, 20.0) & above(k, d, SCALE_TIE),
        uptrend & over(k, 80.0) & over(d, 80.0) & below(k, d, SCALE_TIE),
    )


@inlined
def williams_r(x: Value, x1: Value, one_input: bool) -> Any:
    """Buy: < −80 and rising. Sell: > −20 and falling. NA unless %R, %R[1] (one input: %R[1])."""
    return ballot(
        exists(x1) & (one_input | exists(x)),
        under(x, -80.0) & above(x, x1, SCALE_TIE),
        over(x, -20.0) & below(x, x1, SCALE_TIE),
    )


@inlined
def bull_bear(
    bull: Value, bear: Value, bull1: Value, bear1: Value, trend: Any, tie: Value, one_input: bool, settled: bool
) -> Any:
    """Buy: uptrend, bear < 0 and rising. Sell: downtrend, bull > 0 and falling.

    `trend` is EMA50's ballot. NA unless bull[1], bear[1] (one input: EMA50).
    """
    trend_exists, uptrend, downtrend = trend
    return ballot(
        (one_input & trend_exists) | ((not one_input) & (settled | (exists(bull1) & exists(bear1)))),
        uptrend & (bear < -tie) & above(bear, bear1, tie),
        downtrend & (bull > tie) & below(bull, bull1, tie),
    )


@inlined
def ultimate(x: Value) -> Any:
    """uo. Buy: > 70. Sell: < 30. NA without UO."""
    return ballot(exists(x), over(x, 70.0), under(x, 30.0))
