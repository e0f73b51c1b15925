"""The versioned table: everything that does not depend on how versions are numbered and claimed (the log)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from shared import files
from shared.errors import CommitConflict, NotFoundError
from shared.tables import care, exporting, tagging
from shared.tables import repair as repairing
from shared.tables import segment as segments_io
from shared.tables.attempt import Attempt, attempt
from shared.tables.changes import check_base, compacted, next_manifest, small_tail
from shared.tables.model import (
    EMPTY,
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


class Log(Protocol):
    """Numbered versions, claimed by create-if-absent. The native one keeps manifests, the other a Delta log."""

    def newest(self, known: int) -> int:
        """The newest version's number, found from one that was seen (0: none was)."""
        ...

    def versions(self) -> list[int]:
        """Every version that can be read, ascending, without 0."""
        ...

    def read(self, version: int) -> Manifest | None:
        """A version's manifest, None when there is none of that number. Raises IntegrityError when it is torn."""
        ...

    def publish(self, manifest: Manifest, base: Manifest, this: Attempt) -> Manifest:
        """Claims the number `manifest.version`, durably: this is the commit. Its segments are durable already.

        Returns what `read` gives of it. Raises CommitConflict when the number is taken.
        """
        ...

    def was_collected(self, version: int) -> bool: ...

    def missing(self) -> list[int]:
        """The numbers up to the newest of which there is no trace, though each was given out once."""
        ...

    def version_files(self, version: int) -> Iterable[str]:
        """The log's own files, relative to the root, of which this version alone consists; they may be missing."""
        ...

    def written_at(self, version: int) -> float:
        """When the version was made, in seconds since 1970 by the file system's clock."""
        ...

    def own_files(self, manifest: Manifest) -> Iterable[str]:
        """The log's own files (relative to the root) that this version needs."""
        ...

    def old_files(self, newest: int) -> Iterable[Path]:
        """The log's own files that may be removed when no kept version needs them, oldest first."""
        ...

    def forget(self, versions: Sequence[int]) -> None:
        """Buries these versions, durably: they cannot be read any more, and their numbers are never used again."""
        ...


def random_id() -> str:
    return os.urandom(5).hex()


class VersionedTable:
    """See `shared.tables.Table` for what each method promises. `new_id` gives names that no other writer uses."""

    def __init__(self, root: Path, log: Log, *, new_id: Callable[[], str] = random_id) -> None:
        self.root = root
        self.log = log
        self.segments = root / "segments"
        self._new_id = new_id
        self._seen = Snapshot(root, EMPTY)  # the newest snapshot loaded so far
        self._known = 0  # the newest version known to exist

    # -- reading

    def load(self, version: int | None = None) -> Snapshot:
        if version is not None:
            return self._seen if version == self._seen.version else self._read(version)
        seen = self._seen  # other threads may use this object: they only ever replace it
        newest = self.log.newest(self._known)
        while newest != seen.version:
            try:
                seen = self._read(newest)
            except NotFoundError:  # collected between the two calls, so a newer one exists
                newest = self.log.newest(newest)
        self._known, self._seen = newest, seen
        return seen

    def versions(self) -> list[int]:
        return [0, *self.log.versions()]

    def export(
        self,
        path: Path,
        version: int | None = None,
        transform: Callable[[pa.Table], pa.Table] | None = None,
    ) -> Path:
        return exporting.export(self.load(version), path, transform)

    def tag(self, name: str, version: int) -> None:
        self.load(version)
        tagging.write(self.root, name, version)

    def tags(self) -> dict[str, int]:
        return tagging.read(self.root)

    # -- writing

    def commit(
        self,
        base_version: int,
        changes: Changes,
        *,
        epoch: int = 0,
        meta: Mapping[str, JsonValue] | None = None,
    ) -> int:
        base = self.load().manifest
        check_base(self.root, base, base_version, epoch)
        with attempt(self.root) as this:
            added = [self._write_segment(base_version + 1, new, this) for new in changes.append]
            manifest = next_manifest(base, changes, added, epoch=epoch, meta=meta or {})
            self._publish(manifest, base, this)
        return manifest.version

    def restore(
        self,
        version: int,
        *,
        base_version: int,
        epoch: int = 0,
        meta: Mapping[str, JsonValue] | None = None,
    ) -> int:
        base = self.load().manifest
        check_base(self.root, base, base_version, epoch)
        old = self.load(version).manifest
        return self._restore(old, base, base.version + 1, epoch, old.meta if meta is None else meta)

    def compact(
        self,
        fold: Callable[[pa.Table], pa.Table] | None = None,
        *,
        small_only: bool = False,
        meta: Mapping[str, JsonValue] | None = None,
    ) -> int | None:
        base = self.load()
        replaced = small_tail(base.segments) if small_only else base.segments
        if len(replaced) < (1 if fold else 2):
            return None
        keyed = [segment.keys is not None for segment in replaced]
        if any(keyed) and not all(keyed) and replaced != base.segments:
            return None  # merged, they would no longer hide the older rows of their keys
        rows = base.read(segments=replaced)
        new = _merged(fold(rows) if fold else rows, replaced)
        with attempt(self.root) as this:
            written = self._write_segment(base.version + 1, new, this)
            merged = replace(written, first=replaced[0].first, last=max(segment.last for segment in replaced))
            while True:
                manifest = compacted(base.manifest, replaced, merged, folded=fold is not None, meta=meta)
                try:
                    self._publish(manifest, base.manifest, this)
                except CommitConflict:
                    base = self.load()
                    if not _still_adjacent(base.segments, replaced):
                        raise
                    merged = self._rename_segment(merged, base.version + 1, this)
                else:
                    return manifest.version

    # -- care

    def verify(self, version: int | None = None) -> list[Violation]:
        return care.verify(self, version)

    def damage(self) -> Damage | None:
        return repairing.find(self)

    def repair(self, note: Mapping[str, JsonValue] | None = None) -> Repaired | None:
        return repairing.repair(self, note or {})

    def restore_broken(self, sound: Manifest, *, after: int, meta: Mapping[str, JsonValue]) -> int:
        """A version after `after`, which cannot be read, that equals `sound`."""
        return self._restore(sound, sound, after + 1, sound.epoch, meta)

    def collect(
        self,
        keep: Collection[int] = (),
        *,
        keep_last: int = 1,
        newest_since: datetime | None = None,
        apply: bool = False,
    ) -> Garbage:
        return care.collect(self, keep, keep_last=keep_last, newest_since=newest_since, apply=apply)

    # -- inside

    def _read(self, version: int) -> Snapshot:
        if version == 0:
            return Snapshot(self.root, EMPTY)
        manifest = None if version < 0 else self.log.read(version)
        if manifest is None:
            collected = self.log.was_collected(version)
            raise NotFoundError(
                f"{self.root.name}: version {version} was collected, or given up in a repair"
                if collected
                else f"{self.root.name} has no version {version}",
                fix="load the newest; tag a version that must stay" if collected else "load the newest",
            )
        return Snapshot(self.root, manifest, self.log.was_collected)

    def _write_segment(self, version: int, new: NewSegment, this: Attempt) -> Segment:
        """A durable file that no version names yet; its own name says for which version it was written."""
        data, footer = segments_io.encode(new)
        path = self._segment_path(version)
        files.make_dirs(self.segments)
        this.wrote.append(path)
        files.write_new(path, data)
        return Segment(
            file=f"segments/{path.name}",
            size=len(data),
            sha256=files.sha256_bytes(data),
            rows=new.table.num_rows,
            first=version,
            last=version,
            keys=new.keys,
            key_column=new.key_column,
            footer=footer,
        )

    def _rename_segment(self, segment: Segment, version: int, this: Attempt) -> Segment:
        """The same file under the name of a later version, because it missed the one it was written for."""
        path = self._segment_path(version)
        this.wrote.append(path)
        os.link(self.root / segment.file, path)
        return replace(segment, file=f"segments/{path.name}")

    def _segment_path(self, version: int) -> Path:
        return self.segments / f"{version:012d}-{self._new_id()}.parquet"

    def _restore(self, old: Manifest, base: Manifest, version: int, epoch: int, meta: Mapping[str, JsonValue]) -> int:
        manifest = Manifest(version, epoch, old.segments, dict(meta), rewritten=version)
        with attempt(self.root) as this:
            self._publish(manifest, base, this)
        return version

    def _publish(self, manifest: Manifest, base: Manifest, this: Attempt) -> None:
        if this.wrote:
            files.sync_dir(self.segments)
        stored = self.log.publish(manifest, base, this)
        self._known, self._seen = stored.version, Snapshot(self.root, stored, self.log.was_collected)
        this.done()


def _merged(rows: pa.Table, replaced: Sequence[Segment]) -> NewSegment:
    """One segment of these rows; it declares the keys of all it replaces when every one of them is keyed alike."""
    columns = {segment.key_column for segment in replaced}
    if len(columns) != 1 or any(segment.keys is None for segment in replaced):
        return NewSegment(rows)
    keys = tuple(dict.fromkeys(key for segment in replaced for key in segment.keys or ()))
    return NewSegment(rows, keys, columns.pop())


def _still_adjacent(segments: Sequence[Segment], replaced: Sequence[Segment]) -> bool:
    if replaced[0] not in segments:
        return False
    start = segments.index(replaced[0])
    return tuple(segments[start : start + len(replaced)]) == tuple(replaced)
