"""The bars of a batch of symbols as plain arrays: what is validated and rated at once, without a loop over frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from services.features.domain.sessions import Stamps
from shared.errors import ContractError

PRICES: Final = ("open", "high", "low", "close")
VALUES: Final = (*PRICES, "volume")
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BarsBatch:
    """Bars of several symbols, one after the other, `n` rows in all.

    symbols   the names; `codes[n]` says whose row it is
    stamps    microseconds UTC, in the order in which the bars were given
    values    `[n, 5]`: open, high, low, close, volume
    """

    symbols: tuple[str, ...]
    codes: NDArray[np.intp]
    stamps: Stamps
    values: Array

    @classmethod
    def of(cls, bars: Mapping[str, pd.DataFrame]) -> BarsBatch:
        """From one frame a symbol: columns open, high, low, close, volume and a UTC DatetimeIndex.

        Nothing is sorted or dropped. Raises ContractError for a frame of another shape, naming its symbol.
        """
        stamps, values = [], []
        for symbol, frame in bars.items():
            index = frame.index
            if not isinstance(index, pd.DatetimeIndex) or index.tz is None or index.hasnans:
                raise ContractError(
                    "bars need a DatetimeIndex in UTC",
                    symbol=symbol,
                    cause=f"the index is {index.dtype}",
                    fix="bars.index = bars.index.tz_localize('UTC')",
                )
            missing = [name for name in VALUES if name not in frame.columns]
            if missing:
                raise ContractError(f"bars lack {', '.join(missing)}", symbol=symbol, fix=f"name {', '.join(VALUES)}")
            stamps.append(np.asarray(index.tz_convert("UTC").as_unit("us").asi8, dtype=np.int64))
            values.append(frame[list(VALUES)].to_numpy(dtype=np.float64, na_value=np.nan))
        lengths = [len(one) for one in stamps]
        return cls(
            symbols=tuple(bars),
            codes=np.repeat(np.arange(len(lengths)), lengths),
            stamps=np.concatenate([np.empty(0, np.int64), *stamps]),
            values=np.concatenate([np.empty((0, 5)), *values]),
        )

    def __len__(self) -> int:
        return len(self.stamps)

    def rows(self, keep: Mask) -> BarsBatch:
        """The rows of `keep`; the list of symbols stays, so that codes keep their meaning."""
        return BarsBatch(self.symbols, self.codes[keep], self.stamps[keep], self.values[keep])

    def of_symbols(self, names: set[str]) -> Mask:
        """Which rows belong to these symbols."""
        chosen = np.array([symbol in names for symbol in self.symbols], dtype=bool)
        return chosen[self.codes]

    def to_frame(self) -> pd.DataFrame:
        """symbol, ts and the five values, a row a bar."""
        symbol = pd.Categorical.from_codes(self.codes.tolist(), categories=pd.Index(self.symbols))
        ts = pd.to_datetime(self.stamps, unit="us", utc=True)
        return pd.DataFrame({"symbol": symbol, "ts": ts, **dict(zip(VALUES, self.values.T, strict=True))})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a batch stand in a time-major panel: `panel[time[n], codes[n]]` is row n."""

    time: NDArray[np.intp]
    codes: NDArray[np.intp]
    shape: tuple[int, int]

    @classmethod
    def of(cls, batch: BarsBatch) -> Layout:
        """Raises ContractError when a symbol has two bars of one stamp: the panel has one place for them."""
        times, time = np.unique(batch.stamps, return_inverse=True)
        shape = (len(times), len(batch.symbols))
        taken = np.zeros(shape, dtype=bool)
        taken[time, batch.codes] = True
        if taken.sum() != len(batch):
            raise ContractError("a symbol has two bars of one stamp", fix="validate the bars first")
        return cls(time, batch.codes, shape)

    def panel(self, values: Array) -> Array:
        """`[T, S]` of one value a row, NaN where a symbol has no row."""
        out = np.full(self.shape, np.nan)
        out[self.time, self.codes] = values
        return out

    def rows(self, panel: Array) -> Array:
        return panel[self.time, self.codes]


def first_and_last(batch: BarsBatch) -> tuple[Stamps, Stamps]:
    """Each symbol's first and last stamp, `[S]`; 0 for a symbol without rows."""
    first = np.full(len(batch.symbols), np.iinfo(np.int64).max)
    last = np.zeros(len(batch.symbols), dtype=np.int64)
    np.minimum.at(first, batch.codes, batch.stamps)
    np.maximum.at(last, batch.codes, batch.stamps)
    return np.where(last == 0, 0, first), last
