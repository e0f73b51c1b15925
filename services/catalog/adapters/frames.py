"""Versions as people read them: records, DataFrames, joins and plain Parquet files."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from services.catalog.adapters.arrow import Column, Rows, pa, pc
from services.catalog.adapters.facts import INSTANT, micros
from services.catalog.adapters.panel import Panel
from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Version
from shared.errors import ContractError
from shared.files import make_dirs, write_atomic

_DTYPES = {str: "object", int: "Int64", float: "float64", bool: "boolean"}
_INSTANT = "datetime64[us, UTC]"
_INSTANTS = ("valid_from", "valid_until", "updated_at", "last_confirmed")
_TEXTS = ("run_id", "source", "sources")
_NEVER = np.iinfo(np.int64).max
_FAR = np.iinfo(np.int64).min  # what pandas reads as NaT

Places = npt.NDArray[np.integer[Any]]


def record_of(version: Version, schema: Schema) -> dict[str, Any]:
    return {
        schema.key: version.key,
        **version.fields,
        "valid_from": version.valid_from,
        "valid_until": version.valid_until,
        "updated_at": version.updated_at,
        "last_confirmed": version.last_confirmed,
        "run_id": version.run_id,
        "source": version.source,
        "sources": version.sources,
    }


def dtypes(schema: Schema) -> dict[str, str]:
    """The columns of a history and their pandas types."""
    kinds = {schema.key: "object", **{name: _DTYPES[kind] for name, kind in schema.attributes.items()}}
    return kinds | dict.fromkeys(_INSTANTS, _INSTANT) | dict.fromkeys(_TEXTS, "object")


def history_frame(versions: Sequence[Version], schema: Schema) -> pd.DataFrame:
    """One row a version: key, attributes, valid_from, valid_until, updated_at and the bookkeeping columns."""
    records = [record_of(version, schema) for version in versions]
    return pd.DataFrame(
        {name: pd.Series([record[name] for record in records], dtype=kind) for name, kind in dtypes(schema).items()}
    )


def panel_frame(panel: Panel, places: Places | None, schema: Schema) -> pd.DataFrame:
    """The same of these versions of a panel, or of all, ordered by key and valid_from."""
    if places is None:
        places = panel.by_name if panel.by_name is not None else np.arange(len(panel.codes))
    names = np.array(panel.names, dtype=object)
    columns = {schema.key: names[panel.codes[places]]}
    columns |= {name: attribute(panel, name, places, schema) for name in list(dtypes(schema))[1:]}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in dtypes(schema).items()})


def attribute(panel: Panel, name: str, places: Places, schema: Schema) -> Any:
    """A column's values at `places`, null where a place is -1."""
    absent = places < 0
    if name in _INSTANTS:
        source = {
            "valid_from": panel.start,
            "valid_until": panel.until,
            "updated_at": panel.updated,
            "last_confirmed": panel.confirmed,
        }[name]
        values = source.take(places, mode="wrap") if len(source) else np.full(len(places), _FAR)
        values = np.where(absent | (values == _NEVER), _FAR, values)
        return pd.DatetimeIndex(values.view("datetime64[us]")).tz_localize("UTC")
    column = panel.columns[name]
    index = pa.array(places, mask=absent) if absent.any() else pa.array(places)
    taken = column.take(index)
    if pa.types.is_dictionary(taken.type):
        return _texts_of(taken)
    kind = schema.attributes.get(name, str)
    if kind is float:
        return taken.to_numpy()
    if kind is str:
        return np.array(taken.to_pylist(), dtype=object)
    null = pc.is_null(taken).to_numpy()
    values = pc.fill_null(taken, False if kind is bool else 0).to_numpy()
    return (pd.arrays.BooleanArray if kind is bool else pd.arrays.IntegerArray)(values, null)


def _texts_of(column: Column) -> npt.NDArray[np.object_]:
    one = column.unify_dictionaries().combine_chunks()
    one = one.chunk(0) if isinstance(one, pa.ChunkedArray) else one
    texts = np.array([*one.dictionary.to_pylist(), None], dtype=object)
    filled: npt.NDArray[np.object_] = texts[pc.fill_null(one.indices, len(texts) - 1).to_numpy(zero_copy_only=False)]
    return filled


def history_rows(panel: Panel, schema: Schema) -> Rows:
    """The whole history as a plain Arrow table, in the order of `panel_frame`."""
    places = panel.by_name if panel.by_name is not None else np.arange(len(panel.codes))
    columns: dict[str, Any] = {schema.key: pa.array(panel.names, pa.string()).take(pa.array(panel.codes[places]))}
    instants = {
        "valid_from": pa.array(panel.start[places]),
        "valid_until": pa.array(panel.until[places], mask=panel.is_open[places]),
        "updated_at": pa.array(panel.updated[places]),
        "last_confirmed": pa.array(panel.confirmed[places]),
    }
    for name in list(dtypes(schema))[1:]:
        if name in instants:
            columns[name] = instants[name].cast(INSTANT)
        else:
            column = panel.columns[name].take(pa.array(places))
            columns[name] = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    return pa.table(columns)


def join_frame(
    frame: pd.DataFrame,
    on: tuple[str, str],
    panel: Panel,
    codes: Mapping[str, int],
    schema: Schema,
    columns: Collection[str] | None = None,
) -> pd.DataFrame:
    """Each row of `frame` with the version of its symbol at its own instant; nulls before a symbol's first version.

    Raises ContractError for a missing column, a naive timestamp, and a symbol that the catalog has never known.
    """
    key, stamp = on
    for name in on:
        if name not in frame.columns:
            raise ContractError(
                f"the frame has no column {name!r}", fix=f"pass on=(symbol column, time column), not {on}"
            )
    names = [name for name in dtypes(schema) if name != schema.key]
    strange = [name for name in columns or () if name not in names]
    if strange:
        raise ContractError(f"the catalog has no column {strange[0]!r}", fix=f"choose from {', '.join(names)}")
    places = find_places(frame[key], frame[stamp], panel, codes)
    chosen = [name for name in names if columns is None or name in columns]
    added = {
        (f"{name}_catalog" if name in frame.columns else name): attribute(panel, name, places, schema)
        for name in chosen
    }
    kinds = dtypes(schema)
    found = pd.DataFrame(
        {name: pd.Series(values, dtype=kinds[name.removesuffix("_catalog")]) for name, values in added.items()}
    )
    return pd.concat([frame, found.set_axis(frame.index)], axis=1)


def find_places(keys: pd.Series, stamps: pd.Series, panel: Panel, codes: Mapping[str, int]) -> Places:
    """For each pair the place of its version in the panel, -1 before its first."""
    return panel.find(codes_of(keys, panel, codes), micros_of(stamps))


def micros_of(stamps: pd.Series) -> npt.NDArray[np.int64]:
    """Microseconds since 1970 of a column of aware instants; finer ones are rounded down, which keeps half-open
    intervals exact. Raises ContractError for naive and for missing ones."""
    name = stamps.name
    if stamps.dtype == object and len(stamps) and all(getattr(one, "tzinfo", None) is not None for one in stamps):
        stamps = (
            pd.Series([micros(one) for one in stamps], dtype="int64").astype("datetime64[us]").dt.tz_localize("UTC")
        )
    if isinstance(stamps.dtype, pd.ArrowDtype) and getattr(stamps.dtype.pyarrow_dtype, "tz", None):
        stamps = pd.Series(
            pd.DatetimeIndex(stamps.to_numpy("datetime64[us]", na_value=np.datetime64("NaT"))), name=name
        )
        stamps = stamps.dt.tz_localize("UTC")
    if not isinstance(stamps.dtype, pd.DatetimeTZDtype):
        raise ContractError(
            f"the column {name!r} has no time zone",
            cause=f"its type is {stamps.dtype}",
            fix=f"frame[{name!r}] = pd.to_datetime(frame[{name!r}]).dt.tz_localize('UTC')",
        )
    naive = np.asarray(stamps.array.asi8)
    unit = stamps.dtype.unit
    if len(naive) and (naive == _FAR).any():
        row = int(np.argmax(naive == _FAR))
        raise ContractError(f"the column {name!r} has no instant in row {row}", fix="drop rows without an instant")
    return naive if unit == "us" else naive // 1000 if unit == "ns" else naive * {"ms": 1000, "s": 1_000_000}[unit]


def codes_of(keys: pd.Series, panel: Panel, codes: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """The code of each key. Raises ContractError that names those the catalog has never known (in this panel)."""
    if isinstance(keys.dtype, pd.CategoricalDtype):
        names, each = keys.cat.categories.to_list(), keys.cat.codes.to_numpy()
    else:
        encoded = pa.array(keys, pa.string(), from_pandas=True)
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        encoded = encoded.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        each = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    if len(each) and int(each.min()) < 0:
        row = int(np.argmax(each < 0))
        raise ContractError(f"the column {keys.name!r} has no symbol in row {row}", fix="drop rows without a symbol")
    mapped = np.fromiter((codes.get(name, -1) for name in names), np.int32, len(names))
    have = np.diff(panel.offsets) > 0
    mapped[mapped >= len(have)] = -1  # learned after this panel was made
    absent = np.flatnonzero((mapped < 0) | ~have[mapped]) if len(have) else np.arange(len(names))
    if isinstance(keys.dtype, pd.CategoricalDtype) and len(absent):
        absent = absent[np.isin(absent, each)]  # a category that no row uses is not asked for
    if len(absent):
        unknown = sorted(str(names[place]) for place in absent)
        shown = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        raise ContractError(
            f"the catalog does not know {shown}", fix="asof run FILE, to observe them, or drop these rows"
        )
    return mapped.take(each) if len(names) else mapped


def write_frame(frame: pd.DataFrame, path: Path, *, metadata: Mapping[str, str]) -> Path:
    """One Parquet file, written aside and renamed, with `metadata` in its schema."""
    return write_rows(_texts(pa.Table.from_pandas(frame, preserve_index=False)), path, metadata=metadata)


def write_rows(table: Rows, path: Path, *, metadata: Mapping[str, str]) -> Path:
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(_described(table, metadata)), sink)
    make_dirs(path.parent)
    write_atomic(path, sink.getvalue())
    return path


def _texts(table: Rows) -> Rows:
    """A text column without a single value stays a text column: parts of one run have to fit together."""
    kinds = [pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
    return table.cast(pa.schema(kinds)).replace_schema_metadata(table.schema.metadata)


def _described(table: Rows, metadata: Mapping[str, str]) -> dict[bytes, bytes]:
    own = {name.encode(): value.encode() for name, value in metadata.items()}
    return {**(table.schema.metadata or {}), **own}
