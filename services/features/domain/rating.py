"""One batch from bars to rows that may be staged: cut at `as_of`, validate, rate all symbols at once, validate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.features.domain.adjustments import Adjustment, available_with
from services.features.domain.adjustments import known_by as adjustments_known_by
from services.features.domain.bars_batch import BarsBatch, Layout
from services.features.domain.ratings.state import RatingState
from services.features.domain.sessions import Market, Stamps, available_at, date_text
from services.features.domain.validation import (
    FeatureConsistencyValidator,
    FeatureStoreSchema,
    Finding,
    IngestionReport,
    IngestionValidator,
)
from services.features.domain.validation_features import FEATURES, Features, describe

Stage = Literal["bars", "validation"]


@dataclass(frozen=True)
class Refusal:
    """A symbol of which nothing is staged, and in which stage it failed."""

    stage: Stage
    finding: Finding


@dataclass(frozen=True)
class After:
    """Where the ratings of one symbol stand after its last row: the state's column, and the first bar with an ADX."""

    state: NDArray[np.float64]
    adx_from: float


@dataclass(frozen=True)
class RatedBatch:
    """A rated batch. All row arrays belong to `report.batch`, the bars that were known by `as_of`.

    known_at   when each bar was known, microseconds UTC
    values     the features of each row, NaN where there is none
    refused    by symbol
    staged     the symbols whose rows may be stored
    late       the bars that were not known by `as_of`
    after      by staged symbol, for the next bar
    """

    report: IngestionReport
    known_at: Stamps
    values: Mapping[str, NDArray[np.float64]]
    refused: Mapping[str, Refusal]
    late: BarsBatch
    after: Mapping[str, After] = field(default_factory=dict)

    @property
    def staged(self) -> tuple[str, ...]:
        return tuple(symbol for symbol in self.report.batch.symbols if symbol not in self.refused)


def rate(
    bars: BarsBatch,
    *,
    markets: Mapping[str, Market],
    ticks: Mapping[str, float],
    rules: str,
    as_of: int,
    interval: str,
    adjustments: Iterable[Adjustment] = (),
) -> RatedBatch:
    """`as_of`: microseconds UTC. Each symbol's bars ascend, one symbol after the other. Of the recorded adjustments
    those that were known by then are used.

    A symbol that fails is refused by name and stops no other.
    """
    known_at = when_known(bars, markets, interval)
    past = known_at <= as_of
    batch, late, known_at = bars.rows(past), bars.rows(~past), known_at[past]
    report = IngestionValidator(markets, ticks, interval, adjustments_known_by(adjustments, as_of)).validate(batch)
    known_at = available_with(known_at, batch, report.adjusted.applied)
    kept = np.flatnonzero(~batch.of_symbols(set(report.rejected)))
    sound = replace(batch, values=report.adjusted.values).rows(_mask(kept, len(batch)))
    features, states = _features(sound, report.usable[kept], rules)
    features, broken = FeatureStoreSchema.inspect(features)
    due = dict(zip(batch.symbols, np.bincount(batch.codes[kept], minlength=len(batch.symbols)).tolist(), strict=True))
    inconsistent = FeatureConsistencyValidator(as_of, rules, markets, due).inspect(features)
    refused = {
        symbol: _refusal(_of_what_was_known(symbol, finding, bars)) for symbol, finding in report.rejected.items()
    }
    for symbol, finding in (*broken.items(), *inconsistent.items()):
        refused.setdefault(symbol, Refusal("validation", _moved(finding, kept)))
    values = {name: np.full(len(batch), np.nan) for name in FEATURES}
    for name in FEATURES:
        values[name][kept] = features.values[name]
    after = {
        symbol: After(states[code], float(features.adx_from[np.searchsorted(features.batch.codes, code)]))
        for code, symbol in enumerate(batch.symbols)
        if symbol not in refused
    }
    return RatedBatch(report, known_at, values, refused, late, after)


def when_known(bars: BarsBatch, markets: Mapping[str, Market], interval: str) -> Stamps:
    """When each bar is known, `[n]`: `available_at` by its symbol's market."""
    known = np.empty(len(bars), dtype=np.int64)
    by_market: dict[tuple[object, ...], tuple[Market, set[str]]] = {}
    for symbol in bars.symbols:
        market = markets.get(symbol, Market())
        alike = (market.timezone, market.session, id(market.sessions))
        by_market.setdefault(alike, (market, set()))[1].add(symbol)
    for market, symbols in by_market.values():
        rows = bars.of_symbols(symbols)
        known[rows] = available_at(bars.stamps[rows], market, interval)
    return known


def _features(batch: BarsBatch, usable: NDArray[np.bool_], rules: str) -> tuple[Features, NDArray[np.float64]]:
    """The features, and each symbol's state after them."""
    layout = Layout.of(batch)
    bars = np.where(usable[:, None], batch.values, np.nan)
    open_, high, low, close, volume = (layout.panel(bars[:, column]) for column in range(5))
    panel, state = RatingState.rated(open_, high, low, close, volume, rules)
    values = {name: layout.rows(getattr(panel, name)) for name in FEATURES}
    return describe(batch, usable, values), state.columns()


def _of_what_was_known(symbol: str, finding: Finding, given: BarsBatch) -> Finding:
    """`no_bars` of a symbol that has bars, all of them too late for the run, says so."""
    rows = np.flatnonzero(given.of_symbols({symbol})) if finding.code == "no_bars" else ()
    if len(rows) == 0:
        return finding
    first = date_text(int(given.stamps[rows].min()))
    return Finding(
        finding.code,
        f"none of its {len(rows):,} bars was known by the run's as_of; the first is of {first}",
        finding.rows,
    )


def _refusal(finding: Finding) -> Refusal:
    return Refusal("bars" if finding.code == "no_bars" else "validation", finding)


def _moved(finding: Finding, origin: NDArray[np.intp]) -> Finding:
    return Finding(finding.code, finding.message, origin[finding.rows])


def _mask(rows: NDArray[np.intp], length: int) -> NDArray[np.bool_]:
    mask = np.zeros(length, dtype=bool)
    mask[rows] = True
    return mask
