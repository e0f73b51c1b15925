"""The 26 votes, each in one place, in the order of the table in docs/ratings.md.

Every function takes a bar's values of one symbol and returns a ballot: whether it is known, buy, sell. `x1` is x on
the bar before (NaN where it does not exist; a comparison with NaN is false). `tie` is the distance up to which two
values count as equal: `PRICE_TIE` times |close| for prices and price differences, `SCALE_TIE` for
oscillators. `one_input` is True for rules in which one input alone decides whether a vote is NA.
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
def exists(x: Value) -> Any:
    return x == x  # noqa: PLR0124  NaN is the one value that differs from itself


@inlined
def ballot(known: Value, buy: Value, sell: Value) -> Any:
    """Whether a vote is not NA, whether it is +1, whether it is −1."""
    return known, known & buy, known & sell


# ---- moving averages ------------------------------------------------------------------------------------------------


@inlined
def average(defined: Value, close: Value, mean: Value, tie: Value) -> Any:
    """sma10 … sma200, ema10 … ema200, hull9, vwma20. Buy: close > average. NA without the average."""
    return ballot(defined, above(close, mean, tie), below(close, mean, tie))


@inlined
def ichimoku_never(defined: Any) -> Any:
    """ichimoku in `screener`: its conditions contradict each other, so 0 once lead2 and close[1] exist."""
    return ballot(defined, defined & False, defined & False)


@inlined
def ichimoku_base_line(defined: Any, close: Value, base: Value, tie: Value) -> Any:
    """ichimoku in `institutional`. Buy: close > base."""
    return ballot(defined, above(close, base, tie), below(close, base, tie))


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
def rsi(x: Value, x1: Value) -> Any:
    """Buy: < 30 and rising. Sell: > 70 and falling. NA unless RSI[1]."""
    return ballot(
        exists(x1),
        below(x, 30.0, SCALE_TIE) & above(x, x1, SCALE_TIE),
        above(x, 70.0, SCALE_TIE) & below(x, x1, SCALE_TIE),
    )


@inlined
def stochastic(k: Value, d: Value, k1: Value, d1: Value, one_input: bool) -> Any:
    """Buy: K < 20, D < 20, K > D. Sell: K > 80, D > 80, K < D. NA unless K, D, K[1], D[1] (one input: D[1])."""
    return ballot(
        exists(d1) & (one_input | (exists(k) & exists(d) & exists(k1))),
        below(k, 20.0, SCALE_TIE) & below(d, 20.0, SCALE_TIE) & above(k, d, SCALE_TIE),
        above(k, 80.0, SCALE_TIE) & above(d, 80.0, SCALE_TIE) & below(k, d, SCALE_TIE),
    )


@inlined
def cci(x: Value, x1: Value, one_input: bool) -> Any:
    """Buy: < −100 and rising. Sell: > 100 and falling. NA unless CCI, CCI[1] (one input: CCI[1])."""
    return ballot(
        exists(x1) & (one_input | exists(x)),
        below(x, -100.0, SCALE_TIE) & above(x, x1, SCALE_TIE),
        above(x, 100.0, SCALE_TIE) & below(x, x1, SCALE_TIE),
    )


@inlined
def adx(x: Value, x1: Value, plus: Value, minus: Value, plus1: Value, minus1: Value, one_input: bool) -> Any:
    """ADX > 20 and rising; buy: +DI > −DI, sell: +DI < −DI. NA unless ADX, ±DI, ±DI[1] (one input: ADX)."""
    trending = above(x, 20.0, SCALE_TIE) & above(x, x1, SCALE_TIE)
    return ballot(
        exists(x) & (one_input | (exists(plus) & exists(minus) & exists(plus1) & exists(minus1))),
        trending & above(plus, minus, SCALE_TIE),
        trending & below(plus, minus, SCALE_TIE),
    )


@inlined
def awesome(x: Value, x1: Value, x2: Value, tie: Value) -> Any:
    """Buy: AO > 0 and AO[1] ≤ 0, or AO > 0, AO[1] > 0, AO > AO[1], AO[2] > AO[1]. Sell: mirror. NA unless AO[1]."""
    return ballot(
        exists(x1),
        above(x, 0.0, tie) & ((x1 <= tie) | (above(x1, 0.0, tie) & above(x, x1, tie) & above(x2, x1, tie))),
        below(x, 0.0, tie) & ((x1 >= -tie) | (below(x1, 0.0, tie) & below(x, x1, tie) & below(x2, x1, tie))),
    )


@inlined
def momentum(x: Value, x1: Value, tie: Value) -> Any:
    """Buy: Mom > Mom[1]. Sell: Mom < Mom[1]. NA unless Mom[1]."""
    return ballot(exists(x1), above(x, x1, tie), below(x, x1, tie))


@inlined
def macd(x: Value, signal: Value, tie: Value) -> Any:
    """Buy: macd > signal. Sell: macd < signal. NA unless both."""
    return ballot(exists(x) & exists(signal), above(x, signal, tie), below(x, signal, tie))


@inlined
def stochastic_rsi(
    k: Value, d: Value, k1: Value, d1: Value, close: Value, ema50: Value, tie: Value, one_input: bool
) -> Any:
    """Buy: downtrend, K < 20, D < 20, K > D. Sell: uptrend, K > 80, D > 80, K < D.

    The trend is the EMA50 vote. NA unless K, D, K[1], D[1] (one input: EMA50).
    """
    every_input = exists(k) & exists(d) & exists(k1) & exists(d1)
    return ballot(
        (one_input & exists(ema50)) | ((not one_input) & every_input),
        below(close, ema50, tie) & below(k, 20.0, SCALE_TIE) & below(d, 20.0, SCALE_TIE) & above(k, d, SCALE_TIE),
        above(close, ema50, tie) & above(k, 80.0, SCALE_TIE) & above(d, 80.0, SCALE_TIE) & below(k, d, SCALE_TIE),
    )


@inlined
def williams_r(x: Value, x1: Value, one_input: bool) -> Any:
    """Buy: < −80 and rising. Sell: > −20 and falling. NA unless %R, %R[1] (one input: %R[1])."""
    return ballot(
        exists(x1) & (one_input | exists(x)),
        below(x, -80.0, SCALE_TIE) & above(x, x1, SCALE_TIE),
        above(x, -20.0, SCALE_TIE) & below(x, x1, SCALE_TIE),
    )


@inlined
def bull_bear(
    bull: Value, bear: Value, bull1: Value, bear1: Value, close: Value, ema50: Value, tie: Value, one_input: bool
) -> Any:
    """Buy: uptrend, bear < 0 and rising. Sell: downtrend, bull > 0 and falling.

    The trend is the EMA50 vote. NA unless bull[1], bear[1] (one input: EMA50).
    """
    return ballot(
        (one_input & exists(ema50)) | ((not one_input) & exists(bull1) & exists(bear1)),
        above(close, ema50, tie) & below(bear, 0.0, tie) & above(bear, bear1, tie),
        below(close, ema50, tie) & above(bull, 0.0, tie) & below(bull, bull1, tie),
    )


@inlined
def ultimate(x: Value) -> Any:
    """uo. Buy: > 70. Sell: < 30. NA without UO."""
    return ballot(exists(x), above(x, 70.0, SCALE_TIE), below(x, 30.0, SCALE_TIE))
