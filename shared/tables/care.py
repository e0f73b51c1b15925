"""Looking after a table: verifying it, collecting what nobody needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from shared import files
from shared.errors import IntegrityError, NotFoundError
from shared.tables import segment as segments_io
from shared.tables.manifest import segment_version
from shared.tables.model import Garbage, Segment, Violation

if TYPE_CHECKING:
    from shared.tables.table import VersionedTable


def verify(table: VersionedTable, version: int | None) -> list[Violation]:
    """Every file that a version needs, hashed whole and compared with what was written."""
    number = table.log.newest(0) if version is None else version
    problems = _problems(table, number, {})
    return [Violation(number, file, problem) for file, problem in problems]


def collect(
    table: VersionedTable, keep: Collection[int], *, keep_last: int, newest_since: datetime | None, apply: bool
) -> Garbage:
    """See `Table.collect`. Safe beside live writers: the file of a commit still under way is named for a version that
    does not exist yet, and the number of a collected version is never used again.
    """
    newest = table.log.newest(0)
    versions = table.log.versions()
    kept = {newest, *keep, *table.tags().values(), *versions[max(0, len(versions) - keep_last) :]}
    if newest_since is not None:
        # A version was the newest until the one after it was made.
        since = newest_since.timestamp()
        kept.update(one for one, after in pairwise(versions) if table.log.written_at(after) >= since)
    gone = tuple(version for version in versions if version not in kept and version < newest)
    needed = _named(table, sorted(kept & {newest, *versions} - {0}))
    garbage = [path for path in _decided(table, newest) if path.relative_to(table.root).as_posix() not in needed]
    known = _named(table, gone)
    left_over = frozenset(path for path in garbage if path.relative_to(table.root).as_posix() not in known)
    size = sum(_size(path) for path in garbage)
    if apply:
        table.log.forget(gone)
        for path in garbage:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in garbage}:
            files.sync_dir(folder)
    return Garbage(files=tuple(garbage), left_over=left_over, bytes=size, versions=gone, removed=apply)


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


def _named(table: VersionedTable, versions: Iterable[int]) -> set[str]:
    """The files, relative to the table's root, that these versions name."""
    named: set[str] = set()
    for version in versions:
        manifest = table.load(version).manifest
        named.update(segment.file for segment in manifest.segments)
        named.update(table.log.own_files(manifest))
    return named


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
