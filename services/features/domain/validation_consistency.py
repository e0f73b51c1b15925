"""`FeatureConsistencyValidator`: features against their bars, their calendar and their own rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.features.domain.bars_batch import first_and_last
from services.features.domain.ratings.rules import rules_named
from services.features.domain.sessions import Market, date_text, sessions_behind
from services.features.domain.validation_bars import Finding
from services.features.domain.validation_features import BOUNDS, FEATURES, ROUNDING, Features

MOST_SESSIONS_BEHIND: Final = 20
MOST_NAN: Final = 0.10
WARM_UP: Final = 28
"""After so many bars every feature of a series that moves has a value; ADX comes last."""


@dataclass(frozen=True)
class FeatureConsistencyValidator:
    """Checks the features of any number of symbols at once.

    `as_of`: microseconds UTC, the instant that the newest bar is held against. `markets`: when each symbol trades.
    `due`: how many rows each symbol should have (of its bars), where that is known.
    """

    as_of: int
    rules: str = "screener"
    markets: Mapping[str, Market] = field(default_factory=dict)
    due: Mapping[str, int] = field(default_factory=dict)

    def inspect(self, features: Features) -> dict[str, Finding]:
        """Symbols that may not be stored, each with the first thing that is wrong."""
        rejected: dict[str, Finding] = {}
        for found in (
            self._coverage(features),
            self._staleness(features),
            self._density(features),
            self._disagreement(features),
        ):
            for symbol, finding in found.items():
                rejected.setdefault(symbol, finding)
        return rejected

    def _coverage(self, features: Features) -> dict[str, Finding]:
        rows = np.bincount(features.batch.codes, minlength=len(features.batch.symbols))
        return {
            symbol: Finding("coverage", f"{rows[code]:,} rows of features for {self.due[symbol]:,} bars", _none())
            for code, symbol in enumerate(features.batch.symbols)
            if symbol in self.due and rows[code] != self.due[symbol]
        }

    def _staleness(self, features: Features) -> dict[str, Finding]:
        _, last = first_and_last(features.batch.rows(features.bar >= 0))
        found = {}
        for code, symbol in enumerate(features.batch.symbols):
            market = self.markets.get(symbol, Market())
            behind = sessions_behind(int(last[code]), self.as_of, market) if last[code] else 0
            if behind > MOST_SESSIONS_BEHIND:
                found[symbol] = Finding(
                    "stale",
                    f"its newest bar is of {date_text(int(last[code]))}, {behind:,} sessions before the run's as_of; "
                    f"more than {MOST_SESSIONS_BEHIND} is stale",
                    np.flatnonzero((features.batch.codes == code) & (features.batch.stamps == last[code])),
                )
        return found

    def _density(self, features: Features) -> dict[str, Finding]:
        """NaN among the features of a symbol's rows after its warm-up; rows without a bar count as they stand."""
        codes = features.batch.codes
        warm = _carried(features.bar, codes) >= WARM_UP
        counted = np.bincount(codes[warm], minlength=len(features.batch.symbols)) * len(FEATURES)
        missing = np.sum([np.isnan(features.values[name]) for name in FEATURES], axis=0)
        absent = np.bincount(codes[warm], weights=missing[warm], minlength=len(features.batch.symbols))
        return {
            features.batch.symbols[code]: Finding(
                "nan_density",
                f"{absent[code]:,.0f} of {counted[code]:,} values after the warm-up are null, "
                f"{absent[code] / counted[code]:.1%}; more than {MOST_NAN:.0%} is no series",
                np.flatnonzero((codes == code) & warm & (missing > 0)),
            )
            for code in np.flatnonzero(absent > MOST_NAN * counted)
        }

    def _disagreement(self, features: Features) -> dict[str, Finding]:
        """All against MA and Other, as the rules combine them."""
        weight_ma, weight_other = rules_named(self.rules).weights or (0.5, 0.5)
        ma, other, both = (features.values[name] for name in ("recommend_ma", "recommend_other", "recommend_all"))
        expected = np.where(np.isnan(other), ma, np.where(np.isnan(ma), other, weight_ma * ma + weight_other * other))
        low, high = BOUNDS["recommend_all"]
        with np.errstate(invalid="ignore"):
            wrong = np.flatnonzero(
                (np.isnan(expected) != np.isnan(both)) | (np.abs(np.clip(expected, low, high) - both) > ROUNDING)
            )
        found = {}
        for code in np.unique(features.batch.codes[wrong]):
            own = wrong[features.batch.codes[wrong] == code]
            row = own[0]
            found[features.batch.symbols[code]] = Finding(
                "disagreement",
                f"recommend_all is {both[row]!r} on {date_text(int(features.batch.stamps[row]))}, where {self.rules} "
                f"makes {expected[row]!r} of MA {ma[row]!r} and Other {other[row]!r}",
                own,
            )
        return found


def _carried(bar: NDArray[np.int64], codes: NDArray[np.intp]) -> NDArray[np.int64]:
    """The number of the newest bar by each row: a row without a bar has that of the bar before it."""
    if len(bar) == 0:
        return bar
    # Codes ascend along the batch, so that one running maximum serves all symbols.
    step = np.int64(bar.max() + 2)
    carried: NDArray[np.int64] = np.maximum.accumulate(bar + 1 + codes * step) - codes * step - 1
    return carried


def _none() -> NDArray[np.intp]:
    return np.empty(0, dtype=np.intp)
