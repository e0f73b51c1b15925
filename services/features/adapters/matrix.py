"""The wide matrix: a row a stamp, a column a symbol and feature. Built from plain arrays, never by a pivot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from services.features.adapters.rows import LOCAL, SCHEMA
from services.features.domain.validation_features import FEATURES

AVAILABLE_AT = "available_at"
MATRIX_FEATURES = (*FEATURES, AVAILABLE_AT)
_NAT = np.iinfo(np.int64).min


def closed_rows(table: pa.Table) -> pa.Table:
    """Rows of closed bars: a screener's current values are no part of a matrix."""
    closed = pc.is_in(table["source"].cast(pa.string()), pa.array([LOCAL]))
    return table if pc.all(closed).as_py() else table.filter(closed)


def to_matrix(table: pa.Table, symbols: Sequence[str] | None, features: Sequence[str]) -> pd.DataFrame:
    """Rows (symbol, ts, features) as `[stamps, (symbol, feature)]`; the columns of `symbols` in their order.

    A symbol without rows has columns without values, so that the shape is what was asked for. `ts` is the index,
    UTC; `available_at` is a UTC instant, all else float64, NaN where there is no value.
    """
    stamps = table["ts"].cast(pa.int64()).to_numpy()
    column = table["symbol"].combine_chunks() if table.num_rows else pa.array([], pa.string())
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    words = [str(word) for word in encoded.dictionary.to_pylist()]
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    # A dictionary may hold words that no row uses: symbols that were refused beside those that were stored.
    names = sorted({words[index] for index in np.unique(indices)}) if symbols is None else list(symbols)
    place = {name: number for number, name in enumerate(names)}
    codes = np.array([place.get(word, -1) for word in words], dtype=np.intp)[indices]
    times, rows = np.unique(stamps, return_inverse=True)
    blocks = {name: _block(table[name], name, (len(names), len(times)), codes, rows) for name in features}
    columns = {(symbol, name): blocks[name][number] for number, symbol in enumerate(names) for name in features}
    index = pd.DatetimeIndex(times.view("datetime64[us]"), tz="UTC", name="ts")
    frame = pd.DataFrame(columns, index=index, copy=False)
    frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["symbol", "feature"])
    return frame


def _block(
    values: pa.ChunkedArray[Any], name: str, shape: tuple[int, int], codes: np.ndarray, rows: np.ndarray
) -> Sequence[np.ndarray | pd.DatetimeIndex]:
    if name == AVAILABLE_AT:
        stamps = np.full(shape, _NAT, dtype=np.int64)
        stamps[codes, rows] = values.cast(pa.int64()).to_numpy()
        return [pd.DatetimeIndex(line.view("datetime64[us]"), tz="UTC") for line in stamps]
    block = np.full(shape, np.nan)
    block[codes, rows] = values.to_numpy()
    return list(block)


def wide_table(rows: pa.Table) -> pa.Table:
    """The matrix of all symbols as Arrow, with the notes by which pandas finds its index and columns again."""
    # A table that went back to before its first promotion has neither rows nor columns.
    known = rows if rows.column_names else SCHEMA.empty_table()
    return pa.Table.from_pandas(to_matrix(closed_rows(known), None, MATRIX_FEATURES), preserve_index=True)
