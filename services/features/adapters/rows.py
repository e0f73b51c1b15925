"""Feature rows as Arrow: the one shape of staged files, of the feature tables and of `features.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.features.domain.bars_batch import VALUES
from services.features.domain.ratings.rules import rules_named
from services.features.domain.runs import SCREENER, RunRecord
from services.features.domain.sessions import to_stamp
from services.features.domain.validation_features import FEATURES
from shared.errors import IntegrityError
from shared.events import Rules

if TYPE_CHECKING:  # a reader of rows needs no compiler
    from services.features.domain.rating import RatedBatch

LOCAL = "local"
ADJUSTMENTS = b"asof.adjustments"
STAMP = pa.timestamp("us", "UTC")
_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("symbol", _WORD),
        ("ts", STAMP),
        *((name, pa.float64()) for name in FEATURES),
        ("available_at", STAMP),
        ("source", _WORD),
        ("rules", _WORD),
        ("rules_version", _WORD),
    ]
)
# How rows are written: a dictionary pays for columns of few values, and only costs for those that never repeat.
PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "write_page_checksum": True,
    "use_dictionary": [name for name in SCHEMA.names if name not in {"rsi", "adx"}],
}


def staged_rows(record: RunRecord, rated: RatedBatch, continued: RatedBatch | None = None) -> pa.Table:
    """The rows of every symbol that may be stored, by symbol and stamp; behind each symbol's its current row."""
    if continued is not None and continued.staged:
        return by_symbol([staged_rows(record, rated), staged_rows(record, continued)])
    batch = rated.report.batch
    kept = np.flatnonzero(batch.of_symbols(set(rated.staged)))
    order = np.array(batch.symbols, dtype=object)
    local = pa.table(
        [
            _words(batch.codes[kept], list(order)),
            pa.array(batch.stamps[kept], STAMP),
            *(_floats(rated.values[name][kept]) for name in FEATURES),
            pa.array(rated.known_at[kept], STAMP),
            _same(LOCAL, len(kept)),
            _same(record.rules.name, len(kept)),
            _same(record.rules.version, len(kept)),
        ],
        schema=SCHEMA,
    )
    if record.rules.name != SCREENER:
        return local
    return by_symbol([local, current_rows(record, rated.staged)])


def current_rows(record: RunRecord, symbols: Iterable[str]) -> pa.Table:
    """The screener's own values of these symbols, at the instants when they were seen."""
    rows = [(symbol, record.current[symbol]) for symbol in symbols if symbol in record.current]
    seen = pa.array([to_stamp(row.observed_at) for _, row in rows], STAMP)
    return pa.table(
        [
            pa.array([symbol for symbol, _ in rows], pa.string()).dictionary_encode().cast(_WORD),
            seen,
            *(pa.array([row.values[name] for _, row in rows], pa.float64()) for name in FEATURES),
            seen,
            _same(SCREENER, len(rows)),
            _same(SCREENER, len(rows)),
            _same(rules_named(SCREENER).version, len(rows)),
        ],
        schema=SCHEMA,
    )


def by_symbol(tables: Iterable[pa.Table]) -> pa.Table:
    """All rows in order of symbol, then stamp: row groups then hold few symbols, and readers skip the others."""
    whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    keys = whole.append_column("name", whole["symbol"].cast(pa.string())).select(["name", "ts", "source"])
    keys = keys.set_column(2, "source", keys["source"].cast(pa.string()))
    indices = pc.sort_indices(keys, sort_keys=[("name", "ascending"), ("ts", "ascending"), ("source", "ascending")])
    return whole.take(indices)


def refused_rows(rated: RatedBatch, symbol: str) -> pa.Table:
    """All bars of a refused symbol with what was computed of them; the reason stands beside the rows that show it."""
    batch, finding = rated.report.batch, rated.refused[symbol].finding
    rows = np.flatnonzero(batch.of_symbols({symbol}))
    reasons = np.full(len(batch), None, dtype=object)
    reasons[finding.rows] = f"{finding.code}: {finding.message}"
    return pa.table(
        {
            "symbol": _same(symbol, len(rows)),
            "ts": pa.array(batch.stamps[rows], STAMP),
            **{name: _floats(batch.values[rows, column]) for column, name in enumerate(VALUES)},
            **{name: _floats(rated.values[name][rows]) for name in FEATURES},
            "reason": pa.array(reasons[rows], pa.string()),
        }
    )


def set_aside_rows(rated: RatedBatch) -> pa.Table:
    """Bars that no rating was computed of, of symbols that went on."""
    batch, set_aside = rated.report.batch, rated.report.set_aside
    rows = np.flatnonzero(set_aside != "")
    return pa.table(
        {
            "symbol": _words(batch.codes[rows], list(batch.symbols)),
            "ts": pa.array(batch.stamps[rows], STAMP),
            **{name: _floats(batch.values[rows, column]) for column, name in enumerate(VALUES)},
            "reason": pa.array(set_aside[rows], pa.string()),
        }
    )


def to_parquet(table: pa.Table, metadata: dict[str, str]) -> memoryview:
    """Deterministic bytes: the same rows and metadata give the same file."""
    sink = pa.BufferOutputStream()
    known = {**PARQUET, "use_dictionary": [name for name in PARQUET["use_dictionary"] if name in table.column_names]}
    pq.write_table(table.replace_schema_metadata(metadata), sink, **known)
    return memoryview(sink.getvalue())


def from_parquet(data: bytes | memoryview, name: str) -> pa.Table:
    """Rows of SCHEMA. Raises IntegrityError for a file of another shape."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError, KeyError) as fault:
        raise IntegrityError(f"{name} holds no feature rows", cause=str(fault), fix="asof retry RUN") from fault


def describe_rules(rules: Rules) -> dict[str, str]:
    return {"asof.rules": rules.name, "asof.rules_version": rules.version}


def describe_adjustments(rated: RatedBatch) -> str:
    """JSON: by staged symbol, the recorded adjustments that its rows were computed with; empty text for none."""
    staged = set(rated.staged)
    used = {
        symbol: [
            {"date": f"{one.date:%Y-%m-%d}", "factor": one.factor, "reason": one.reason, "recorded_by": one.recorded_by}
            for one in ones
        ]
        for symbol, ones in sorted(rated.report.adjusted.applied.items())
        if symbol in staged
    }
    return json.dumps(used, ensure_ascii=False) if used else ""


def adjustments_in(data: memoryview | bytes) -> dict[str, Any]:
    """What `describe_adjustments` said of a staged file, by symbol."""
    stated = (pq.read_schema(pa.BufferReader(data)).metadata or {}).get(ADJUSTMENTS)
    return dict(json.loads(stated)) if stated else {}


def _words(codes: np.ndarray, words: list[str]) -> pa.Array[Any]:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), pa.int32()), pa.array(words, pa.string()))


def _same(word: str, count: int) -> pa.Array[Any]:
    return _words(np.zeros(count, dtype=np.int32), [word])


def _floats(values: np.ndarray) -> pa.Array[Any]:
    return pa.array(values, pa.float64(), mask=np.isnan(values))
