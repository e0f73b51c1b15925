"""The fused pass: one walk in time, all symbols in step, nothing stored but what the next bar needs.

`advance` is the only compiled entry. It names which rows each indicator reads and writes; the indicators are in
`averages.py` and `oscillators.py`, the votes in `votes.py`, the rows in `layout.py`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.features.domain.ratings import averages, layout, oscillators
from services.features.domain.ratings.lanes import Row, entry, helper, lanes, rowwise, view, where
from services.features.domain.ratings.layout import Ring
from services.features.domain.ratings.rules import VOTES, Switches
from services.features.domain.ratings.votes import CAST, PRICE_TIE

Panel = NDArray[np.float64]

BALLOTS: Final = len(VOTES)
(
    SMA10, EMA10, SMA20, EMA20, SMA30, EMA30, SMA50, EMA50, SMA100, EMA100, SMA200, EMA200, HULL9, VWMA20, ICHIMOKU,
    RSI, STOCH, CCI, ADX, AO, MOM, MACD, STOCH_RSI, WILLIAMS_R, BULL_BEAR, UO,
) = range(BALLOTS)  # fmt: skip
_FIRST_OSCILLATOR: Final = RSI

_HIGH, _LOW, _CLOSE = layout.RINGS["HIGH"], layout.RINGS["LOW"], layout.RINGS["CLOSE"]
_RSI, _SOURCE = layout.RINGS["RSI"], layout.RINGS["SOURCE"]
_CLOSE_SUM, _CLOSE_LOST = layout.RINGS["CLOSE_SUM"], layout.RINGS["CLOSE_SUM_LOST"]
_HL2_SUM, _HL2_LOST = layout.RINGS["HL2_SUM"], layout.RINGS["HL2_SUM_LOST"]
_SOURCE_SUM, _SOURCE_LOST = layout.RINGS["SOURCE_SUM"], layout.RINGS["SOURCE_SUM_LOST"]
_TRADED_SUM, _TRADED_LOST = layout.RINGS["TRADED_SUM"], layout.RINGS["TRADED_SUM_LOST"]
_VOLUME_SUM, _VOLUME_LOST = layout.RINGS["VOLUME_SUM"], layout.RINGS["VOLUME_SUM_LOST"]
_PRESSURE_SUM, _PRESSURE_LOST = layout.RINGS["PRESSURE_SUM"], layout.RINGS["PRESSURE_SUM_LOST"]
_RANGE_SUM, _RANGE_LOST = layout.RINGS["RANGE_SUM"], layout.RINGS["RANGE_SUM_LOST"]
_HIGH2, _HIGH4, _HIGH8 = layout.RINGS["HIGH2"], layout.RINGS["HIGH4"], layout.RINGS["HIGH8"]
_HIGH16, _HIGH32 = layout.RINGS["HIGH16"], layout.RINGS["HIGH32"]
_LOW2, _LOW4, _LOW8 = layout.RINGS["LOW2"], layout.RINGS["LOW4"], layout.RINGS["LOW8"]
_LOW16, _LOW32 = layout.RINGS["LOW16"], layout.RINGS["LOW32"]
_RSI_HIGH2, _RSI_HIGH4, _RSI_HIGH8 = layout.RINGS["RSI_HIGH2"], layout.RINGS["RSI_HIGH4"], layout.RINGS["RSI_HIGH8"]
_RSI_LOW2, _RSI_LOW4, _RSI_LOW8 = layout.RINGS["RSI_LOW2"], layout.RINGS["RSI_LOW4"], layout.RINGS["RSI_LOW8"]
_LEAD1, _LEAD2 = layout.RINGS["LEAD1"], layout.RINGS["LEAD2"]


@view
def ago(state: Panel, ring: Ring, phase: int, bars: int) -> Any:
    """The row of `ring` that many bars before `phase`."""
    return state[ring.first + ((phase - bars) & (ring.size - 1))]


@rowwise
def admit(
    open_: Row, high_in: Row, low_in: Row, close_in: Row, volume_in: Row,
    bars: Row, tie: Row, high: Row, low: Row, close: Row, volume: Row,
) -> None:  # fmt: skip
    """Take a bar in. Before a symbol's first bar everything is NaN and is taken as 0, so that sums stay 0."""
    for s in lanes(bars.size):
        price = close_in[s]
        whole = open_[s] + high_in[s] + low_in[s] + price
        here = whole == whole  # noqa: PLR0124
        traded = volume_in[s]
        bars[s] = bars[s] + where(here, 1.0, 0.0)
        high[s] = where(here, high_in[s], 0.0)
        low[s] = where(here, low_in[s], 0.0)
        close[s] = where(here, price, 0.0)
        volume[s] = where(here & (traded == traded), traded, 0.0)  # noqa: PLR0124
        tie[s] = where(here, PRICE_TIE * abs(price), 0.0)


@rowwise
def rate(
    ballots: Panel, weight_ma: float, weight_other: float, rsi_in: Row, adx_in: Row,
    recommend_ma: Row, recommend_other: Row, recommend_all: Row, rsi: Row, adx: Row,
) -> None:  # fmt: skip
    """Count the ballots: MA and Other are the means of their votes that are not NA; All is of both, or the one."""
    for s in lanes(rsi.size):
        averages_cast = ballots[0, s]
        for vote in range(1, _FIRST_OSCILLATOR):
            averages_cast = averages_cast + ballots[vote, s]
        oscillators_cast = ballots[_FIRST_OSCILLATOR, s]
        for vote in range(_FIRST_OSCILLATOR + 1, BALLOTS):
            oscillators_cast = oscillators_cast + ballots[vote, s]
        voters = np.floor(averages_cast * (1.0 / CAST) + 0.5)
        ma = (averages_cast - CAST * voters) / voters
        voters = np.floor(oscillators_cast * (1.0 / CAST) + 0.5)
        other = (oscillators_cast - CAST * voters) / voters
        both = weight_ma * ma + weight_other * other
        recommend_all[s] = where(ma == ma, where(other == other, both, ma), other)  # noqa: PLR0124
        recommend_ma[s] = ma
        recommend_other[s] = other
        rsi[s] = rsi_in[s]
        adx[s] = adx_in[s]


@rowwise
def record(ballots: Row, votes: Row) -> None:
    for s in lanes(votes.size):
        votes[s] = where(ballots[s] == 0.0, np.nan, ballots[s] - CAST)


@helper
def moving_averages(settled: bool, state: Panel, ballots: Panel, t: int) -> None:
    close, bars, tie = ago(state, _CLOSE, t, 0), state[layout.BARS], state[layout.TIE]
    total, lost = ago(state, _CLOSE_SUM, t, 0), ago(state, _CLOSE_LOST, t, 0)
    averages.running_sum_of_close(close, ago(state, _CLOSE_SUM, t, 1), ago(state, _CLOSE_LOST, t, 1), total, lost)
    for index in range(6):
        length = (10, 20, 30, 50, 100, 200)[index]
        averages.simple_and_exponential(
            settled, float(length), close, bars, tie, total, lost,
            ago(state, _CLOSE_SUM, t, length), ago(state, _CLOSE_LOST, t, length),
            state[layout.SMA10 + index], state[layout.EMA10 + index],
            ballots[SMA10 + 2 * index], ballots[SMA10 + 2 * index + 1],
        )  # fmt: skip
    averages.ema_value(settled, 50.0, bars, state[layout.EMA50], state[layout.EMA50_VALUE])
    averages.hull9(
        settled, close,
        ago(state, _CLOSE, t, 1), ago(state, _CLOSE, t, 2), ago(state, _CLOSE, t, 3), ago(state, _CLOSE, t, 4),
        ago(state, _CLOSE, t, 5), ago(state, _CLOSE, t, 6), ago(state, _CLOSE, t, 7), ago(state, _CLOSE, t, 8),
        bars, tie, state[layout.HULL_RAW], state[layout.HULL_RAW1], state[layout.HULL9], ballots[HULL9],
    )  # fmt: skip
    averages.volume_weighted20(
        settled, close, state[layout.VOLUME], bars, tie,
        ago(state, _TRADED_SUM, t, 1), ago(state, _TRADED_LOST, t, 1),
        ago(state, _TRADED_SUM, t, 0), ago(state, _TRADED_LOST, t, 0),
        ago(state, _TRADED_SUM, t, 20), ago(state, _TRADED_LOST, t, 20),
        ago(state, _VOLUME_SUM, t, 1), ago(state, _VOLUME_LOST, t, 1),
        ago(state, _VOLUME_SUM, t, 0), ago(state, _VOLUME_LOST, t, 0),
        ago(state, _VOLUME_SUM, t, 20), ago(state, _VOLUME_LOST, t, 20),
        state[layout.VWMA20], ballots[VWMA20],
    )  # fmt: skip


@helper
def extremes(state: Panel, t: int) -> None:
    averages.highest(
        ago(state, _HIGH, t, 0), ago(state, _HIGH, t, 1), ago(state, _HIGH2, t, 2), ago(state, _HIGH4, t, 4),
        ago(state, _HIGH2, t, 0), ago(state, _HIGH4, t, 0), ago(state, _HIGH8, t, 0),
    )  # fmt: skip
    averages.lowest(
        ago(state, _LOW, t, 0), ago(state, _LOW, t, 1), ago(state, _LOW2, t, 2), ago(state, _LOW4, t, 4),
        ago(state, _LOW2, t, 0), ago(state, _LOW4, t, 0), ago(state, _LOW8, t, 0),
    )  # fmt: skip


@helper
def ichimoku(settled: bool, state: Panel, ballots: Panel, t: int, asks: int) -> None:
    bars, close, tie = state[layout.BARS], ago(state, _CLOSE, t, 0), state[layout.TIE]
    conversion, base = state[layout.CONVERSION], state[layout.BASE]
    if asks == 0:
        averages.ichimoku_never(settled, bars, ballots[ICHIMOKU])
        return
    averages.midpoints(
        settled, bars,
        ago(state, _HIGH8, t, 0), ago(state, _HIGH8, t, 1), ago(state, _HIGH8, t, 8), ago(state, _HIGH16, t, 10),
        ago(state, _HIGH16, t, 16), ago(state, _HIGH32, t, 20), ago(state, _HIGH16, t, 0), ago(state, _HIGH32, t, 0),
        ago(state, _LOW8, t, 0), ago(state, _LOW8, t, 1), ago(state, _LOW8, t, 8), ago(state, _LOW16, t, 10),
        ago(state, _LOW16, t, 16), ago(state, _LOW32, t, 20), ago(state, _LOW16, t, 0), ago(state, _LOW32, t, 0),
        conversion, base, ago(state, _LEAD1, t, 0), ago(state, _LEAD2, t, 0),
    )  # fmt: skip
    if asks == 1:
        averages.ichimoku_cloud(
            settled, close, bars, tie, conversion, base, ago(state, _LEAD1, t, 26), ago(state, _LEAD2, t, 26),
            state[layout.LEAD1_26], state[layout.LEAD2_26], ballots[ICHIMOKU],
        )  # fmt: skip
    else:
        averages.ichimoku_base_line(settled, close, bars, tie, base, ballots[ICHIMOKU])


@helper
def oscillate(settled: bool, state: Panel, ballots: Panel, t: int, rules: Switches) -> None:
    high, low, close = ago(state, _HIGH, t, 0), ago(state, _LOW, t, 0), ago(state, _CLOSE, t, 0)
    high1, low1, close1 = ago(state, _HIGH, t, 1), ago(state, _LOW, t, 1), ago(state, _CLOSE, t, 1)
    bars, tie, ema50 = state[layout.BARS], state[layout.TIE], state[layout.EMA50_VALUE]
    one_input = rules.one_input
    high8, low8 = ago(state, _HIGH8, t, 0), ago(state, _LOW8, t, 0)
    oscillators.relative_strength(
        settled, close, close1, bars, state[layout.GAIN], state[layout.LOSS],
        ago(state, _RSI, t, 1), ago(state, _RSI, t, 0), ballots[RSI],
    )  # fmt: skip
    overlap = rules.stochastic_length - 8
    oscillators.stochastic(
        settled, float(rules.stochastic_length), one_input, close,
        high8, ago(state, _HIGH8, t, overlap), low8, ago(state, _LOW8, t, overlap), bars,
        state[layout.STOCH_RAW1], state[layout.STOCH_RAW2], state[layout.STOCH_K1], state[layout.STOCH_K2],
        state[layout.STOCH_K], state[layout.STOCH_D], ballots[STOCH],
    )  # fmt: skip
    oscillators.source_of_cci(
        rules.cci_of_close, high, low, close, ago(state, _SOURCE_SUM, t, 1), ago(state, _SOURCE_LOST, t, 1),
        ago(state, _SOURCE_SUM, t, 0), ago(state, _SOURCE_LOST, t, 0), ago(state, _SOURCE, t, 0),
    )  # fmt: skip
    oscillators.commodity_channel(
        settled, one_input, bars, ago(state, _SOURCE_SUM, t, 0), ago(state, _SOURCE_LOST, t, 0),
        ago(state, _SOURCE_SUM, t, 20), ago(state, _SOURCE_LOST, t, 20),
        ago(state, _SOURCE, t, 0), ago(state, _SOURCE, t, 1), ago(state, _SOURCE, t, 2), ago(state, _SOURCE, t, 3),
        ago(state, _SOURCE, t, 4), ago(state, _SOURCE, t, 5), ago(state, _SOURCE, t, 6), ago(state, _SOURCE, t, 7),
        ago(state, _SOURCE, t, 8), ago(state, _SOURCE, t, 9), ago(state, _SOURCE, t, 10), ago(state, _SOURCE, t, 11),
        ago(state, _SOURCE, t, 12), ago(state, _SOURCE, t, 13), ago(state, _SOURCE, t, 14), ago(state, _SOURCE, t, 15),
        ago(state, _SOURCE, t, 16), ago(state, _SOURCE, t, 17), ago(state, _SOURCE, t, 18), ago(state, _SOURCE, t, 19),
        state[layout.CCI], ballots[CCI],
    )  # fmt: skip
    oscillators.directional(
        settled, rules.moves_from, one_input, high, low, high1, low1, close1, bars, state[layout.TRUE_RANGE],
        state[layout.PLUS_MOVE], state[layout.MINUS_MOVE], state[layout.PLUS_DI], state[layout.MINUS_DI],
        state[layout.DX_SEEN], state[layout.DX_SUM], state[layout.ADX], ballots[ADX],
    )  # fmt: skip
    oscillators.awesome(
        settled, high, low, bars, tie, ago(state, _HL2_SUM, t, 1), ago(state, _HL2_LOST, t, 1),
        ago(state, _HL2_SUM, t, 0), ago(state, _HL2_LOST, t, 0),
        ago(state, _HL2_SUM, t, 5), ago(state, _HL2_LOST, t, 5),
        ago(state, _HL2_SUM, t, 34), ago(state, _HL2_LOST, t, 34), state[layout.AO], state[layout.AO1], ballots[AO],
    )  # fmt: skip
    oscillators.momentum(settled, close, ago(state, _CLOSE, t, 10), bars, tie, state[layout.MOM], ballots[MOM])
    oscillators.convergence(
        settled, close, bars, tie, state[layout.EMA12], state[layout.EMA26], state[layout.SIGNAL_SUM],
        state[layout.MACD], state[layout.SIGNAL], ballots[MACD],
    )  # fmt: skip
    averages.highest(
        ago(state, _RSI, t, 0), ago(state, _RSI, t, 1), ago(state, _RSI_HIGH2, t, 2), ago(state, _RSI_HIGH4, t, 4),
        ago(state, _RSI_HIGH2, t, 0), ago(state, _RSI_HIGH4, t, 0), ago(state, _RSI_HIGH8, t, 0),
    )  # fmt: skip
    averages.lowest(
        ago(state, _RSI, t, 0), ago(state, _RSI, t, 1), ago(state, _RSI_LOW2, t, 2), ago(state, _RSI_LOW4, t, 4),
        ago(state, _RSI_LOW2, t, 0), ago(state, _RSI_LOW4, t, 0), ago(state, _RSI_LOW8, t, 0),
    )  # fmt: skip
    oscillators.stochastic_rsi(
        settled, one_input, ago(state, _RSI, t, 0), ago(state, _RSI_HIGH8, t, 0), ago(state, _RSI_HIGH8, t, 6),
        ago(state, _RSI_LOW8, t, 0), ago(state, _RSI_LOW8, t, 6), close, ema50, bars, tie,
        state[layout.STOCH_RSI_RAW1], state[layout.STOCH_RSI_RAW2],
        state[layout.STOCH_RSI_K1], state[layout.STOCH_RSI_K2],
        state[layout.STOCH_RSI_K], state[layout.STOCH_RSI_D], ballots[STOCH_RSI],
    )  # fmt: skip
    oscillators.williams_r(
        settled, one_input, close, high8, ago(state, _HIGH8, t, 6), low8, ago(state, _LOW8, t, 6), bars,
        state[layout.WILLIAMS_R], ballots[WILLIAMS_R],
    )  # fmt: skip
    oscillators.bull_bear(
        settled, one_input, high, low, close, ema50, bars, tie,
        state[layout.EMA13], state[layout.BULL], state[layout.BEAR], ballots[BULL_BEAR],
    )  # fmt: skip
    oscillators.pressure_and_range(
        settled, high, low, close, close1, bars,
        ago(state, _PRESSURE_SUM, t, 1), ago(state, _PRESSURE_LOST, t, 1),
        ago(state, _PRESSURE_SUM, t, 0), ago(state, _PRESSURE_LOST, t, 0),
        ago(state, _RANGE_SUM, t, 1), ago(state, _RANGE_LOST, t, 1),
        ago(state, _RANGE_SUM, t, 0), ago(state, _RANGE_LOST, t, 0),
    )  # fmt: skip
    oscillators.ultimate(
        settled, bars, ago(state, _PRESSURE_SUM, t, 0), ago(state, _PRESSURE_LOST, t, 0),
        ago(state, _RANGE_SUM, t, 0), ago(state, _RANGE_LOST, t, 0),
        ago(state, _PRESSURE_SUM, t, 7), ago(state, _PRESSURE_LOST, t, 7),
        ago(state, _PRESSURE_SUM, t, 14), ago(state, _PRESSURE_LOST, t, 14),
        ago(state, _PRESSURE_SUM, t, 28), ago(state, _PRESSURE_LOST, t, 28),
        ago(state, _RANGE_SUM, t, 7), ago(state, _RANGE_LOST, t, 7),
        ago(state, _RANGE_SUM, t, 14), ago(state, _RANGE_LOST, t, 14),
        ago(state, _RANGE_SUM, t, 28), ago(state, _RANGE_LOST, t, 28),
        state[layout.UO], ballots[UO],
    )  # fmt: skip


@helper
def vote(settled: bool, state: Panel, ballots: Panel, t: int, rules: Switches) -> None:
    moving_averages(settled, state, ballots, t)
    extremes(state, t)
    ichimoku(settled, state, ballots, t, rules.ichimoku)
    oscillate(settled, state, ballots, t, rules)


@helper
def past_warm_up(state: Panel) -> bool:
    """Whether every symbol is past the longest warm-up, 201 bars, and the ADX of every one is seeded."""
    for s in range(state.shape[1]):  # noqa: SIM110  # compiled
        if state[layout.BARS, s] <= 201.0 or state[layout.DX_SEEN, s] <= 14.0:
            return False
    return True


@entry
def advance(
    state: Panel, phase: int, rules: Switches, first: int, last: int,
    open_: Panel, high: Panel, low: Panel, close: Panel, volume: Panel,
    recommend_ma: Panel, recommend_other: Panel, recommend_all: Panel, rsi: Panel, adx: Panel,
    ballots: Panel, votes: Any,
) -> None:  # fmt: skip
    """Advance `state` by every bar of columns `first` to `last` of the panels `[T, S]` and store what they give.

    `state` is `[layout.ROWS, last - first]` at `phase` bars; `ballots` is scratch `[BALLOTS, last - first]`;
    `votes` is `[T, BALLOTS, S]`, or `[0, BALLOTS, 0]` where nobody asks for them. A column may begin with NaN
    bars; after its first bar it has to have one in every row.
    """
    settled = False
    for row in range(close.shape[0]):
        t = phase + row
        admit(
            open_[row, first:last], high[row, first:last], low[row, first:last], close[row, first:last],
            volume[row, first:last], state[layout.BARS], state[layout.TIE],
            ago(state, _HIGH, t, 0), ago(state, _LOW, t, 0), ago(state, _CLOSE, t, 0), state[layout.VOLUME],
        )  # fmt: skip
        settled = settled or past_warm_up(state)
        if settled:
            vote(True, state, ballots, t, rules)
        else:
            vote(False, state, ballots, t, rules)
        rate(
            ballots, rules.weight_ma, rules.weight_other, ago(state, _RSI, t, 0), state[layout.ADX],
            recommend_ma[row, first:last], recommend_other[row, first:last], recommend_all[row, first:last],
            rsi[row, first:last], adx[row, first:last],
        )  # fmt: skip
        if votes.shape[0] > 0:
            for ballot in range(BALLOTS):
                record(ballots[ballot], votes[row, ballot, first:last])
