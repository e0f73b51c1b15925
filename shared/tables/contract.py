"""The storage contract: what every backend of a versioned table does. `conformance.py` is its test suite."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from shared.clock import system_clock
from shared.tables.model import Changes, Damage, Garbage, JsonValue, Repaired, Violation
from shared.tables.native import ManifestLog
from shared.tables.snapshot import Snapshot
from shared.tables.table import VersionedTable, random_id


class Table(Protocol):
    """Rows in immutable segments, and versions 0, 1, 2, … of which segments are live. Version 0 is empty and exists."""

    @property
    def root(self) -> Path: ...

    def load(self, version: int | None = None) -> Snapshot:
        """A version, pinned; the newest when None. Reads its manifest only.

        Raises NotFoundError for a version that never was or was collected, IntegrityError for a manifest that is
        torn, changed or missing.
        """
        ...

    def commit(
        self,
        base_version: int,
        changes: Changes,
        *,
        epoch: int = 0,
        meta: Mapping[str, JsonValue] | None = None,
    ) -> int:
        """Makes version `base_version + 1`, durably and as a whole, and returns its number.

        Raises CommitConflict when `base_version` is not the newest (reload, recompute, retry), StaleEpochError when
        `epoch` is smaller than the newest manifest's, TransientError when the disk is full (nothing happened) or the
        outcome is unknown (nothing was deleted; applying the same changes again after a reload is safe).
        """
        ...

    def restore(
        self,
        version: int,
        *,
        base_version: int,
        epoch: int = 0,
        meta: Mapping[str, JsonValue] | None = None,
    ) -> int:
        """A new version that equals an older one (a rollback). Its meta is the older one's unless given."""
        ...

    def versions(self) -> list[int]:
        """Every version that can be loaded, ascending, 0 first."""
        ...

    def compact(
        self,
        fold: Callable[[pa.Table], pa.Table] | None = None,
        *,
        small_only: bool = False,
        meta: Mapping[str, JsonValue] | None = None,
    ) -> int | None:
        """Rewrites the live segments as one, in a new version; None when there is nothing to gain.

        fold        may take away or change rows; followers of the table then start anew (`Snapshot.since` is None)
        small_only  merges the newest small segments only: cheap, to be called every few dozen commits

        Commits that arrive meanwhile stay. Raises CommitConflict when one of them dropped what was being merged.
        """
        ...

    def export(
        self, path: Path, version: int | None = None, transform: Callable[[pa.Table], pa.Table] | None = None
    ) -> Path:
        """Writes a version's rows as one plain Parquet file, replaced as a whole; its metadata has `asof.version`."""
        ...

    def tag(self, name: str, version: int) -> None:
        """Names a version, or moves the name. A tagged version is never collected."""
        ...

    def tags(self) -> dict[str, int]: ...

    def verify(self, version: int | None = None) -> list[Violation]:
        """Compares every file of a version with what was written; empty when sound. Repairs nothing."""
        ...

    def damage(self) -> Damage | None:
        """Every file of every version compared with what was written; None when all are sound. Repairs nothing."""
        ...

    def repair(self, note: Mapping[str, JsonValue] | None = None) -> Repaired | None:
        """Buries the broken versions, and when the newest is one, makes a new one equal to the newest sound version.

        Only when asked: it gives up what the broken versions held, and says which they were. Their files are put
        aside, with `note`, which also goes into the new version's meta. None when nothing is broken. Raises
        IntegrityError when no version is sound (an empty table never takes the place of a broken one),
        CommitConflict when somebody commits meanwhile.
        """
        ...

    def collect(
        self,
        keep: Collection[int] = (),
        *,
        keep_last: int = 1,
        newest_since: datetime | None = None,
        apply: bool = False,
    ) -> Garbage:
        """The files that no version in `keep`, none of the `keep_last` newest and no tag needs; removed on `apply`.

        newest_since  versions that were the newest at this instant or after it stay too: whoever pinned the newest
                      one since then keeps what it pinned. Told by the times of the files.

        A reader pinned to a collected version gets NotFoundError at its next read of a file.
        """
        ...


def open_table(root: Path, *, backend: Literal["native", "delta"] = "native") -> Table:
    """The table in `root`; nothing is created before its first commit. `delta` needs the `deltalake` package."""
    if backend == "delta":
        from shared.tables.delta import DeltaLog

        return VersionedTable(root, DeltaLog(root, lambda: int(system_clock().timestamp() * 1000)))
    return VersionedTable(root, ManifestLog(root, random_id))
