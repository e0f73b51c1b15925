"""Cell by cell: two versions of a feature table, or what a run staged and what its inputs give again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from shared.errors import ContractError


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell that differs; `key` is the row's, in the order of the key columns."""

    key: tuple[Any, ...]
    column: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """`cells` are the first that differ, in the order of the keys; `differing` counts all, `columns` counts them
    by column and `groups` by the first key."""

    rows: int
    only_left: tuple[tuple[Any, ...], ...]
    only_right: tuple[tuple[Any, ...], ...]
    differing: int
    cells: tuple[Cell, ...]
    columns: Mapping[str, int]
    groups: Mapping[Any, int]

    @property
    def equal(self) -> bool:
        return not (self.only_left or self.only_right or self.differing)


def compare(left: pd.DataFrame, right: pd.DataFrame, *, keys: Sequence[str], first: int = 20) -> Comparison:
    """Compare rows of equal keys exactly: floats to the bit, two missing values are equal, columns in any order.

    Raises ContractError when a key is missing or not unique, or the columns differ.
    """
    left, right = _keyed(left, keys, "left"), _keyed(right, keys, "right")
    if set(left.columns) != set(right.columns):
        raise ContractError(
            "the columns differ",
            cause=f"{sorted(set(left.columns) ^ set(right.columns))}",
            fix="compare like with like",
        )
    shared = left.index.intersection(right.index, sort=True)
    columns: dict[str, int] = {}
    groups: Counter[Any] = Counter()
    cells: list[Cell] = []
    for column in sorted(left.columns):
        ours, theirs = left.loc[shared, column], right.loc[shared, column]
        unequal = _unequal(ours, theirs)
        if unequal.any():
            columns[column] = int(unequal.sum())
            groups.update(shared[unequal].get_level_values(0))
        cells += [Cell(_tuple(key), column, ours[key], theirs[key]) for key in shared[unequal][:first]]
    return Comparison(
        rows=len(shared),
        only_left=tuple(_rows(left.index.difference(right.index, sort=True))),
        only_right=tuple(_rows(right.index.difference(left.index, sort=True))),
        differing=sum(columns.values()),
        cells=tuple(sorted(cells, key=lambda cell: (*map(str, cell.key), cell.column))[:first]),
        columns=columns,
        groups=dict(groups),
    )


def _keyed(frame: pd.DataFrame, keys: Sequence[str], name: str) -> pd.DataFrame:
    missing = [key for key in keys if key not in frame.columns]
    if missing:
        raise ContractError(f"the {name} rows have no {', '.join(missing)}", fix="name the key columns that they have")
    keyed = frame.set_index(list(keys))
    if not keyed.index.is_unique:
        twice = keyed.index[keyed.index.duplicated()][0]
        raise ContractError(f"the {name} rows have {twice!r} more than once", fix="compare rows with unique keys")
    return keyed


def _unequal(left: pd.Series[Any], right: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    both_missing = left.isna().to_numpy() & right.isna().to_numpy()
    equal = np.asarray(left.to_numpy() == right.to_numpy(), dtype=np.bool_)
    return np.logical_not(equal | both_missing)


def _rows(index: pd.Index[Any]) -> Iterator[tuple[Any, ...]]:
    yield from (_tuple(key) for key in index)


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)
