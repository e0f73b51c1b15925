"""The moving averages of a bar: each function works one out, keeps what the next bar needs and returns its ballot."""

from __future__ import annotations

from typing import Any

from services.features.domain.ratings import layout, votes
from services.features.domain.ratings.here import Bar, Here, ago, before, keep, note, place, push, sums20
from services.features.domain.ratings.lanes import Value, inlined, where
from services.features.domain.ratings.rules import Switches
from services.features.domain.ratings.series import NA, if_seen, larger, smaller, smooth

_HULL9, _VWMA20 = place("hull9"), place("vwma20")
_CONVERSION, _BASE, _LEAD1_26, _LEAD2_26 = (place(name) for name in ("conversion", "base", "lead1_26", "lead2_26"))


@inlined
def closes(here: Here, bar: Bar) -> Any:
    """The sums of the last 10, 20, 30, 50, 100 and 200 closes."""
    sum10, sum20 = sums20(here, bar.close, layout.CLOSE, layout.CLOSE2, layout.CLOSE5, layout.CLOSE10)
    sum30 = sum20 + ago(here, layout.CLOSE10, 20)
    sum50 = sum30 + ago(here, layout.CLOSE20, 30)
    sum100 = sum50 + ago(here, layout.CLOSE50, 50)
    sum200 = sum100 + ago(here, layout.CLOSE100, 100)
    push(here, layout.CLOSE20, sum20)
    push(here, layout.CLOSE50, sum50)
    push(here, layout.CLOSE100, sum100)
    return sum10, sum20, sum30, sum50, sum100, sum200


@inlined
def simple(here: Here, bar: Bar, total: Value, length: int, at: int) -> Value:
    """SMA: the mean of the last `length` closes, whose sum is `total`."""
    mean = total * (1.0 / length)
    defined = bar.settled | (bar.count >= float(length))
    note(here, at, where(defined, mean, NA))
    return votes.average(defined, mean, bar.floor, bar.ceiling)


@inlined
def exponential(here: Here, bar: Bar, length: int, row: int) -> Value:
    """EMA: rate 2 / (length + 1), seeded with the first SMA; NA before."""
    mean = smooth(before(here, row), bar.close, bar.count, float(length), 2.0 / (length + 1.0), bar.settled)
    keep(here, row, mean)
    return if_seen(mean, bar.count, float(length), bar.settled)


@inlined
def hull9(here: Here, bar: Bar) -> Value:
    """WMA3 of 2 · WMA4 − WMA9."""
    c0, c1, c2, c3 = bar.close, ago(here, layout.CLOSE, 1), ago(here, layout.CLOSE, 2), ago(here, layout.CLOSE, 3)
    c4, c5, c6 = ago(here, layout.CLOSE, 4), ago(here, layout.CLOSE, 5), ago(here, layout.CLOSE, 6)
    c7, c8 = ago(here, layout.CLOSE, 7), ago(here, layout.CLOSE, 8)
    wma4 = (4.0 * c0 + 3.0 * c1 + 2.0 * c2 + c3) * (1.0 / 10.0)
    wma9 = (9.0 * c0 + 8.0 * c1 + 7.0 * c2 + 6.0 * c3 + 5.0 * c4 + 4.0 * c5 + 3.0 * c6 + 2.0 * c7 + c8) * (1.0 / 45.0)
    raw = if_seen(2.0 * wma4 - wma9, bar.count, 9.0, bar.settled)
    raw1 = before(here, layout.HULL_RAW1)
    mean = (3.0 * raw + 2.0 * raw1 + before(here, layout.HULL_RAW2)) * (1.0 / 6.0)
    keep(here, layout.HULL_RAW2, raw1)
    keep(here, layout.HULL_RAW1, raw)
    note(here, _HULL9, mean)
    return votes.average(bar.settled | (bar.count >= 11.0), mean, bar.floor, bar.ceiling)


@inlined
def volume_weighted20(here: Here, bar: Bar) -> Value:
    """Σ close · volume / Σ volume over 20 bars; NA when all 20 volumes are 0."""
    _, money = sums20(here, bar.close * bar.volume, layout.TRADED, layout.TRADED2, layout.TRADED5, layout.TRADED10)
    _, weight = sums20(here, bar.volume, layout.VOLUME, layout.VOLUME2, layout.VOLUME5, layout.VOLUME10)
    mean = money / weight
    defined = (bar.settled | (bar.count >= 20.0)) & (abs(weight) > 0.0)
    note(here, _VWMA20, where(defined, mean, NA))
    return votes.average(defined, mean, bar.floor, bar.ceiling)


@inlined
def ichimoku(here: Here, bar: Bar, rules: Switches, high8: Value, low8: Value) -> Value:
    """Conversion and base: the middle of highest and lowest over 9 and 26 bars; lead1: their middle; lead2: over 52."""
    defined = bar.settled | (bar.count >= 52.0)
    if rules.ichimoku == 0:
        return votes.ichimoku_never(defined)
    conversion, base = ichimoku_lines(here, bar, high8, low8)
    if rules.ichimoku == 2:
        return votes.ichimoku_base_line(defined, base, bar.floor, bar.ceiling)
    lead1 = if_seen(ago(here, layout.LEAD1, 26), bar.count, 27.0, bar.settled)
    lead2 = if_seen(ago(here, layout.LEAD2, 26), bar.count, 27.0, bar.settled)
    note(here, _LEAD1_26, lead1)
    note(here, _LEAD2_26, lead2)
    return votes.ichimoku_cloud(defined, bar.close, conversion, base, lead1, lead2, bar.tie)


@inlined
def ichimoku_lines(here: Here, bar: Bar, high8: Value, low8: Value) -> Any:
    high16 = larger(high8, ago(here, layout.HIGH8, 8))
    low16 = smaller(low8, ago(here, layout.LOW8, 8))
    high32 = larger(high16, ago(here, layout.HIGH16, 16))
    low32 = smaller(low16, ago(here, layout.LOW16, 16))
    high9, low9 = larger(high8, ago(here, layout.HIGH8, 1)), smaller(low8, ago(here, layout.LOW8, 1))
    high26, low26 = larger(high16, ago(here, layout.HIGH16, 10)), smaller(low16, ago(here, layout.LOW16, 10))
    high52, low52 = larger(high32, ago(here, layout.HIGH32, 20)), smaller(low32, ago(here, layout.LOW32, 20))
    conversion = if_seen((high9 + low9) * 0.5, bar.count, 9.0, bar.settled)
    base = if_seen((high26 + low26) * 0.5, bar.count, 26.0, bar.settled)
    push(here, layout.HIGH16, high16)
    push(here, layout.LOW16, low16)
    push(here, layout.HIGH32, high32)
    push(here, layout.LOW32, low32)
    push(here, layout.LEAD1, (conversion + base) * 0.5)
    push(here, layout.LEAD2, if_seen((high52 + low52) * 0.5, bar.count, 52.0, bar.settled))
    note(here, _CONVERSION, conversion)
    note(here, _BASE, base)
    return conversion, base
