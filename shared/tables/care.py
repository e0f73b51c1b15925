"""Looking after a native table: verifying it, finding what is sound, collecting what nobody needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shared import files
from shared.errors import IntegrityError, NotFoundError
from shared.tables import segment as segments_io
from shared.tables.manifest import segment_version
from shared.tables.model import Garbage, Manifest, Segment, Violation

if TYPE_CHECKING:
    from shared.tables.table import VersionedTable


def verify(table: VersionedTable, version: int | None) -> list[Violation]:
    """Every file that a version needs, hashed whole and compared with what was written."""
    number = table.log.newest(0) if version is None else version
    problems = _problems(table, number, {})
    return [Violation(number, file, problem) for file, problem in problems]


def newest_sound(table: VersionedTable) -> tuple[Manifest, tuple[int, ...]] | None:
    """The newest version whose every file is sound, and the broken ones after it; None when nothing is broken.

    Raises IntegrityError when no version with rows is sound: an empty table is never put in place of a broken one.
    """
    hashed: dict[Segment, str | None] = {}
    lost: list[int] = []
    for version in reversed(table.log.versions()):
        if not _problems(table, version, hashed):
            return (table.load(version).manifest, tuple(lost[::-1])) if lost else None
        lost.append(version)
    if not lost:
        return None
    raise IntegrityError(
        f"{table.root}: no version is sound", cause=f"versions {lost[-1]}–{lost[0]} are broken", fix="restore a backup"
    )


def collect(table: VersionedTable, keep: Collection[int], *, keep_last: int, apply: bool) -> Garbage:
    """See `Table.collect`. Safe beside live writers: the file of a commit still under way is named for a version that
    does not exist yet, and the number of a collected version is never used again.
    """
    newest = table.log.newest(0)
    versions = table.log.versions()
    kept = {newest, *keep, *table.tags().values(), *versions[max(0, len(versions) - keep_last) :]}
    gone = tuple(version for version in versions if version not in kept and version < newest)
    needed: set[str] = set()
    for version in sorted(kept & {newest, *versions} - {0}):
        manifest = table.load(version).manifest
        needed.update(segment.file for segment in manifest.segments)
        needed.update(table.log.own_files(manifest))
    garbage = [path for path in _decided(table, newest) if path.relative_to(table.root).as_posix() not in needed]
    size = sum(_size(path) for path in garbage)
    if apply:
        table.log.forget(gone)
        for path in garbage:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in garbage}:
            files.sync_dir(folder)
    return Garbage(files=tuple(garbage), bytes=size, versions=gone, removed=apply)


def _problems(table: VersionedTable, version: int, hashed: dict[Segment, str | None]) -> list[tuple[str, str]]:
    try:
        manifest = table.load(version).manifest
    except (IntegrityError, NotFoundError) as fault:
        return [(f"manifest of version {version}", str(fault))]
    for segment in manifest.segments:
        if segment not in hashed:
            hashed[segment] = segments_io.verify(table.root, segment)
    found = [(segment.file, hashed[segment]) for segment in manifest.segments]
    return [(file, problem) for file, problem in found if problem is not None]


def _decided(table: VersionedTable, newest: int) -> Iterator[Path]:
    """Files written for a version that exists by now, oldest first; those of a later one may be under way."""
    yield from table.log.old_files(newest)
    if table.segments.is_dir():
        yield from (path for path in sorted(table.segments.iterdir()) if segment_version(path.name) <= newest)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a writer that lost removed its own file meanwhile
        return 0
