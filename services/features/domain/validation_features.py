"""`FeatureStoreSchema`: what may be stored as a rating, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from services.features.domain.bars_batch import VALUES, BarsBatch, Mask
from services.features.domain.sessions import date_text
from services.features.domain.validation_bars import Finding
from shared.errors import ContractError

BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "recommend_ma": (-1.0, 1.0),
    "recommend_other": (-1.0, 1.0),
    "recommend_all": (-1.0, 1.0),
    "rsi": (0.0, 100.0),
    "adx": (0.0, 100.0),
}
FEATURES: Final = tuple(BOUNDS)
ROUNDING: Final = 1e-9
"""A value that is outside its bounds by no more than this is rounding, and is clipped."""

# The first bar (from 0) with a value: SMA10 and EMA10 · Mom, against the one before · RSI 14. ADX: see `expected_na`.
_FIRST: Final = {"recommend_ma": 9, "recommend_other": 11, "recommend_all": 9, "rsi": 14}
_FIRST_DI, _DX_IN_ADX = 14, 13


@dataclass(frozen=True, slots=True)
class Features:
    """Ratings of the rows of a batch of bars: `values[name][n]` belongs to the batch's row n.

    `bar[n]` counts the symbol's usable bars from 0; -1 where the row is no bar. `adx_from[n]`: the first bar of its
    symbol that has an ADX.
    """

    batch: BarsBatch
    values: Mapping[str, NDArray[np.float64]]
    bar: NDArray[np.int64]
    adx_from: NDArray[np.float64]

    def to_frame(self) -> pd.DataFrame:
        """A row a bar, numbered as in the batch."""
        return pd.DataFrame(
            {"ts": self.batch.stamps, **self.values, **{f"{name}_na": na for name, na in self.expected_na().items()}}
        )

    def expected_na(self) -> dict[str, Mask]:
        """Where the definitions give no value: rows without a bar, warm-up, 0/0.

        MA, Other and RSI always have one after their warm-up. ADX needs 14 values of DX, and DX a true range: in a
        series that begins flat it waits for the first bar that moves.
        """
        late = {name: self.bar < first for name, first in _FIRST.items()}
        late["adx"] = self.bar < self.adx_from
        return {name: na | (self.bar < 0) for name, na in late.items()}


def describe(batch: BarsBatch, usable: Mask, values: Mapping[str, NDArray[np.float64]]) -> Features:
    """`Features` of ratings computed of the usable rows; rows of a symbol are together and ascend."""
    number = np.cumsum(usable) - 1
    starts = np.append(True, batch.codes[1:] != batch.codes[:-1])[: len(batch)]
    # The count at a symbol's first row is taken off; maximum.accumulate carries it to the symbol's other rows.
    before = np.maximum.accumulate(np.where(starts, number + np.where(usable, 0, 1), 0)) if len(batch) else number
    bar = np.where(usable, number - before, -1)
    return Features(batch, values, bar, _adx_from(batch, usable, bar))


def _adx_from(batch: BarsBatch, usable: Mask, bar: NDArray[np.int64]) -> NDArray[np.float64]:
    rows = np.flatnonzero(usable)
    high, low, close = (batch.values[rows, VALUES.index(name)] for name in ("high", "low", "close"))
    before = np.roll(close, 1)
    moved = (bar[rows] > 0) & (np.maximum(high, before) > np.minimum(low, before))
    first_move = np.full(len(batch.symbols), np.inf)
    np.minimum.at(first_move, batch.codes[rows][moved], bar[rows][moved].astype(np.float64))
    first_adx: NDArray[np.float64] = np.maximum(first_move, _FIRST_DI) + _DX_IN_ADX
    return first_adx[batch.codes]


@cache
def _schema() -> Any:
    """The pandera schema of `Features.to_frame`."""
    import pandera.pandas as pa  # takes a second to import

    def bounded(name: str, low: float, high: float) -> Any:
        return pa.Column(
            float,
            pa.Check(lambda x: (x >= low - ROUNDING) & (x <= high + ROUNDING), name=f"{name}:bounds", ignore_na=True),
            nullable=True,
        )

    def null_where_na(name: str) -> Any:
        return pa.Check(lambda rows: rows[name].isna() == rows[f"{name}_na"], name=f"{name}:null")

    return pa.DataFrameSchema(
        {name: bounded(name, *limits) for name, limits in BOUNDS.items()},
        checks=[null_where_na(name) for name in FEATURES],
    )


class FeatureStoreSchema:
    """Every stored rating: float64, in its bounds, no infinity, null exactly where the definitions give no value."""

    @staticmethod
    def inspect(features: Features) -> tuple[Features, dict[str, Finding]]:
        """The features with rounding clipped, and what is wrong with each symbol that may not be stored."""
        if len(features.batch) == 0:
            return features, {}
        import pandera.pandas as pa

        rejected: dict[str, Finding] = {}
        try:
            _schema().validate(features.to_frame(), lazy=True)
        except pa.errors.SchemaErrors as fault:
            rejected = _findings(features, fault.failure_cases)
        clipped = {name: np.clip(features.values[name], *BOUNDS[name]) for name in FEATURES}
        return Features(features.batch, clipped, features.bar, features.adx_from), rejected

    @staticmethod
    def validate(features: pd.DataFrame, bars: pd.DataFrame | None = None) -> pd.DataFrame:
        """One symbol's features by a UTC index, ascending and unique; returned with rounding clipped.

        With the `bars` they were computed of, nulls are checked to the bar; without, they are not. Raises
        ContractError that names column, stamp, value and distance.
        """
        _check_shape(features)
        if bars is not None and not bars.index.equals(features.index):
            raise ContractError("the features have not the index of their bars", fix="compute them of these bars")
        prices = bars if bars is not None else pd.DataFrame(1.0, index=features.index, columns=list(VALUES))
        batch = BarsBatch.of({"these features": prices})
        usable: Mask = np.asarray(~np.isnan(batch.values[:, :4]).any(axis=1))
        values = {name: features[name].to_numpy() for name in FEATURES}
        described = describe(batch, usable, values)
        if bars is None:
            described = _NullsAsTheyAre(batch, values, described.bar, described.adx_from)
        checked, rejected = FeatureStoreSchema.inspect(described)
        for finding in rejected.values():
            raise ContractError(finding.message, fix="compute them again; what fails may not be stored")
        return features.assign(**checked.values)


class _NullsAsTheyAre(Features):
    def expected_na(self) -> dict[str, Mask]:
        return {name: np.isnan(values) for name, values in self.values.items()}


def _check_shape(features: pd.DataFrame) -> None:
    index = features.index
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        raise ContractError(
            "features need a DatetimeIndex in UTC", cause=f"the index is {index.dtype}", fix="tz_localize('UTC')"
        )
    if not index.is_monotonic_increasing or not index.is_unique:
        raise ContractError("the features' index does not ascend, or repeats a stamp", fix="sort and decide")
    for name in FEATURES:
        if name not in features.columns:
            raise ContractError(f"features lack {name}", fix=f"name {', '.join(FEATURES)}")
        if features[name].dtype != np.float64:
            raise ContractError(f"{name} is {features[name].dtype}, not float64", fix="astype('float64')")


def _findings(features: Features, cases: pd.DataFrame) -> dict[str, Finding]:
    rejected: dict[str, Finding] = {}
    for check in cases["check"].unique():
        name, _, kind = str(check).partition(":")
        rows = np.unique(cases.loc[cases["check"] == check, "index"].to_numpy(dtype=np.intp))
        codes = features.batch.codes[rows]
        for code in np.unique(codes):
            own = rows[codes == code]
            rejected.setdefault(
                features.batch.symbols[code], Finding("schema", _explain(features, name, kind, own), own)
            )
    return rejected


def _explain(features: Features, name: str, kind: str, rows: NDArray[np.intp]) -> str:
    value = float(features.values[name][rows[0]])
    when = date_text(int(features.batch.stamps[rows[0]]))
    if kind == "bounds":
        low, high = BOUNDS[name]
        distance = max(low - value, value - high)
        text = f"{name} is {value!r} on {when}, {distance!r} outside [{low:g}, {high:g}]"
    elif np.isnan(value):
        text = f"{name} is null on {when}, where its definition gives a value"
    else:
        text = f"{name} is {value!r} on {when}, where its definition gives none"
    return text if len(rows) == 1 else f"{text}; and {len(rows) - 1:,} more rows"
