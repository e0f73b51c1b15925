"""The moving averages of a bar and their votes. One function an indicator; rows in, rows out (see `lanes.py`)."""

from __future__ import annotations

from services.features.domain.ratings import votes
from services.features.domain.ratings.lanes import Row, lanes, rowwise, where
from services.features.domain.ratings.series import NA, add, if_seen, larger, since, smaller, smooth


@rowwise
def running_sum_of_close(close: Row, total1: Row, lost1: Row, total: Row, lost: Row) -> None:
    for s in lanes(close.size):
        total[s], lost[s] = add(total1[s], lost1[s], close[s])


@rowwise
def simple_and_exponential(
    settled: bool,
    length: float,
    close: Row,
    bars: Row,
    tie: Row,
    total: Row,
    lost: Row,
    old_total: Row,
    old_lost: Row,
    sma: Row,
    ema: Row,
    sma_vote: Row,
    ema_vote: Row,
) -> None:
    """SMA: the mean of the last `length` closes. EMA: rate 2 / (length + 1), seeded with the first SMA."""
    for s in lanes(close.size):
        mean = if_seen(since(total[s], lost[s], old_total[s], old_lost[s]) * (1.0 / length), bars[s], length, settled)
        smoothed = smooth(ema[s], close[s], bars[s], length, 2.0 / (length + 1.0), settled)
        sma_vote[s] = votes.average(close[s], mean, tie[s])
        ema_vote[s] = votes.average(close[s], if_seen(smoothed, bars[s], length, settled), tie[s])
        sma[s] = mean
        ema[s] = smoothed


@rowwise
def ema_value(settled: bool, length: float, bars: Row, ema: Row, value: Row) -> None:
    """The EMA where it is one, NA while it is still the sum of its seed."""
    for s in lanes(bars.size):
        value[s] = if_seen(ema[s], bars[s], length, settled)


@rowwise
def hull9(
    settled: bool, c0: Row, c1: Row, c2: Row, c3: Row, c4: Row, c5: Row, c6: Row, c7: Row, c8: Row, bars: Row, tie: Row,
    raw1: Row, raw2: Row, hull: Row, vote: Row,
) -> None:  # fmt: skip
    """WMA3 of 2 · WMA4 − WMA9. `c3` is the close three bars ago."""
    for s in lanes(c0.size):
        wma4 = (4 * c0[s] + 3 * c1[s] + 2 * c2[s] + c3[s]) * (1 / 10)
        wma9 = (
            9 * c0[s] + 8 * c1[s] + 7 * c2[s] + 6 * c3[s] + 5 * c4[s] + 4 * c5[s] + 3 * c6[s] + 2 * c7[s] + c8[s]
        ) * (1 / 45)
        raw = if_seen(2 * wma4 - wma9, bars[s], 9.0, settled)
        mean = (3 * raw + 2 * raw1[s] + raw2[s]) * (1 / 6)
        vote[s] = votes.average(c0[s], mean, tie[s])
        hull[s] = mean
        raw2[s] = raw1[s]
        raw1[s] = raw


@rowwise
def volume_weighted20(
    settled: bool, close: Row, volume: Row, bars: Row, tie: Row,
    traded1: Row, traded1_lost: Row, traded: Row, traded_lost: Row, traded20: Row, traded20_lost: Row,
    volume1: Row, volume1_lost: Row, volumes: Row, volumes_lost: Row, volume20: Row, volume20_lost: Row,
    vwma: Row, vote: Row,
) -> None:  # fmt: skip
    """Σ close · volume / Σ volume over 20 bars; NA when all 20 volumes are 0."""
    for s in lanes(close.size):
        money, money_lost = add(traded1[s], traded1_lost[s], close[s] * volume[s])
        shares, shares_lost = add(volume1[s], volume1_lost[s], volume[s])
        weight = since(shares, shares_lost, volume20[s], volume20_lost[s])
        mean = since(money, money_lost, traded20[s], traded20_lost[s]) / weight
        mean = where((settled | (bars[s] >= 20.0)) & (weight != 0.0), mean, NA)
        vote[s] = votes.average(close[s], mean, tie[s])
        vwma[s] = mean
        traded[s] = money
        traded_lost[s] = money_lost
        volumes[s] = shares
        volumes_lost[s] = shares_lost


@rowwise
def highest(now: Row, high1: Row, high2_2: Row, high4_4: Row, high2: Row, high4: Row, high8: Row) -> None:
    """The highest of the last 2, 4 and 8 values: that of 4 from two of 2, `high2_2` being two bars old."""
    for s in lanes(now.size):
        two = larger(now[s], high1[s])
        four = larger(two, high2_2[s])
        high8[s] = larger(four, high4_4[s])
        high2[s] = two
        high4[s] = four


@rowwise
def lowest(now: Row, low1: Row, low2_2: Row, low4_4: Row, low2: Row, low4: Row, low8: Row) -> None:
    """The lowest of the last 2, 4 and 8 values."""
    for s in lanes(now.size):
        two = smaller(now[s], low1[s])
        four = smaller(two, low2_2[s])
        low8[s] = smaller(four, low4_4[s])
        low2[s] = two
        low4[s] = four


@rowwise
def midpoints(
    settled: bool, bars: Row,
    high8: Row, high8_1: Row, high8_8: Row, high16_10: Row, high16_16: Row, high32_20: Row, high16: Row, high32: Row,
    low8: Row, low8_1: Row, low8_8: Row, low16_10: Row, low16_16: Row, low32_20: Row, low16: Row, low32: Row,
    conversion: Row, base: Row, lead1: Row, lead2: Row,
) -> None:  # fmt: skip
    """Ichimoku's lines: the middle of highest and lowest over 9, 26 and 52 bars."""
    for s in lanes(bars.size):
        top16 = larger(high8[s], high8_8[s])
        low_16 = smaller(low8[s], low8_8[s])
        top32 = larger(top16, high16_16[s])
        low_32 = smaller(low_16, low16_16[s])
        short = if_seen((larger(high8[s], high8_1[s]) + smaller(low8[s], low8_1[s])) * 0.5, bars[s], 9.0, settled)
        medium = if_seen((larger(top16, high16_10[s]) + smaller(low_16, low16_10[s])) * 0.5, bars[s], 26.0, settled)
        lead2[s] = if_seen((larger(top32, high32_20[s]) + smaller(low_32, low32_20[s])) * 0.5, bars[s], 52.0, settled)
        lead1[s] = (short + medium) * 0.5
        conversion[s] = short
        base[s] = medium
        high16[s] = top16
        high32[s] = top32
        low16[s] = low_16
        low32[s] = low_32


@rowwise
def ichimoku_never(settled: bool, bars: Row, vote: Row) -> None:
    for s in lanes(bars.size):
        vote[s] = votes.ichimoku_never(settled | (bars[s] >= 52.0))


@rowwise
def ichimoku_base_line(settled: bool, close: Row, bars: Row, tie: Row, base: Row, vote: Row) -> None:
    for s in lanes(bars.size):
        vote[s] = votes.ichimoku_base_line(settled | (bars[s] >= 52.0), close[s], base[s], tie[s])


@rowwise
def ichimoku_cloud(
    settled: bool, close: Row, bars: Row, tie: Row, conversion: Row, base: Row, lead1_26: Row, lead2_26: Row,
    cloud1: Row, cloud2: Row, vote: Row,
) -> None:  # fmt: skip
    """`lead1_26` and `lead2_26` are the undisplaced lines 26 bars ago, NA before those bars."""
    for s in lanes(bars.size):
        line1 = if_seen(lead1_26[s], bars[s], 27.0, settled)
        line2 = if_seen(lead2_26[s], bars[s], 27.0, settled)
        vote[s] = votes.ichimoku_cloud(
            settled | (bars[s] >= 52.0), close[s], conversion[s], base[s], line1, line2, tie[s]
        )
        cloud1[s] = line1
        cloud2[s] = line2
