"""Facts as rows of a versioned table, and back.

A row's `stated` has a bit for each attribute that the fact states. A fact that only confirms what stands is a row of
kind `seen`, without values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from services.catalog.adapters.arrow import Column, Rows, pa
from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact

SEEN = "seen"
_SOURCES = ("event_id", "run_id", "source", "sources")
ORIGIN = ("kind", "known", "stated", "asked", *_SOURCES)
TYPES: dict[type, Any] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
INSTANT = pa.timestamp("us", tz="UTC")
_RARE = ("asked", *_SOURCES)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def micros(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICRO


def instant_of(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value)


_OWN = {"kind": pa.string(), "effective": INSTANT, "known": INSTANT, "asked": INSTANT, "stated": pa.int64()}


def arrow_schema(schema: Schema) -> Any:
    return pa.schema(list(_types(schema).items()))


def _types(schema: Schema) -> dict[str, Any]:
    columns = {name: TYPES[kind] for name, kind in schema.attributes.items()}
    return {schema.key: pa.string(), **_OWN, **columns, **dict.fromkeys(_SOURCES, pa.string())}


def to_rows(facts: Sequence[Fact], schema: Schema) -> Rows:
    bits = {name: 1 << bit for bit, name in enumerate(schema.attributes)}
    columns: dict[str, list[Any]] = {
        schema.key: [fact.key for fact in facts],
        "kind": [SEEN if fact.confirms else fact.kind for fact in facts],
        "effective": [micros(fact.effective) for fact in facts],
        "known": [micros(fact.known) for fact in facts],
        "asked": [None if fact.asked is None else micros(fact.asked) for fact in facts],
        "stated": [sum(bits[name] for name in _stated_by(fact)) for fact in facts],
        "event_id": [fact.event_id for fact in facts],
        "run_id": [fact.run_id for fact in facts],
        "source": [fact.source for fact in facts],
        "sources": [fact.sources for fact in facts],
    }
    values: list[Mapping[str, Any]] = [
        {} if fact.confirms else {"active": False} if fact.kind == "retire" else fact.fields for fact in facts
    ]
    valued = {name for one in values for name, value in one.items() if value is not None}
    for name in valued:
        columns[name] = [one.get(name) for one in values]
    # A column that a segment lacks reads as null, and most deltas say something of few columns.
    needed = {schema.key, "kind", "effective", "known", "stated", *valued}
    needed |= {name for name in _RARE if any(value is not None for value in columns[name])}
    types = {name: kind for name, kind in _types(schema).items() if name in needed}
    return pa.table([pa.array(columns[name], kind) for name, kind in types.items()], schema=pa.schema([*types.items()]))


def _stated_by(fact: Fact) -> Mapping[str, Any]:
    return {"active": False} if fact.kind == "retire" else fact.fields


class Origin(NamedTuple):
    """All that a stored row says of its fact but the key, the instant and the values; often that of many rows."""

    kind: str
    known: datetime
    names: tuple[str, ...]  # of the attributes that it states
    asked: datetime | None
    event_id: str | None
    run_id: str | None
    source: str | None
    sources: str | None


def origins_of(rows: Rows, schema: Schema) -> list[Origin]:
    """Of rows with the columns `ORIGIN`."""
    attributes = tuple(schema.attributes)
    return [
        Origin(
            kind,
            instant_of(known),
            () if kind == "retire" else stated_names(stated, schema.key, attributes),
            None if asked is None else instant_of(asked),
            *sources,
        )
        for kind, known, stated, asked, *sources in zip(*(plain(rows[name]) for name in ORIGIN), strict=True)
    ]


def to_facts(
    keys: Sequence[str], effective: Sequence[int], origins: Sequence[Origin], values: Mapping[str, Sequence[Any]]
) -> list[Fact]:
    """The facts in rows that were stored; one that only confirms has the names of its fields and no values yet."""
    return [
        Fact(
            key,
            instant_of(effective[place]),
            origin.known,
            _kind(origin.kind),
            {name: values[name][place] if name in values else None for name in origin.names},
            origin.event_id,
            origin.run_id,
            origin.source,
            origin.sources,
            origin.asked,
            origin.kind == SEEN,
        )
        for place, (key, origin) in enumerate(zip(keys, origins, strict=True))
    ]


def _kind(stored: str) -> Literal["record", "retire", "snapshot"]:
    return "retire" if stored == "retire" else "snapshot" if stored == "snapshot" else "record"


@lru_cache(maxsize=4096)
def stated_names(bits: int, key: str, attributes: tuple[str, ...]) -> tuple[str, ...]:
    """The attributes whose bit is set. `key` keeps catalogs apart in the cache."""
    return tuple(name for bit, name in enumerate(attributes) if bits >> bit & 1)


def plain(column: Column) -> list[Any]:
    """A column as Python values, instants as microseconds; much faster than through Arrow's own datetimes."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_timestamp(kind):
        column = column.cast(INSTANT).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
