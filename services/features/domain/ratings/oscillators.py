"""The oscillators of a bar and their votes. One function an indicator; rows in, rows out (see `lanes.py`)."""

from __future__ import annotations

from services.features.domain.ratings import votes
from services.features.domain.ratings.lanes import Row, lanes, rowwise, where
from services.features.domain.ratings.series import NA, add, if_seen, larger, mean_of_last_three, since, smaller, smooth

WILDER = 1.0 / 14.0


@rowwise
def relative_strength(
    settled: bool, close: Row, close1: Row, bars: Row, gain: Row, loss: Row, rsi1: Row, rsi: Row, vote: Row
) -> None:
    """RSI 14 on Wilder averages of the up and down moves; 100 when the average down move is exactly 0."""
    for s in lanes(close.size):
        changes = bars[s] - 1.0
        move = where(settled | (changes > 0.0), close[s] - close1[s], 0.0)
        up = smooth(gain[s], larger(move, 0.0), changes, 14.0, WILDER, settled)
        down = smooth(loss[s], larger(-move, 0.0), changes, 14.0, WILDER, settled)
        strength = if_seen(where(down == 0.0, 100.0, 100.0 * up / (up + down)), changes, 14.0, settled)
        vote[s] = votes.rsi(strength, rsi1[s])
        rsi[s] = strength
        gain[s] = up
        loss[s] = down


@rowwise
def stochastic(
    settled: bool, length: float, one_input: bool, close: Row,
    highest: Row, highest_before: Row, lowest: Row, lowest_before: Row, bars: Row,
    raw1: Row, raw2: Row, k_seen1: Row, k_seen2: Row, k: Row, d: Row, vote: Row,
) -> None:  # fmt: skip
    """100 · (close − lowest) / (highest − lowest) over `length` bars, smoothed 3 (K) and 3 again (D); NA when flat.

    The extremes over `length` bars come as two overlapping windows.
    """
    for s in lanes(close.size):
        top = larger(highest[s], highest_before[s])
        bottom = smaller(lowest[s], lowest_before[s])
        raw = where((settled | (bars[s] >= length)) & (top > bottom), 100.0 * (close[s] - bottom) / (top - bottom), NA)
        fast, raw_1, raw_2 = mean_of_last_three(raw, raw1[s], raw2[s])
        slow, k_1, k_2 = mean_of_last_three(fast, k_seen1[s], k_seen2[s])
        vote[s] = votes.stochastic(fast, slow, k[s], d[s], one_input)
        k[s] = fast
        d[s] = slow
        raw2[s] = raw_2
        raw1[s] = raw_1
        k_seen2[s] = k_2
        k_seen1[s] = k_1


@rowwise
def stochastic_rsi(
    settled: bool, one_input: bool, rsi: Row, highest: Row, highest_before: Row, lowest: Row, lowest_before: Row,
    close: Row, ema50: Row, bars: Row, tie: Row,
    raw1: Row, raw2: Row, k_seen1: Row, k_seen2: Row, k: Row, d: Row, vote: Row,
) -> None:  # fmt: skip
    """The Stochastic of RSI 14 over 14 bars, smoothed 3 and 3; NA when the RSI's range is ≤ 1e-7."""
    for s in lanes(close.size):
        top = larger(highest[s], highest_before[s])
        bottom = smaller(lowest[s], lowest_before[s])
        raw = where(
            (settled | (bars[s] >= 28.0)) & (top - bottom > 1e-7), 100.0 * (rsi[s] - bottom) / (top - bottom), NA
        )
        fast, raw_1, raw_2 = mean_of_last_three(raw, raw1[s], raw2[s])
        slow, k_1, k_2 = mean_of_last_three(fast, k_seen1[s], k_seen2[s])
        vote[s] = votes.stochastic_rsi(fast, slow, k[s], d[s], close[s], ema50[s], tie[s], one_input)
        k[s] = fast
        d[s] = slow
        raw2[s] = raw_2
        raw1[s] = raw_1
        k_seen2[s] = k_2
        k_seen1[s] = k_1


@rowwise
def source_of_cci(
    of_close: bool, high: Row, low: Row, close: Row, total1: Row, lost1: Row, total: Row, lost: Row, source: Row
) -> None:
    for s in lanes(close.size):
        x = where(of_close, close[s], (high[s] + low[s] + close[s]) * (1.0 / 3.0))
        total[s], lost[s] = add(total1[s], lost1[s], x)
        source[s] = x


@rowwise
def commodity_channel(
    settled: bool, one_input: bool, bars: Row, total: Row, lost: Row, total20: Row, lost20: Row,
    x0: Row, x1: Row, x2: Row, x3: Row, x4: Row, x5: Row, x6: Row, x7: Row, x8: Row, x9: Row,
    x10: Row, x11: Row, x12: Row, x13: Row, x14: Row, x15: Row, x16: Row, x17: Row, x18: Row, x19: Row,
    cci: Row, vote: Row,
) -> None:  # fmt: skip
    """CCI 20: (x − mean) / (0.015 · mean deviation); NA when the mean deviation is ≤ 1e-9 · |mean|."""
    for s in lanes(bars.size):
        mean = since(total[s], lost[s], total20[s], lost20[s]) * (1.0 / 20.0)
        deviation = (
            (abs(x0[s] - mean) + abs(x1[s] - mean) + abs(x2[s] - mean) + abs(x3[s] - mean))
            + (abs(x4[s] - mean) + abs(x5[s] - mean) + abs(x6[s] - mean) + abs(x7[s] - mean))
            + (abs(x8[s] - mean) + abs(x9[s] - mean) + abs(x10[s] - mean) + abs(x11[s] - mean))
            + (abs(x12[s] - mean) + abs(x13[s] - mean) + abs(x14[s] - mean) + abs(x15[s] - mean))
            + (abs(x16[s] - mean) + abs(x17[s] - mean) + abs(x18[s] - mean) + abs(x19[s] - mean))
        ) * (1.0 / 20.0)
        moves = (settled | (bars[s] >= 20.0)) & (deviation > 1e-9 * abs(mean))
        index = where(moves, (x0[s] - mean) / (0.015 * deviation), NA)
        vote[s] = votes.cci(index, cci[s], one_input)
        cci[s] = index


@rowwise
def directional(
    settled: bool, moves_from: float, one_input: bool,
    high: Row, low: Row, high1: Row, low1: Row, close1: Row, bars: Row,
    true_range: Row, plus_move: Row, minus_move: Row, plus_di: Row, minus_di: Row,
    dx_seen: Row, dx_sum: Row, adx: Row, vote: Row,
) -> None:  # fmt: skip
    """±DI 14 and ADX 14.

    The true range is NA on the first bar; the first directional movement belongs to bar `moves_from` (0-based).
    DI is NA until a true range has been seen and holds its last value over a later 0/0; DX is 0 when +DI + −DI is 0.
    """
    for s in lanes(high.size):
        ranges = bars[s] - 1.0
        up = where(settled | (ranges > 0.0), high[s] - high1[s], 0.0)
        down = where(settled | (ranges > 0.0), low1[s] - low[s], 0.0)
        widest = where(settled | (ranges > 0.0), larger(high[s], close1[s]) - smaller(low[s], close1[s]), 0.0)
        average_range = smooth(true_range[s], widest, ranges, 14.0, WILDER, settled)
        moves = bars[s] - moves_from
        up_average = smooth(plus_move[s], where((up > down) & (up > 0.0), up, 0.0), moves, 14.0, WILDER, settled)
        down_average = smooth(minus_move[s], where((down > up) & (down > 0.0), down, 0.0), moves, 14.0, WILDER, settled)
        share = 100.0 / average_range
        defined = (ranges >= 14.0) & (average_range > 0.0)
        plus = where(defined, up_average * share, plus_di[s])
        minus = where(defined, down_average * share, minus_di[s])
        both = plus + minus
        seen = dx_seen[s] + where(both == both, 1.0, 0.0)  # noqa: PLR0124
        index = where(both > 0.0, 100.0 * abs(plus - minus) / both, 0.0)
        smoothed = smooth(dx_sum[s], index, seen, 14.0, WILDER, settled)
        trend = if_seen(smoothed, seen, 14.0, settled)
        vote[s] = votes.adx(trend, adx[s], plus, minus, plus_di[s], minus_di[s], one_input)
        true_range[s] = average_range
        plus_move[s] = up_average
        minus_move[s] = down_average
        plus_di[s] = plus
        minus_di[s] = minus
        dx_seen[s] = seen
        dx_sum[s] = smoothed
        adx[s] = trend


@rowwise
def awesome(
    settled: bool, high: Row, low: Row, bars: Row, tie: Row, total1: Row, lost1: Row, total: Row, lost: Row,
    total5: Row, lost5: Row, total34: Row, lost34: Row, ao: Row, ao1: Row, vote: Row,
) -> None:  # fmt: skip
    """SMA5 − SMA34 of (high + low) / 2."""
    for s in lanes(high.size):
        sum_, rest = add(total1[s], lost1[s], (high[s] + low[s]) * 0.5)
        fast = since(sum_, rest, total5[s], lost5[s]) * (1.0 / 5.0)
        slow = since(sum_, rest, total34[s], lost34[s]) * (1.0 / 34.0)
        x = if_seen(fast - slow, bars[s], 34.0, settled)
        vote[s] = votes.awesome(x, ao[s], ao1[s], tie[s])
        ao1[s] = ao[s]
        ao[s] = x
        total[s] = sum_
        lost[s] = rest


@rowwise
def momentum(settled: bool, close: Row, close10: Row, bars: Row, tie: Row, mom: Row, vote: Row) -> None:
    """close − close ten bars ago."""
    for s in lanes(close.size):
        x = if_seen(close[s] - close10[s], bars[s], 11.0, settled)
        vote[s] = votes.momentum(x, mom[s], tie[s])
        mom[s] = x


@rowwise
def convergence(
    settled: bool,
    close: Row,
    bars: Row,
    tie: Row,
    ema12: Row,
    ema26: Row,
    signal_sum: Row,
    macd: Row,
    signal: Row,
    vote: Row,
) -> None:
    """MACD: EMA12 − EMA26; its signal is their EMA9, seeded with the first nine."""
    for s in lanes(close.size):
        fast = smooth(ema12[s], close[s], bars[s], 12.0, 2.0 / 13.0, settled)
        slow = smooth(ema26[s], close[s], bars[s], 26.0, 2.0 / 27.0, settled)
        seen = bars[s] - 25.0
        x = if_seen(fast - slow, seen, 1.0, settled)
        smoothed = smooth(signal_sum[s], where(settled | (seen >= 1.0), x, 0.0), seen, 9.0, 2.0 / 10.0, settled)
        line = if_seen(smoothed, seen, 9.0, settled)
        vote[s] = votes.macd(x, line, tie[s])
        ema12[s] = fast
        ema26[s] = slow
        signal_sum[s] = smoothed
        macd[s] = x
        signal[s] = line


@rowwise
def williams_r(
    settled: bool, one_input: bool, close: Row, highest: Row, highest_before: Row, lowest: Row, lowest_before: Row,
    bars: Row, percent_r: Row, vote: Row,
) -> None:  # fmt: skip
    """−100 · (highest − close) / (highest − lowest) over 14 bars; NA when flat."""
    for s in lanes(close.size):
        top = larger(highest[s], highest_before[s])
        bottom = smaller(lowest[s], lowest_before[s])
        x = where((settled | (bars[s] >= 14.0)) & (top > bottom), -100.0 * (top - close[s]) / (top - bottom), NA)
        vote[s] = votes.williams_r(x, percent_r[s], one_input)
        percent_r[s] = x


@rowwise
def bull_bear(
    settled: bool, one_input: bool, high: Row, low: Row, close: Row, ema50: Row, bars: Row, tie: Row, ema13: Row,
    bull: Row, bear: Row, vote: Row,
) -> None:  # fmt: skip
    """Bull: high − EMA13; bear: low − EMA13."""
    for s in lanes(close.size):
        smoothed = smooth(ema13[s], close[s], bars[s], 13.0, 2.0 / 14.0, settled)
        middle = if_seen(smoothed, bars[s], 13.0, settled)
        over = high[s] - middle
        under = low[s] - middle
        vote[s] = votes.bull_bear(over, under, bull[s], bear[s], close[s], ema50[s], tie[s], one_input)
        ema13[s] = smoothed
        bull[s] = over
        bear[s] = under


@rowwise
def pressure_and_range(
    settled: bool, high: Row, low: Row, close: Row, close1: Row, bars: Row,
    pressure1: Row, pressure1_lost: Row, pressure: Row, pressure_lost: Row,
    range1: Row, range1_lost: Row, ranges: Row, ranges_lost: Row,
) -> None:  # fmt: skip
    """Running sums of buying pressure (close − true low) and true range, from the second bar on."""
    for s in lanes(close.size):
        low_of_day = smaller(low[s], close1[s])
        widest = where(settled | (bars[s] > 1.0), larger(high[s], close1[s]) - low_of_day, 0.0)
        bought = where(settled | (bars[s] > 1.0), close[s] - low_of_day, 0.0)
        pressure[s], pressure_lost[s] = add(pressure1[s], pressure1_lost[s], bought)
        ranges[s], ranges_lost[s] = add(range1[s], range1_lost[s], widest)


@rowwise
def ultimate(
    settled: bool, bars: Row, pressure: Row, pressure_lost: Row, ranges: Row, ranges_lost: Row,
    pressure7: Row, pressure7_lost: Row, pressure14: Row, pressure14_lost: Row, pressure28: Row, pressure28_lost: Row,
    range7: Row, range7_lost: Row, range14: Row, range14_lost: Row, range28: Row, range28_lost: Row,
    uo: Row, vote: Row,
) -> None:  # fmt: skip
    """100 · (4 · a7 + 2 · a14 + a28) / 7, each a pressure over range; NA when a window's true ranges sum to 0."""
    for s in lanes(bars.size):
        span7 = since(ranges[s], ranges_lost[s], range7[s], range7_lost[s])
        span14 = since(ranges[s], ranges_lost[s], range14[s], range14_lost[s])
        span28 = since(ranges[s], ranges_lost[s], range28[s], range28_lost[s])
        short = since(pressure[s], pressure_lost[s], pressure7[s], pressure7_lost[s]) / span7
        medium = since(pressure[s], pressure_lost[s], pressure14[s], pressure14_lost[s]) / span14
        long = since(pressure[s], pressure_lost[s], pressure28[s], pressure28_lost[s]) / span28
        # Of the three windows the shortest lies inside the others: only its ranges can all be 0 alone.
        x = where(
            (settled | (bars[s] >= 29.0)) & (span7 != 0.0), (4.0 * short + 2.0 * medium + long) * (100.0 / 7.0), NA
        )
        vote[s] = votes.ultimate(x)
        uo[s] = x
