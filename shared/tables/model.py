"""The nouns of a versioned table: segments, manifests, changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

# What a manifest's meta may hold; nested values are not spelled out, json.dumps refuses what is not JSON.
JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]

KEY_COLUMN = "symbol"


@dataclass(frozen=True, slots=True)
class Segment:
    """One immutable Parquet file, as a manifest names it."""

    file: str  # relative to the table's root, forward slashes
    size: int  # bytes
    sha256: str
    rows: int
    first: int  # the versions whose rows it holds: both equal for a delta, a span after compaction
    last: int
    keys: tuple[str, ...] | None = None  # it holds these keys whole and hides them in every earlier segment
    key_column: str = KEY_COLUMN
    footer: str | None = None  # sha256 of the Parquet footer, for files too large to be hashed at every read


@dataclass(frozen=True, slots=True)
class NewSegment:
    """Rows to append. With `keys`, the segment replaces everything older that is known of these keys.

    A key in `keys` without a row is thereby deleted. Every row's key must be one of `keys`.
    """

    table: pa.Table
    keys: tuple[str, ...] | None = None
    key_column: str = KEY_COLUMN


@dataclass(frozen=True, slots=True)
class Changes:
    """What one commit does: segments that leave (by `Segment.file`), then rows that come, all or nothing."""

    append: tuple[NewSegment, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a table: which segments are live, in order (later rows follow earlier ones)."""

    version: int
    epoch: int
    segments: tuple[Segment, ...]
    meta: Mapping[str, JsonValue] = field(default_factory=dict)
    rewritten: int = 0  # the newest version that took rows away or changed them; a follower older than it starts anew
    checkpoint: str | None = None  # the file that lists the older segments, when this manifest does not do so itself
    written: int = 0  # bytes this version's commit wrote: its segments, manifest and checkpoint


EMPTY = Manifest(version=0, epoch=0, segments=())


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a table's files, and in which version it was met."""

    version: int
    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a table, and what a repair would give up.

    broken     the versions that cannot be read, ascending
    newest     the newest version, broken or not
    restores   the version that a repair goes back to: None when the newest is sound, 0 when none is
    rows_lost  rows that only broken versions have; None when a manifest that says so cannot be read
    runs       the runs that made the broken versions, as far as they can be read
    """

    broken: tuple[int, ...]
    problems: tuple[Violation, ...]
    newest: int
    restores: int | None
    rows_lost: int | None
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repaired:
    """A repair's outcome: the versions in `lost` cannot be read any more, their files lie in the folder `aside`.

    `version` is the newest one now: a new one that equals `restored`, unless the newest was sound all along.
    """

    version: int
    restored: int
    lost: tuple[int, ...]
    aside: Path


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a collection removes, or would remove: files that no kept version names, and the versions that go.

    `left_over` are those of `files` that none of the versions that go names either: a commit that came too late wrote
    them, or one that was killed.
    """

    files: tuple[Path, ...]
    left_over: frozenset[Path]
    bytes: int
    versions: tuple[int, ...]
    removed: bool
