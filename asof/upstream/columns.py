"""The scanner columns that are known here; anything else is an unknown field, as it is there."""

from __future__ import annotations

import re

_DESCRIPTIVE = frozenset(
    """
    name description type subtype typespecs exchange country sector industry currency base_currency logoid update_mode
    pricescale minmov minmove2 fractional pointvalue timezone session root expiration market is_primary crypto_code
    market_cap_basic market_cap_calc fundamental_currency_code average_volume_10d_calc average_volume_30d_calc
    average_volume_90d_calc relative_volume_10d_calc 24h_vol|5 24h_close_change|5 total_shares_outstanding
    float_shares_outstanding price_earnings_ttm number_of_employees Perf.W Perf.1M Perf.3M Perf.6M Perf.Y Perf.YTD
    Perf.All Volatility.D Volatility.W Volatility.M price_52_week_high price_52_week_low High.All
    Low.All High.1M Low.1M High.3M Low.3M High.6M Low.6M beta_1_year
    """.split()  # noqa: SIM905  (words read better than a list of forty quoted ones)
)

# These also exist for other intervals (`RSI|240`) and for the bar before (`RSI[1]`).
_VALUES = frozenset(
    """
    open high low close volume change change_abs change_from_open gap VWAP ATR ADR ROC
    Recommend.All Recommend.MA Recommend.Other
    RSI RSI7 Stoch.K Stoch.D CCI20 ADX ADX+DI ADX-DI AO Mom MACD.macd MACD.signal MACD.hist
    Rec.Stoch.RSI Stoch.RSI.K Stoch.RSI.D Rec.WR W.R Rec.BBPower BBPower Rec.UO UO
    Rec.Ichimoku Ichimoku.BLine Ichimoku.CLine Ichimoku.Lead1 Ichimoku.Lead2 Rec.VWMA VWMA Rec.HullMA9 HullMA9
    BB.upper BB.lower BB.basis Aroon.Up Aroon.Down DonchCh20.Upper DonchCh20.Lower KltChnl.upper KltChnl.lower
    MoneyFlow P.SAR
    """.split()  # noqa: SIM905  (words read better than a list of forty quoted ones)
)
_AVERAGES = frozenset(
    f"{average}{length}"
    for average in ("EMA", "SMA")
    for length in (2, 3, 5, 7, 9, 10, 13, 20, 21, 30, 34, 50, 55, 75, 89, 100, 150, 200)
)
_PIVOTS = frozenset(
    f"Pivot.M.{kind}.{level}"
    for kind in ("Classic", "Fibonacci", "Camarilla", "Woodie", "Demark")
    for level in ("S3", "S2", "S1", "Middle", "R1", "R2", "R3")
)
_TECHNICAL = _VALUES | _AVERAGES | _PIVOTS

_SUFFIX = re.compile(r"(?:\[[12]\])?(?:\|(?:1|5|15|30|60|120|240|1W|1M))?\Z")


def is_known(column: str) -> bool:
    if column in _DESCRIPTIVE or column in _TECHNICAL:
        return True
    start = min((at for at in (column.find("["), column.find("|")) if at > 0), default=-1)
    return start > 0 and column[:start] in _TECHNICAL and _SUFFIX.match(column, start) is not None
