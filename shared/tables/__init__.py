"""Versioned tables on plain Parquet: segments, numbered manifests, commit by create-if-absent (docs/tables.md)."""

from shared.tables.contract import Table, open_table
from shared.tables.model import (
    Changes,
    Damage,
    Garbage,
    JsonValue,
    Manifest,
    NewSegment,
    Repaired,
    Segment,
    Violation,
)
from shared.tables.snapshot import Snapshot

__all__ = [
    "Changes",
    "Damage",
    "Garbage",
    "JsonValue",
    "Manifest",
    "NewSegment",
    "Repaired",
    "Segment",
    "Snapshot",
    "Table",
    "Violation",
    "open_table",
]
