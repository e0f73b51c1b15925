"""Facts as rows of a versioned table, and back. A row's `stated` has a bit for each attribute that the fact states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact

_TYPES: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_INSTANT = pa.timestamp("us", tz="UTC")


def arrow_schema(schema: Schema) -> pa.Schema:
    own: list[tuple[str, pa.DataType]] = [
        ("kind", pa.string()),
        ("effective", _INSTANT),
        ("known", _INSTANT),
        ("stated", pa.int64()),
    ]
    columns = [(name, _TYPES[kind]) for name, kind in schema.attributes.items()]
    origin = [(name, pa.string()) for name in ("event_id", "run_id", "source", "sources")]
    return pa.schema([(schema.key, pa.string()), *own, *columns, *origin])


def to_rows(facts: Sequence[Fact], schema: Schema) -> pa.Table:
    names = list(schema.attributes)
    rows = [
        {
            schema.key: fact.key,
            "kind": fact.kind,
            "effective": fact.effective,
            "known": fact.known,
            "stated": sum(1 << bit for bit, name in enumerate(names) if name in fact.fields),
            **fact.fields,
            "event_id": fact.event_id,
            "run_id": fact.run_id,
            "source": fact.source,
            "sources": fact.sources,
        }
        for fact in facts
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(schema))


def from_rows(rows: pa.Table, schema: Schema) -> dict[str, list[Fact]]:
    """Facts by key, in order of commit."""
    book: dict[str, list[Fact]] = {}
    for row in rows.to_pylist():
        fact = Fact(
            row[schema.key],
            row["effective"],
            row["known"],
            row["kind"],
            _stated(row, schema),
            row["event_id"],
            row["run_id"],
            row["source"],
            row["sources"],
        )
        book.setdefault(fact.key, []).append(fact)
    return book


def _stated(row: Mapping[str, object], schema: Schema) -> dict[str, Any]:
    bits = int(str(row["stated"]))
    return {name: row.get(name) for bit, name in enumerate(schema.attributes) if bits >> bit & 1}


def merged(book: Mapping[str, Sequence[Fact]], more: Iterable[Fact]) -> dict[str, list[Fact]]:
    """`book` with more facts, as a new book; what did not change is shared."""
    grown = {key: list(facts) for key, facts in book.items()}
    for fact in more:
        grown.setdefault(fact.key, []).append(fact)
    return grown
