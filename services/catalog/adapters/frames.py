"""Versions as people read them: records, DataFrames, joins and plain Parquet files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Version
from shared.errors import ContractError
from shared.files import make_dirs, write_atomic

_DTYPES = {str: "object", int: "Int64", float: "float64", bool: "boolean"}
_INSTANT = "datetime64[us, UTC]"


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


def history_frame(versions: Sequence[Version], schema: Schema) -> pd.DataFrame:
    """One row a version: key, attributes, valid_from, valid_until, updated_at and the bookkeeping columns."""
    instants = ("valid_from", "valid_until", "updated_at", "last_confirmed")
    kinds = {schema.key: "object", **{name: _DTYPES[kind] for name, kind in schema.attributes.items()}}
    kinds |= dict.fromkeys(instants, _INSTANT) | dict.fromkeys(("run_id", "source", "sources"), "object")
    records = [record_of(version, schema) for version in versions]
    return pd.DataFrame(
        {name: pd.Series([record[name] for record in records], dtype=kind) for name, kind in kinds.items()}
    )


def at_frame(versions: Sequence[Version], instant: datetime, schema: Schema) -> pd.DataFrame:
    """One row a key that had a version at that instant."""
    return history_frame([version for version in versions if version.holds_at(instant)], schema)


def join_frame(frame: pd.DataFrame, on: tuple[str, str], versions: Sequence[Version], schema: Schema) -> pd.DataFrame:
    """Each row of `frame` with the version of its symbol at its own instant; nulls before a symbol's first version.

    Raises ContractError for a missing column, a naive timestamp, and a symbol that the catalog has never known.
    """
    key, stamp = on
    for name in on:
        if name not in frame.columns:
            raise ContractError(
                f"the frame has no column {name!r}", fix=f"pass on=(symbol column, time column), not {on}"
            )
    stamps = frame[stamp]
    if not isinstance(stamps.dtype, pd.DatetimeTZDtype):
        raise ContractError(f"the column {stamp!r} has no time zone", fix=f"frame[{stamp!r}].dt.tz_localize('UTC')")
    history = history_frame(versions, schema)
    unknown = sorted(set(frame[key].unique()) - set(history[schema.key]))
    if unknown:
        shown = ", ".join(map(str, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        raise ContractError(
            f"the catalog does not know {shown}", fix="asof run FILE, to observe them, or drop these rows"
        )
    asked = pd.DataFrame({key: frame[key].to_numpy(), "_at": stamps.dt.tz_convert("UTC").dt.as_unit("us").to_numpy()})
    asked["_at"] = asked["_at"].dt.tz_localize("UTC") if asked["_at"].dt.tz is None else asked["_at"]
    asked["_row"] = range(len(asked))
    found = pd.merge_asof(
        asked.sort_values("_at", kind="stable"),
        history.rename(columns={schema.key: key}).sort_values("valid_from", kind="stable"),
        left_on="_at",
        right_on="valid_from",
        by=key,
    ).sort_values("_row")
    found.index = frame.index
    added = found.drop(columns=[key, "_at", "_row"])
    clash = [name for name in added.columns if name in frame.columns]
    return pd.concat([frame, added.rename(columns={name: f"{name}_catalog" for name in clash})], axis=1)


def write_frame(frame: pd.DataFrame, path: Path, *, metadata: Mapping[str, str]) -> Path:
    """One Parquet file, written aside and renamed, with `metadata` in its schema."""
    table = _texts(pa.Table.from_pandas(frame, preserve_index=False))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(_described(table, metadata)), sink)
    make_dirs(path.parent)
    write_atomic(path, sink.getvalue())
    return path


def _texts(table: pa.Table) -> pa.Table:
    """A text column without a single value stays a text column: parts of one run have to fit together."""
    kinds = [pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
    return table.cast(pa.schema(kinds)).replace_schema_metadata(table.schema.metadata)


def _described(table: pa.Table, metadata: Mapping[str, str]) -> dict[bytes, bytes]:
    own = {name.encode(): value.encode() for name, value in metadata.items()}
    return {**(table.schema.metadata or {}), **own}
