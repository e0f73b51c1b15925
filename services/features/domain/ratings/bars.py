"""Bars as the kernel takes them: five time-major float64 arrays, checked; gaps packed away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from services.features.domain.ratings.lanes import WIDTH
from shared.errors import ContractError

Array = NDArray[np.float64]

_STRETCH = 2**14
"""Numbers that are looked at at once, so that what is made of them stays in the cache."""

COLUMNS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Bars:
    """Open, high, low, close, volume `[T, S]`; `missing` where there is no bar.

    `gaps[s]`: symbol s lacks a bar after its first; None: none does.
    """

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    missing: NDArray[np.bool_]
    gaps: NDArray[np.bool_] | None

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array, Array]:
        return self.open, self.high, self.low, self.close, self.volume

    def has_gaps(self, first: int, last: int) -> bool:
        """Whether a symbol of these columns lacks a bar after its first."""
        return self.gaps is not None and bool(self.gaps[first:last].any())

    def rows(self, rows: slice) -> Bars:
        """A stretch of time."""
        open_, high, low, close, volume = (array[rows] for array in self.arrays)
        return Bars(open_, high, low, close, volume, self.missing[rows], None)


def checked_bars(open_: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, volume: ArrayLike) -> Bars:
    """`Bars` of five `[T, S]` arrays; `ContractError` names what does not fit."""
    arrays = [_plain(x) for x in (open_, high, low, close, volume)]
    for name, array in zip(COLUMNS, arrays, strict=True):
        if array.ndim != 2 or array.shape != arrays[3].shape:
            raise ContractError(
                f"{name} has the shape {array.shape}",
                cause=f"close has {arrays[3].shape}, and all five are time-major arrays [T, S]",
                fix="pass one row a bar and one column a symbol",
            )
    shape = arrays[3].shape
    if _all_finite(arrays):
        return Bars(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], np.zeros(shape, dtype=np.bool_), None)
    for name, array in zip(COLUMNS, arrays, strict=True):
        _refuse_infinity(name, array)
    missing = np.isnan(arrays[0])
    for array in arrays[1:4]:
        missing |= np.isnan(array)
    started = missing[1:] & ~missing[:-1]
    gaps = np.asarray(started.any(axis=0)) if started.any() else None
    return Bars(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], missing, gaps)


def _plain(given: ArrayLike) -> Array:
    """As the kernel was compiled for: a read-only array, such as pandas gives, would make it compile once more."""
    array = np.ascontiguousarray(given, dtype=np.float64)
    return array if array.flags.carray else array.copy()


def _all_finite(arrays: list[Array]) -> bool:
    """Whether every number of five arrays is one; it may say no where only a sum of them is none."""
    height, width = arrays[0].shape
    rows = max(1, _STRETCH // max(width, 1))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, height, rows):
            part = arrays[0][start : start + rows] + arrays[1][start : start + rows]
            for array in arrays[2:]:
                part += array[start : start + rows]
            if not np.isfinite(part.sum()):
                return False
    return True


def _refuse_infinity(name: str, array: Array) -> None:
    infinite = np.isinf(array)
    if infinite.any():
        row, column = (int(i) for i in np.argwhere(infinite)[0])
        raise ContractError(
            f"{name} of bar {row} of symbol number {column} is {float(array[row, column])!r}",
            cause="ratings are of finite prices and volumes",
            fix="repair the bar, or make its prices NaN to leave it out",
        )


def packed(bars: Bars, first: int, last: int) -> tuple[Bars, NDArray[np.intp] | None]:
    """Columns `first` to `last` with each symbol's bars at the end, without gaps; and the order that did it.

    None: they lie so already.
    """
    columns = [array[:, first:last] for array in bars.arrays]
    if not bars.has_gaps(first, last):
        open_, high, low, close, volume = (np.ascontiguousarray(column) for column in columns)
        return Bars(open_, high, low, close, volume, bars.missing[:, first:last], None), None
    order = np.argsort(~bars.missing[:, first:last], axis=0, kind="stable")
    ends = [np.ascontiguousarray(np.take_along_axis(column, order, axis=0)) for column in columns]
    return Bars(ends[0], ends[1], ends[2], ends[3], ends[4], np.isnan(ends[3]), None), order


def padded(bars: Bars) -> Bars:
    """`bars` with the last column repeated up to whole blocks of lanes."""
    height, width = bars.close.shape
    spare = -width % WIDTH
    if not spare:
        return bars

    def wider(array: NDArray[Any]) -> NDArray[Any]:
        out = np.empty((height, width + spare), dtype=array.dtype)
        out[:, :width] = array
        out[:, width:] = array[:, -1:]
        return out

    open_, high, low, close, volume = (wider(array) for array in bars.arrays)
    return Bars(open_, high, low, close, volume, wider(bars.missing), None)


def unpacked(values: Array, order: NDArray[np.intp]) -> Array:
    """What `packed` did, undone."""
    out = np.empty_like(values)
    np.put_along_axis(out, order, values, axis=0)
    return out


def bars_of_frame(frame: pd.DataFrame) -> Bars:
    """`Bars` `[T, 1]` of one symbol's frame: the five columns and a UTC index, ascending and unique."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ContractError(
            f"the bars have no column {', '.join(missing)}",
            cause=f"their columns are {', '.join(map(str, frame.columns))}",
            fix=f"name them {', '.join(COLUMNS)}",
        )
    check_index(frame.index)
    columns = frame if tuple(frame.columns) == COLUMNS else frame[list(COLUMNS)]
    values = columns.to_numpy(dtype=np.float64)  # together: asking for each takes as long as a thousand bars do
    return checked_bars(*(values[:, column, None] for column in range(len(COLUMNS))))


def check_index(index: pd.Index) -> None:
    """`ContractError` unless `index` is a UTC DatetimeIndex, ascending and unique."""
    if not isinstance(index, pd.DatetimeIndex):
        raise ContractError(
            f"the bars' index is a {type(index).__name__}",
            cause="bars are indexed by their UTC opening time",
            fix="bars.index = pandas.to_datetime(bars.index, utc=True)",
        )
    if index.tz is None:
        raise ContractError(
            "the bars' index has no time zone",
            cause="a naive time could be any zone's",
            fix='bars.index = bars.index.tz_localize("UTC")',
        )
    if str(index.tz) not in ("UTC", "utc", "Etc/UTC", "UTC+00:00", "+00:00"):
        raise ContractError(
            f"the bars' index is in {index.tz}",
            cause="bars are in UTC",
            fix='bars.index = bars.index.tz_convert("UTC")',
        )
    if not index.is_unique:
        raise ContractError(
            f"the bars' index repeats {index[index.duplicated()][0]}",
            cause="a time has one bar",
            fix="decide which of the bars holds; none is dropped silently",
        )
    if not index.is_monotonic_increasing:
        raise ContractError(
            "the bars' index does not ascend",
            cause="a rating is made from the bars before it",
            fix="bars = bars.sort_index()",
        )
