"""Judging the ratings of another house: a symbol comes over whole or is refused by name with all that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from services.features.domain.bars_batch import Array
from services.features.domain.current import feature_named
from services.features.domain.sessions import Market, Stamps, available_at, date_text
from services.features.domain.validation_features import BOUNDS, FEATURES, ROUNDING
from shared.errors import ContractError
from shared.symbols import check_symbol

IMPORTED: Final = "imported"
"""The name under which another house's ratings stand, beside the rules by which this one rates."""

AVAILABLE_AT: Final = "available_at"


@dataclass(frozen=True)
class TakenRatings:
    """Rows of one symbol that may be stored: stamps and `known_at` in microseconds UTC, `values[n, 5]`."""

    stamps: Stamps
    known_at: Stamps
    values: Array


@dataclass(frozen=True)
class FeaturesTakeover:
    """`refused`: by symbol, what is wrong with it; `ignored`: columns that nobody reads here."""

    taken: Mapping[str, TakenRatings]
    refused: Mapping[str, tuple[str, ...]]
    ignored: tuple[str, ...]


def take_ratings(matrix: pd.DataFrame) -> FeaturesTakeover:
    """From a wide matrix `[ts, (symbol, feature)]` of daily bars; an index without a zone means UTC.

    A symbol needs recommend_all; features that it lacks are null. Raises ContractError for another shape.
    """
    index = _index(matrix)
    if matrix.columns.nlevels != 2:
        raise ContractError(
            "the matrix has no columns (symbol, feature)",
            cause=f"its columns have {matrix.columns.nlevels} level(s)",
            fix="make them a MultiIndex of symbol and feature",
        )
    taken: dict[str, TakenRatings] = {}
    refused: dict[str, tuple[str, ...]] = {}
    ignored: set[str] = set()
    for name in dict.fromkeys(matrix.columns.get_level_values(0)):
        own = matrix[name]
        known = {column: feature_named(str(column)) for column in own.columns}
        ignored |= {str(column) for column, feature in known.items() if feature is None and column != AVAILABLE_AT}
        try:
            symbol = check_symbol(str(name))
            taken[symbol] = _take(own, {str(f): c for c, f in known.items() if f is not None}, index)
        except ContractError as fault:
            refused[str(name)] = tuple(str(fault.cause or fault).split("; "))
    return FeaturesTakeover(taken, refused, tuple(sorted(ignored)))


def _index(matrix: pd.DataFrame) -> Stamps:
    if not isinstance(matrix.index, pd.DatetimeIndex) or matrix.index.hasnans:
        raise ContractError(
            "the matrix has no DatetimeIndex", cause=f"its index is {matrix.index.dtype}", fix="index it by bar"
        )
    index = matrix.index
    index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
    if not index.is_unique:
        raise ContractError("two rows of one stamp", cause=f"{index[index.duplicated()][0]}", fix="keep one of them")
    if (index != index.normalize()).any():
        raise ContractError(
            "rows that are not of 00:00 UTC of a trading date",
            cause=f"{index[index != index.normalize()][0]}",
            fix="give daily rows; ratings of shorter bars are computed from them",
        )
    return np.asarray(index.as_unit("us").asi8, dtype=np.int64)


def _take(own: pd.DataFrame, columns: Mapping[str, object], index: Stamps) -> TakenRatings:
    if "recommend_all" not in columns:
        raise _refused(["no recommend_all"])
    values = np.full((len(index), len(FEATURES)), np.nan)
    flaws = []
    for place, name in enumerate(FEATURES):
        if name not in columns:
            continue
        try:
            values[:, place] = own[columns[name]].astype("float64")
        except (ValueError, TypeError) as fault:
            flaws.append(f"{name} holds no numbers ({str(fault)[:100]})")
            continue
        low, high = BOUNDS[name]
        outside = (values[:, place] < low - ROUNDING) | (values[:, place] > high + ROUNDING)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            flaws.append(
                f"{name} is {values[row, place]!r} on {date_text(int(index[row]))}, outside [{low:g}, {high:g}], "
                f"and so are {int(outside.sum()) - 1:,} more"
            )
        values[:, place] = np.clip(values[:, place], low, high)
    rows = ~np.isnan(values).all(axis=1)
    if not flaws and not rows.any():
        flaws.append("it has no values")
    if flaws:
        raise _refused(flaws)
    if AVAILABLE_AT in own.columns:
        rows |= own[AVAILABLE_AT].notna().to_numpy()  # a row of the warm-up, or without a bar
    order = np.argsort(index[rows], kind="stable")
    stamps = index[rows][order]
    return TakenRatings(stamps, _stated(own, rows, order, stamps), values[rows][order])


def _stated(own: pd.DataFrame, rows: np.ndarray, order: np.ndarray, stamps: Stamps) -> Stamps:
    """When each row was known: as it is stated, and where it is not, the latest that it can have been."""
    latest = available_at(stamps, Market(), "1d")
    if AVAILABLE_AT not in own.columns:
        return latest
    try:
        instants = pd.DatetimeIndex(pd.to_datetime(own[AVAILABLE_AT][rows], utc=True))[order]
    except (ValueError, TypeError) as fault:
        raise _refused([f"available_at holds no instants ({str(fault)[:100]})"]) from fault
    stated = np.asarray(instants.as_unit("us").asi8, dtype=np.int64)
    absent = np.asarray(instants.isna(), dtype=bool)
    early = ~absent & (stated < stamps)
    if early.any():
        raise _refused([f"available_at is before its bar on {date_text(int(stamps[early][0]))}"])
    return np.where(absent, latest, stated)


def _refused(flaws: list[str]) -> ContractError:
    return ContractError("this symbol's ratings are refused", cause="; ".join(flaws))
