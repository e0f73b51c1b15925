from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from services.auditor import compare
from shared.errors import ContractError

DAYS = pd.to_datetime(["2021-12-13", "2021-12-14", "2021-12-15"], utc=True)


def rows() -> pd.DataFrame:
    return pd.DataFrame({"symbol": ["A", "A", "B"], "ts": DAYS, "rsi": [50.0, np.nan, 70.0], "adx": [1.0, 2.0, 3.0]})


def test_equal_rows_in_another_order_are_equal_and_missing_equals_missing() -> None:
    found = compare(rows(), rows().iloc[::-1][["adx", "ts", "rsi", "symbol"]], keys=["symbol", "ts"])
    assert found.equal
    assert found.rows == 3


def test_the_first_differing_cells_are_named_with_both_values() -> None:
    other = rows()
    other.loc[1, "rsi"] = 51.0
    other.loc[2, "adx"] = np.nextafter(3.0, 4.0)
    found = compare(rows(), other, keys=["symbol", "ts"])
    assert not found.equal
    assert found.differing == 2
    assert (found.columns, found.groups) == ({"adx": 1, "rsi": 1}, {"A": 1, "B": 1})
    assert [(cell.key[0], cell.column, cell.right) for cell in found.cells] == [
        ("A", "rsi", 51.0),
        ("B", "adx", np.nextafter(3.0, 4.0)),
    ]


def test_rows_of_one_side_alone_are_named() -> None:
    found = compare(rows(), rows().iloc[:2], keys=["symbol", "ts"])
    assert found.only_left == (("B", DAYS[2]),)
    assert found.only_right == ()
    assert not found.equal


@pytest.mark.parametrize(
    "other", [rows().drop(columns="rsi"), pd.concat([rows(), rows()]), rows().drop(columns="symbol")]
)
def test_what_cannot_be_compared_is_refused(other: pd.DataFrame) -> None:
    with pytest.raises(ContractError):
        compare(rows(), other, keys=["symbol", "ts"])
