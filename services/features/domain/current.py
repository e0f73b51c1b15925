"""Current values: what a screener said of a symbol, as it comes in a candidate's metadata.

Accepted spellings: `Recommend.All`, `recommend_all`, `recommendAll`, the same nested (`{"Recommend": {"All": …}}`), and
all of them below another key such as `ratings`, `technicals` or `values`. The shallowest one counts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from services.features.domain.validation_features import BOUNDS, FEATURES, ROUNDING
from shared.candidates import Candidate

_DEEPEST: Final = 4
_NAMES: Final[Mapping[str, str]] = {
    "recommendall": "recommend_all",
    "recommendma": "recommend_ma",
    "recommendother": "recommend_other",
    "rsi": "rsi",
    "adx": "adx",
}
_TICK: Final = "ticksize"
# JSON has whole numbers that no float holds.
_LARGEST: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Current:
    """A screener's values of one symbol; NaN where it gave none. `observed_at`: when it showed them."""

    symbol: str
    observed_at: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CurrentValues:
    """`current` values by symbol; `refused`: why those of another symbol are not taken."""

    current: Mapping[str, Current]
    refused: Mapping[str, str]


def current_values(candidates: tuple[Candidate, ...], *, observed_at: datetime) -> CurrentValues:
    """The current values that candidates bring; `observed_at` for those that do not say when they were seen.

    A symbol without any rating brings none. A value that is no number, or outside its bounds, refuses the symbol's.
    """
    current: dict[str, Current] = {}
    refused: dict[str, str] = {}
    for candidate in candidates:
        found = dict(_ratings(candidate.metadata))
        wrong = [_problem(name, value) for name, value in found.items()]
        problem = next((text for text in wrong if text), None)
        if problem is not None:
            refused[candidate.symbol] = f"current values not taken: {problem}"
        elif any(name.startswith("recommend") for name in found):
            values = {name: _clipped(name, found[name]) if name in found else math.nan for name in FEATURES}
            current[candidate.symbol] = Current(candidate.symbol, candidate.observed_at or observed_at, values)
    return CurrentValues(current, refused)


def stated_tick(candidate: Candidate) -> float | None:
    """The tick size that a candidate's metadata states, or None."""
    for path, value in _walk(candidate.metadata, ()):
        if _plain(path[-1]) == _TICK and _is_number(value) and 0 < value <= _LARGEST:
            return float(value)
    return None


def _ratings(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every feature's shallowest value that is not null, in the order of FEATURES."""
    found: dict[str, Any] = {}
    for path, value in sorted(_walk(metadata, ()), key=lambda leaf: len(leaf[0])):
        for depth in (1, 2):
            # "Recommend.All" is one key or two, one inside the other.
            name = _NAMES.get(_plain("".join(path[-depth:])))
            if name is not None and name not in found and value is not None:
                found[name] = value
    for name in FEATURES:
        if name in found:
            yield name, found[name]


def _walk(values: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Leaves with the path to them."""
    for key, value in values.items():
        if not isinstance(value, Mapping):
            yield (*above, str(key)), value
        elif len(above) < _DEEPEST:
            yield from _walk(value, (*above, str(key)))


def feature_named(text: str) -> str | None:
    """The feature that a screener's or another house's name means, or None."""
    return _NAMES.get(_plain(text))


def _plain(key: str) -> str:
    return "".join(char for char in key.lower() if char.isalnum())


def _problem(name: str, value: Any) -> str | None:
    low, high = BOUNDS[name]
    if not _is_number(value):
        return f"{name} is {value!r}, which is no number"
    if not low - ROUNDING <= value <= high + ROUNDING:
        return f"{name} is {value!r}, outside [{low:g}, {high:g}]"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _clipped(name: str, value: float) -> float:
    low, high = BOUNDS[name]
    return min(max(float(value), low), high)
