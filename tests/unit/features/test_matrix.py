"""The wide matrix: a row a stamp, a column a symbol and feature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from services.features.adapters.matrix import MATRIX_FEATURES, closed_rows, to_matrix, wide_table
from services.features.adapters.rows import SCHEMA
from tests.unit.features.made import instant


def rows(*entries):
    """(symbol, day, rsi, source) as feature rows; every other rating is empty."""
    return pa.table(
        {
            "symbol": pa.array([entry[0] for entry in entries]).dictionary_encode(),
            "ts": [instant(f"2021-01-{entry[1]:02}") for entry in entries],
            "recommend_ma": pa.nulls(len(entries), pa.float64()),
            "recommend_other": pa.nulls(len(entries), pa.float64()),
            "recommend_all": pa.nulls(len(entries), pa.float64()),
            "rsi": pa.array([entry[2] for entry in entries], pa.float64()),
            "adx": pa.nulls(len(entries), pa.float64()),
            "available_at": [instant(f"2021-01-{entry[1]:02}T21:00:00") for entry in entries],
            "source": [entry[3] if len(entry) > 3 else "local" for entry in entries],
            "rules": ["screener"] * len(entries),
            "rules_version": ["1"] * len(entries),
        }
    ).cast(SCHEMA)


TABLE = rows(("X:B", 5, 50.0), ("X:B", 4, 40.0), ("X:A", 5, 55.0), ("X:A", 7, None))


def test_rows_in_any_order_make_ascending_stamps_and_sorted_symbols():
    matrix = to_matrix(TABLE, None, MATRIX_FEATURES)
    assert matrix.index.tolist() == [pd.Timestamp(f"2021-01-0{day}", tz="UTC") for day in (4, 5, 7)]
    assert list(dict.fromkeys(matrix.columns.get_level_values("symbol"))) == ["X:A", "X:B"]
    assert matrix["X:B", "rsi"].tolist()[:2] == [40.0, 50.0]
    assert matrix["X:A", "rsi"].isna().tolist() == [True, False, True]
    assert matrix["X:A", "available_at"].tolist()[1] == pd.Timestamp("2021-01-05T21:00:00Z")
    assert matrix["X:A", "available_at"].isna().tolist() == [True, False, False]
    assert all(matrix.dtypes[name, "rsi"] == np.float64 for name in ("X:A", "X:B"))
    assert str(matrix.dtypes["X:A", "available_at"]) == "datetime64[us, UTC]"


def test_the_columns_are_those_that_were_asked_for_in_their_order():
    matrix = to_matrix(TABLE.slice(0, 2), ["X:NONE", "X:B"], ["rsi"])
    assert matrix.columns.tolist() == [("X:NONE", "rsi"), ("X:B", "rsi")]
    assert matrix["X:NONE", "rsi"].isna().all()


def test_no_rows_are_an_empty_matrix_of_the_same_shape():
    matrix = to_matrix(SCHEMA.empty_table(), ["X:A"], MATRIX_FEATURES)
    assert matrix.shape == (0, 6)
    assert str(matrix.index.tz) == "UTC"
    assert to_matrix(SCHEMA.empty_table(), None, MATRIX_FEATURES).shape == (0, 0)


def test_a_screeners_values_are_no_part_of_it():
    both = pa.concat_tables([TABLE, rows(("X:A", 6, 99.0, "screener"))])
    assert closed_rows(both).num_rows == 4
    wide = wide_table(both).to_pandas()
    assert pd.Timestamp("2021-01-06", tz="UTC") not in wide.index
    pd.testing.assert_frame_equal(wide, to_matrix(TABLE, None, MATRIX_FEATURES))


def test_tables_of_several_segments_with_dictionaries_of_their_own_are_one_matrix():
    parts = [rows(("X:B", 4, 40.0)), rows(("X:C", 4, 30.0)), rows(("X:A", 4, 20.0))]
    matrix = to_matrix(pa.concat_tables(parts), None, ["rsi"])
    assert matrix.iloc[0].tolist() == [20.0, 40.0, 30.0]
