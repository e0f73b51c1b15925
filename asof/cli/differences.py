"""How feature rows differ, cell by cell: what `asof reproduce` and `asof diff` count and show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from asof.lakehouse import Lakehouse
from services.auditor import compare
from shared.errors import NotFoundError
from shared.tables import Snapshot, Table, open_table

_KEYS = ("symbol", "ts", "source")
_FIRST = 20
# Symbols whose rows are in memory at once while two versions are compared.
_AT_ONCE = 200


@dataclass
class Differences:
    """Rows of the left and the right side. `cells` are the first that differ, `alone` the first rows of one side."""

    rows: int = 0
    only_left: int = 0
    only_right: int = 0
    differing: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    symbols: set[str] = field(default_factory=set)
    cells: list[dict[str, Any]] = field(default_factory=list)
    alone: list[dict[str, Any]] = field(default_factory=list)

    @property
    def none(self) -> bool:
        return not (self.differing or self.only_left or self.only_right)

    def add(self, left: pa.Table, right: pa.Table) -> None:
        """Compare feature rows with the same columns; what was added before counts on."""
        if left.equals(right):
            self.rows += left.num_rows
            return
        found = compare(_frame(left), _frame(right), keys=_KEYS, first=_FIRST)
        self.rows += found.rows
        self.only_left += len(found.only_left)
        self.only_right += len(found.only_right)
        self.differing += found.differing
        for column, count in found.columns.items():
            self.columns[column] = self.columns.get(column, 0) + count
        self.symbols.update(found.groups)
        for side, rows in (("left", found.only_left), ("right", found.only_right)):
            self.symbols.update(key[0] for key in rows)
            self.alone += [{**_named(key), "only": side} for key in rows[: _FIRST - len(self.alone)]]
        self.cells += [
            {**_named(cell.key), "column": cell.column, "left": _value(cell.left), "right": _value(cell.right)}
            for cell in found.cells[: _FIRST - len(self.cells)]
        ]

    def as_dict(self, left: str, right: str) -> dict[str, Any]:
        """The sides under the names that the reader knows them by."""
        names = {"left": left, "right": right}
        return {
            "rows_in_both": self.rows,
            f"rows_only_{left}": self.only_left,
            f"rows_only_{right}": self.only_right,
            "differing_cells": self.differing,
            "differing_columns": dict(sorted(self.columns.items())),
            "differing_symbols": sorted(self.symbols),
            "first_cells": [{names.get(name, name): value for name, value in cell.items()} for cell in self.cells],
            "first_rows": [{**row, "only": names[row["only"]]} for row in self.alone],
        }


def diff_versions(lake: Lakehouse, a: str, b: str, *, interval: str, rules: str) -> dict[str, Any]:
    """What changed in the feature store from `a` to `b`: version numbers, `prod`, or runs that were promoted.

    Raises NotFoundError for a version that is not there.
    """
    table = open_table(lake.home.features_table(interval, rules))
    left, right = (table.load(_version(lake, table, text)) for text in (a, b))
    both = left.keys.keys() & right.keys.keys()
    # A symbol whose rows stand in the same file has the same rows.
    moved = sorted(symbol for symbol in both if left.keys[symbol] != right.keys[symbol])
    found = Differences()
    for start in range(0, len(moved), _AT_ONCE):
        symbols = moved[start : start + _AT_ONCE]
        found.add(_rows(left, symbols), _rows(right, symbols))
    return {
        "interval": interval,
        "rules": rules,
        "a": _described(left),
        "b": _described(right),
        "symbols": {
            "added": sorted(right.keys.keys() - left.keys.keys()),
            "removed": sorted(left.keys.keys() - right.keys.keys()),
            "changed": len(found.symbols),
            "same": len(both) - len(found.symbols),
        },
        **found.as_dict("a", "b"),
    }


def _version(lake: Lakehouse, table: Table, text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    name = text.removeprefix("@")
    tags = table.tags()
    if name in tags:
        return tags[name]
    promoted = [entry["data"] for entry in lake.run(text).ledger if entry["kind"] == "promoted"]
    if not promoted:
        raise NotFoundError(f"run {text} was not promoted", fix=f"asof show {text}")
    return int(promoted[-1]["feature_version"])


def _described(snapshot: Snapshot) -> dict[str, Any]:
    meta: Mapping[str, Any] = snapshot.meta
    said = {name: meta.get(name) for name in ("run_id", "promoted_at", "catalog_version", "rollback")}
    return {"version": snapshot.version, "symbols": len(snapshot.keys), **said}


def _rows(snapshot: Snapshot, symbols: list[str]) -> pa.Table:
    return snapshot.read(None, keys=symbols)


def _frame(rows: pa.Table) -> pd.DataFrame:
    frame = rows.to_pandas()
    words = [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    return frame.astype(dict.fromkeys(words, "str"))


def _named(key: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(_KEYS, key, strict=True))


def _value(value: Any) -> Any:
    return None if pd.isna(value) else value
