"""A staged file may bring only the last rows of a symbol: the others stand in a feature version that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from services.features.adapters.matrix import closed_rows
from services.features.adapters.rows import SCHEMA, by_symbol, from_parquet
from shared.errors import IntegrityError, NotFoundError
from shared.tables import Table

CONTINUES: Final = b"asof.continues"
_NEVER, _EVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Continues(BaseModel):
    """What a staged file goes on from: a feature version, and how many rows each of its symbols has in all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    rows: dict[str, int]


def whole_rows(features: Table, data: bytes, name: str) -> pa.Table:
    """All rows of a staged file's symbols, by symbol and stamp.

    Where the file goes on from a feature version, the rows that both have must be the same. Raises IntegrityError when
    they are not, and when there are not as many rows as the file says.
    """
    part = from_parquet(data, name)
    stated = (pq.read_schema(pa.BufferReader(data)).metadata or {}).get(CONTINUES)
    if stated is None:
        return part
    goes_on = Continues.model_validate_json(stated)
    try:
        before = features.load(goes_on.version).read(SCHEMA.names, keys=goes_on.rows)
    except NotFoundError as fault:
        raise _not_continued(name, goes_on.version, str(fault)) from fault
    before = closed_rows(before).cast(SCHEMA)
    local = closed_rows(part)
    local = local.filter(_of(local, goes_on.rows))
    first, last = _ends(local, np.minimum, _EVER), _ends(before, np.maximum, _NEVER)
    older = before.filter(_compared(before, first, np.less))
    shared = before.filter(_compared(before, first, np.greater_equal))
    again = local.filter(_compared(local, last, np.less_equal))
    if not _plain(by_symbol([shared])).equals(_plain(by_symbol([again]))):
        raise _not_continued(name, goes_on.version, "the rows that both have differ")
    counts = dict.fromkeys(goes_on.rows, 0)
    for rows in (older, local):
        for symbol, count in _counts(rows).items():
            counts[symbol] += count
    wrong = next((symbol for symbol, count in goes_on.rows.items() if counts[symbol] != count), None)
    if wrong is not None:
        cause = f"{wrong} has {counts[wrong]:,} rows there and here, not {goes_on.rows[wrong]:,}"
        raise _not_continued(name, goes_on.version, cause)
    return by_symbol([part, older])


def _not_continued(name: str, version: int, cause: str) -> IntegrityError:
    return IntegrityError(
        f"{name} does not go on from feature version {version}", cause=cause, fix="start the run under another run id"
    )


def _of(rows: pa.Table, symbols: Iterable[str]) -> Any:
    return pc.is_in(rows["symbol"].cast(pa.string()), pa.array(list(symbols), pa.string()))


def _coded(rows: pa.Table) -> tuple[list[str], NDArray[np.intp], NDArray[np.int64]]:
    """Symbols, which of them each row is of, and the rows' stamps."""
    encoded: Any = rows["symbol"].cast(pa.string()).combine_chunks().dictionary_encode()
    words = [str(word) for word in encoded.dictionary.to_pylist()]
    return words, encoded.indices.to_numpy(zero_copy_only=False), rows["ts"].cast(pa.int64()).to_numpy()


def _ends(rows: pa.Table, end: np.ufunc, beyond: int) -> dict[str, int]:
    """The first (minimum) or the last (maximum) stamp of each symbol."""
    words, codes, stamps = _coded(rows)
    found = np.full(len(words), beyond, dtype=np.int64)
    end.at(found, codes, stamps)
    return dict(zip(words, found.tolist(), strict=True))


def _compared(rows: pa.Table, limits: Mapping[str, int], compare: np.ufunc) -> pa.Array[Any]:
    """Which rows' stamps compare so with their symbol's limit."""
    words, codes, stamps = _coded(rows)
    limit = np.array([limits.get(word, _NEVER) for word in words], dtype=np.int64)
    return pa.array(compare(stamps, limit[codes]), pa.bool_())


def _counts(rows: pa.Table) -> dict[str, int]:
    words, codes, _ = _coded(rows)
    return dict(zip(words, np.bincount(codes, minlength=len(words)).tolist(), strict=True))


def _plain(rows: pa.Table) -> pa.Table:
    """Without dictionaries: equal rows are equal tables."""
    names = [field.name for field in rows.schema if pa.types.is_dictionary(field.type)]
    for name in names:
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(pa.string()))
    return rows.combine_chunks()
