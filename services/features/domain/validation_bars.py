"""`IngestionValidator`: what is wrong with bars, before anything is computed from them.

the bar is set aside, its symbol goes on    all values zero · no price at all · a negative or infinite volume ·
with a warning                              open or close outside [low, high] by more than a tick
the symbol is rejected                      a price that is not positive or not finite · high < low · two bars of
                                            one stamp · bars that do not ascend · a close more than 500 % above
                                            the one before (`toxic`), recorded adjustments allowed for
a warning with a count                      sessions of the calendar without a bar
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from services.features.domain.adjustments import Adjusted, Adjustment, adjust
from services.features.domain.bars_batch import PRICES, VALUES, BarsBatch, Mask
from services.features.domain.sessions import Market, date_text, missing_sessions

MOST_OF_A_CLOSE: Final = 6.0
"""A close may be six times the one before (+500 %): a coin did +392 % in a day, a reverse split +1,500 %."""

INFINITE: Final = 1e100
"""What is as large as this counts as infinite: sums and products of a few such bars are."""

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(5)
_SHOWN: Final = 3
_DECIMALS: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a symbol is rejected: a stable code, the words for a person, and the rows (of the batch) that show it."""

    code: str
    message: str
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class IngestionReport:
    """What may be rated, and what was found.

    batch      the bars as they were given
    adjusted   their values after recorded adjustments: what ratings are computed of
    set_aside  a reason for each row that is no usable bar of a symbol that goes on; empty text for all others
    rejected   symbols of which nothing is used
    warnings   by symbol, in words
    """

    batch: BarsBatch
    adjusted: Adjusted
    set_aside: NDArray[np.object_]
    rejected: Mapping[str, Finding]
    warnings: Mapping[str, tuple[str, ...]]

    @property
    def usable(self) -> Mask:
        """The rows that ratings are computed of."""
        mask: Mask = self.set_aside == ""
        return mask & ~self.batch.of_symbols(set(self.rejected))

    @property
    def accepted(self) -> tuple[str, ...]:
        """Symbols that go on: not rejected, and with at least one usable bar."""
        having = set(np.unique(self.batch.codes[self.usable]).tolist())
        return tuple(symbol for code, symbol in enumerate(self.batch.symbols) if code in having)

    def bars(self, symbol: str) -> pd.DataFrame:
        """The usable bars of one symbol, adjusted, as a frame with a UTC index; empty for a rejected one."""
        rows = self.usable & self.batch.of_symbols({symbol})
        index = pd.DatetimeIndex(pd.to_datetime(self.batch.stamps[rows], unit="us", utc=True), name="ts")
        return pd.DataFrame(self.adjusted.values[rows], index=index, columns=list(VALUES))


@dataclass(frozen=True)
class IngestionValidator:
    """Checks the bars of any number of symbols at once.

    `markets`: when each symbol trades, for the sessions that lack a bar. `ticks`: each symbol's tick size; where it
    is not given, the decimal grid in which the prices of the bar in question are written. `interval`: of the bars.
    `adjustments`: the recorded ones that may be known, in order of date.
    """

    markets: Mapping[str, Market] = field(default_factory=dict)
    ticks: Mapping[str, float] = field(default_factory=dict)
    interval: str = "1d"
    adjustments: Mapping[str, Sequence[Adjustment]] = field(default_factory=dict)

    def validate(self, bars: BarsBatch | Mapping[str, pd.DataFrame]) -> IngestionReport:
        """The report over all symbols. A symbol's fault stops no other; nothing is raised but ContractError for input
        that is no bars at all (see `BarsBatch.of`)."""
        batch = bars if isinstance(bars, BarsBatch) else BarsBatch.of(bars)
        set_aside = self._set_aside(batch)
        kept = np.flatnonzero(set_aside == "")
        adjusted = adjust(batch, set_aside == "", self.adjustments)
        rejected = _rejected(batch, kept, adjusted)
        for code in sorted(set(range(len(batch.symbols))) - set(batch.codes[kept].tolist())):
            rejected.setdefault(batch.symbols[code], _nothing_left(batch, code))
        set_aside[batch.of_symbols(set(rejected))] = ""
        warnings = _in_words(batch, set_aside)
        for symbol, texts in (*self._missing_sessions(batch).items(), *adjusted.warnings().items()):
            if symbol not in rejected:
                warnings[symbol] = (*warnings.get(symbol, ()), *texts)
        return IngestionReport(batch, adjusted, set_aside, rejected, warnings)

    def _set_aside(self, batch: BarsBatch) -> NDArray[np.object_]:
        values = batch.values
        reasons = np.full(len(batch), "", dtype=object)
        priced = ~np.isnan(values[:, :4]).all(axis=1)
        reasons[~priced] = "no price"
        zero = priced & (values[:, :4] == 0).all(axis=1) & ~(values[:, _VOLUME] > 0)
        reasons[zero] = "all zero"
        impossible = priced & ~zero & ((values[:, _VOLUME] < 0) | (values[:, _VOLUME] >= INFINITE))
        reasons[impossible] = "negative or infinite volume"
        with np.errstate(invalid="ignore"):
            body = values[:, [_OPEN, _CLOSE]]
            excess = np.maximum((body - values[:, [_HIGH]]).max(axis=1), (values[:, [_LOW]] - body).max(axis=1))
            # A price that is none, and a range that is none, are the symbol's fault, not this bar's.
            sound = ((values[:, :4] > 0) & (values[:, :4] < INFINITE)).all(axis=1)
            suspect = (reasons == "") & sound & (values[:, _HIGH] >= values[:, _LOW]) & (excess > 0)
        for row in np.flatnonzero(suspect):
            tick = self.ticks.get(batch.symbols[batch.codes[row]]) or price_grid(values[row, :4])
            if excess[row] > tick * (1 + 1e-9) + 1e-9 * values[row, _HIGH]:
                reasons[row] = "open or close outside low to high"
        return reasons

    def _missing_sessions(self, batch: BarsBatch) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for code, symbol in enumerate(batch.symbols):
            market = self.markets.get(symbol)
            if market is None or market.sessions is None:
                continue
            absent = missing_sessions(np.sort(batch.stamps[batch.codes == code]), market, self.interval)
            if len(absent):
                found[symbol] = (f"gaps: {_counted(absent, 'sessions without a bar')}",)
        return found


def price_grid(prices: NDArray[np.float64]) -> float:
    """The coarsest power of ten (at most 1) that all these prices are whole multiples of; 0 where there is none."""
    with np.errstate(over="ignore", invalid="ignore"):
        for decimals in range(_DECIMALS + 1):
            scaled = prices * 10.0**decimals
            if (np.abs(scaled - np.round(scaled)) <= 1e-9 * np.maximum(1.0, np.abs(scaled))).all():
                return float(10.0**-decimals)
    return 0.0


@cache
def _contract() -> Any:
    """The pandera schema of bars in order, as `_with_bar_before` shows them."""
    import pandera.pandas as pa  # takes a second to import

    def priced(bars: pd.DataFrame) -> pd.Series[bool]:
        prices = bars[list(PRICES)].to_numpy()
        bad = ~((prices > 0) & (prices < INFINITE)).all(axis=1)
        return pd.Series(~(bad & bars["usable"].to_numpy(dtype=bool)), index=bars.index)

    return pa.DataFrameSchema(
        {name: pa.Column(float, nullable=True) for name in VALUES},
        checks=[
            pa.Check(lambda bars: bars["ts"] != bars["ts_before"], name="duplicate_bar"),
            pa.Check(lambda bars: bars["ts"] >= bars["ts_before"], name="descending_bars"),
            pa.Check(priced, name="bad_price"),
            pa.Check(lambda bars: ~(bars["usable"] & (bars["high"] < bars["low"])), name="high_below_low"),
            pa.Check(lambda bars: ~(bars["adjusted"] > MOST_OF_A_CLOSE * bars["adjusted_before"]), name="toxic"),
        ],
    )


# A symbol is rejected for the first of these that it shows: what comes later could follow from what comes before.
_ORDER: Final = ("duplicate_bar", "descending_bars", "bad_price", "high_below_low", "toxic")


def _rejected(batch: BarsBatch, kept: NDArray[np.intp], adjusted: Adjusted) -> dict[str, Finding]:
    if len(batch) == 0:
        return {}
    import pandera.pandas as pa

    frame = _with_bar_before(batch, kept, adjusted)
    try:
        _contract().validate(frame, lazy=True)
    except pa.errors.SchemaErrors as fault:
        cases = fault.failure_cases
    else:
        return {}
    rejected: dict[str, Finding] = {}
    for code in _ORDER:
        rows = np.unique(cases.loc[cases["check"] == code, "index"].to_numpy(dtype=np.intp))
        for symbol_code in np.unique(batch.codes[rows]):
            own = rows[batch.codes[rows] == symbol_code]
            symbol = batch.symbols[symbol_code]
            if symbol not in rejected:
                rejected[symbol] = Finding(code, _explain(code, frame.loc[own[0]], own, batch, adjusted), own)
    return rejected


def _with_bar_before(batch: BarsBatch, kept: NDArray[np.intp], adjusted: Adjusted) -> pd.DataFrame:
    """The rows by their number in the batch, each with the stamp of the row before it; the usable ones also with the
    close of the usable bar before. A symbol's first row has none before (least stamp, NaN close)."""
    frame = pd.DataFrame(dict(zip(VALUES, batch.values.T, strict=True)))
    frame["ts"] = batch.stamps
    frame["ts_before"] = np.where(_begins(batch.codes), np.iinfo(np.int64).min, np.roll(batch.stamps, 1))
    first = _begins(batch.codes[kept])
    for name, closes in (("close", batch.values[:, _CLOSE]), ("adjusted", adjusted.values[:, _CLOSE])):
        before = np.full(len(batch), np.nan)
        before[kept] = np.where(first, np.nan, np.roll(closes[kept], 1))
        frame[name], frame[f"{name}_before"] = closes, before
    usable = np.zeros(len(batch), dtype=bool)
    usable[kept] = True
    return frame.assign(usable=usable)


def _begins(codes: NDArray[np.intp]) -> Mask:
    """Where another symbol's rows begin."""
    begins: Mask = np.append(True, codes[1:] != codes[:-1])[: len(codes)]
    return begins


def _explain(code: str, bar: pd.Series[Any], rows: NDArray[np.intp], batch: BarsBatch, adjusted: Adjusted) -> str:
    move = float(bar["adjusted"]) / (float(bar["adjusted_before"]) or math.nan) - 1
    allowed_for = " after recorded adjustments" if batch.symbols[batch.codes[rows[0]]] in adjusted.applied else ""
    when = date_text(int(bar["ts"]))
    shown = f"open {bar['open']:.10g} high {bar['high']:.10g} low {bar['low']:.10g} close {bar['close']:.10g}"
    text = {
        "duplicate_bar": f"two bars of {when}",
        "descending_bars": f"the bar of {when} comes after a later one",
        "bad_price": f"a price that is not positive and finite on {when}: {shown}",
        "high_below_low": f"high below low on {when}: {shown}",
        "toxic": f"close went from {bar['close_before']:.10g} to {bar['close']:.10g} on {when}, "
        f"{move:+,.0%}{allowed_for}, more than +{MOST_OF_A_CLOSE - 1:.0%}",
    }[code]
    return text if len(rows) == 1 else f"{text}; and {_counted(batch.stamps[rows[1:]], 'more')}"


def _nothing_left(batch: BarsBatch, code: int) -> Finding:
    rows = np.flatnonzero(batch.codes == code)
    if len(rows) == 0:
        return Finding("no_bars", "it has no bars", rows)
    return Finding("bad_price", f"none of its {len(rows):,} bars has usable prices", rows)


def _in_words(batch: BarsBatch, set_aside: NDArray[np.object_]) -> dict[str, tuple[str, ...]]:
    """By symbol, a text for each reason for which bars of it were set aside."""
    aside = np.flatnonzero(set_aside != "")
    found = {}
    for code in np.unique(batch.codes[aside]):
        own = aside[batch.codes[aside] == code]
        found[batch.symbols[code]] = tuple(
            f"bars set aside, {reason}: {_counted(batch.stamps[own[set_aside[own] == reason]])}"
            for reason in dict.fromkeys(set_aside[own].tolist())
        )
    return found


def _counted(stamps: NDArray[np.int64], what: str = "") -> str:
    dates = ", ".join(date_text(int(stamp)) for stamp in stamps[:_SHOWN])
    return f"{len(stamps):,}{f' {what}' if what else ''} ({dates}{', …' if len(stamps) > _SHOWN else ''})"
