"""Going on from what was kept of a symbol: the rows of its new bars as the whole history would give them, to the bit.

Only bars that are plainly the next ones of a sound series go on. Whatever else a new bar shows, a mere warning as well,
sends its symbol back to its whole history: refusals, quarantine and warnings are made there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.features.domain.adjustments import Adjusted
from services.features.domain.bars_batch import VALUES, Array, BarsBatch, Layout, Mask
from services.features.domain.histories import TAIL, Basis, History, Rows, bar_of
from services.features.domain.rating import After, RatedBatch, when_known
from services.features.domain.ratings import layout
from services.features.domain.ratings.state import RatingState
from services.features.domain.sessions import Market, Stamps, sessions_behind
from services.features.domain.validation import (
    FeatureConsistencyValidator,
    FeatureStoreSchema,
    Finding,
    IngestionReport,
    IngestionValidator,
)
from services.features.domain.validation_consistency import MOST_SESSIONS_BEHIND
from services.features.domain.validation_features import FEATURES, Features


@dataclass(frozen=True)
class GoneOn:
    """`rated`: each symbol's last rows, new ones included, and no others. `histories`: what to keep now. `back`: by
    symbol, why it has to be computed from its whole history."""

    rated: RatedBatch
    histories: Mapping[str, History]
    back: Mapping[str, str]


def go_on(
    histories: Mapping[str, History],
    added: BarsBatch,
    *,
    versions: Mapping[str, tuple[int, str]],
    basis: Basis,
    markets: Mapping[str, Market],
    ticks: Mapping[str, float],
    rules: str,
    as_of: int,
    interval: str,
) -> GoneOn:
    """Rate the bars behind each history. `added`: the stored bars behind each `bars_version`, of exactly these symbols
    in their order; `versions` and `basis`: those to keep now. No symbol has a recorded adjustment.
    """
    if not histories:
        return GoneOn(_as_rated({}), {}, {})
    bars = _with_waiting(histories, added)
    known_at = when_known(bars, markets, interval)
    past = known_at <= as_of
    late = bars.rows(~past)
    back = _out_of_order(bars, past)
    new, known_at = bars.rows(past), known_at[past]
    for symbol, why in _doubts(histories, new, IngestionValidator(markets, ticks, interval)).items():
        back.setdefault(symbol, why)
    for code, symbol in enumerate(new.symbols):
        last = int(np.append(histories[symbol].last_bar[0], new.stamps[new.codes == code])[-1])
        if sessions_behind(last, as_of, markets.get(symbol, Market())) > MOST_SESSIONS_BEHIND:
            back.setdefault(symbol, "it is stale")
    good = tuple(symbol for symbol in new.symbols if symbol not in back)
    kept = new.of_symbols(set(good))
    features, columns = _rate(histories, _only(new, good), rules)
    features, broken = FeatureStoreSchema.inspect(features)
    inconsistent = FeatureConsistencyValidator(as_of, rules, markets).inspect(features)
    for symbol, finding in (*broken.items(), *inconsistent.items()):
        back.setdefault(symbol, _in_doubt(finding))
    values, known_at = np.column_stack([features.values[name] for name in FEATURES]), known_at[kept]
    going = {}
    for code, symbol in enumerate(good):
        if symbol in back:
            continue
        before, own = histories[symbol], features.batch.codes == code
        rows = Rows(features.batch.stamps[own], known_at[own], values[own], np.ones(int(own.sum()), dtype=bool))
        waits = late.of_symbols({symbol})
        version, sha256 = versions[symbol]
        going[symbol] = History(
            symbol=symbol,
            basis=basis(symbol, int(before.tail.then(rows).stamps[-1])),
            bars_version=version,
            bars_sha256=sha256,
            rows=before.rows + len(rows.stamps),
            known_at=max(before.known_at, int(rows.known_at.max(initial=0))),
            last_bar=bar_of(features.batch, int(np.flatnonzero(own)[-1])) if own.any() else before.last_bar,
            warnings=before.warnings,
            tail=before.tail.then(rows).last(max(TAIL, len(rows.stamps) + 1)),
            waiting=(late.stamps[waits], late.values[waits]),
            after=After(columns[code], before.after.adx_from),
        )
    return GoneOn(_as_rated(going), going, back)


def _with_waiting(histories: Mapping[str, History], added: BarsBatch) -> BarsBatch:
    waiting = [history.waiting for history in histories.values()]
    codes = np.repeat(np.arange(len(waiting)), [len(stamps) for stamps, _ in waiting])
    codes = np.concatenate([codes, added.codes]).astype(np.intp)
    order = np.argsort(codes, kind="stable")
    stamps = np.concatenate([*(stamps for stamps, _ in waiting), added.stamps])
    values = np.concatenate([*(values for _, values in waiting), added.values])
    return BarsBatch(added.symbols, codes[order], stamps[order], values[order])


def _out_of_order(bars: BarsBatch, past: Mask) -> dict[str, str]:
    """Symbols of which a bar is known before an earlier one."""
    follows = np.flatnonzero(past[1:] & ~past[:-1] & (bars.codes[1:] == bars.codes[:-1]))
    return {bars.symbols[bars.codes[row]]: "a bar is known before the one before it" for row in follows}


def _doubts(histories: Mapping[str, History], new: BarsBatch, validator: IngestionValidator) -> dict[str, str]:
    """Symbols whose new bars, held against the last usable one, are not simply sound."""
    context = np.array([[*history.last_bar[1:], 0.0] for history in histories.values()]).reshape(-1, len(VALUES))
    stamps = np.array([history.last_bar[0] for history in histories.values()], dtype=np.int64)
    codes = np.concatenate([np.arange(len(stamps)), new.codes]).astype(np.intp)
    order = np.argsort(codes, kind="stable")
    both = BarsBatch(
        new.symbols,
        codes[order],
        np.concatenate([stamps, new.stamps])[order],
        np.concatenate([context, new.values])[order],
    )
    report = validator.validate(both)
    doubts = {symbol: f"its new bars: {texts[0]}" for symbol, texts in report.warnings.items()}
    return {**doubts, **{symbol: _in_doubt(finding) for symbol, finding in report.rejected.items()}}


def _in_doubt(finding: Finding) -> str:
    return f"its new bars: {finding.message}"


def _rate(histories: Mapping[str, History], new: BarsBatch, rules: str) -> tuple[Features, Array]:
    """The features of the new rows, and each symbol's state after them."""
    afters = [histories[symbol].after for symbol in new.symbols]
    state = RatingState.of_columns(np.array([one.state for one in afters]).reshape(-1, layout.ROWS), rules)
    seen = state.bars_seen
    places = Layout.of(new)
    panels = [places.panel(new.values[:, column]) for column in range(len(VALUES))]
    rated = {name: np.empty(places.shape) for name in FEATURES}
    for row in range(places.shape[0]):
        ratings = state.update(*(panel[row] for panel in panels))
        for name in FEATURES:
            rated[name][row] = getattr(ratings, name)
    first = np.searchsorted(new.codes, np.arange(len(afters)))
    bar = seen[new.codes] + np.arange(len(new)) - first[new.codes]
    adx_from = np.array([one.adx_from for one in afters])
    values = {name: places.rows(rated[name]) for name in FEATURES}
    return Features(new, values, bar, adx_from[new.codes]), state.columns()


def _only(batch: BarsBatch, names: tuple[str, ...]) -> BarsBatch:
    """The rows of these symbols, in this order, and no other symbol."""
    place = {name: code for code, name in enumerate(names)}
    codes = np.array([place.get(symbol, -1) for symbol in batch.symbols], dtype=np.intp)[batch.codes]
    kept = codes >= 0
    return BarsBatch(names, codes[kept], batch.stamps[kept], batch.values[kept])


def _as_rated(histories: Mapping[str, History]) -> RatedBatch:
    """The last rows as a batch: of their bars nothing but the stamps is known here."""
    tails = [history.tail for history in histories.values()]
    rows = Rows(_none(), _none(), np.empty((0, len(FEATURES))), np.empty(0, dtype=bool))
    for tail in tails:
        rows = rows.then(tail)
    codes = np.repeat(np.arange(len(tails)), [len(tail.stamps) for tail in tails]).astype(np.intp)
    batch = BarsBatch(tuple(histories), codes, rows.stamps, np.full((len(codes), len(VALUES)), np.nan))
    set_aside = np.where(rows.usable, "", "set aside before").astype(object)
    warnings = {symbol: history.warnings for symbol, history in histories.items() if history.warnings}
    report = IngestionReport(batch, Adjusted(batch.values, {}, {}), set_aside, {}, warnings)
    values = {name: rows.values[:, column] for column, name in enumerate(FEATURES)}
    return RatedBatch(report, rows.known_at, values, {}, batch.rows(np.zeros(len(codes), dtype=bool)))


def _none() -> Stamps:
    return np.empty(0, dtype=np.int64)
