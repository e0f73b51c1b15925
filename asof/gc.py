"""`asof gc`: removes what no version, run, tag or ledger entry names.

On files alone, so that it can be run when the disk is full and no service starts. Nothing that somebody may be using
goes: a table's collection is safe beside its writers (ADR 0021), and what was the newest version within the age limit,
or since a run was opened that is not decided yet, stays whoever pinned it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from asof.named import Named, Runs, known_runs, named_versions
from shared import files
from shared.errors import IntegrityError
from shared.paths import Home
from shared.tables import Snapshot, Table, open_table

# A file that is written aside has its name within seconds.
_ASIDE_FOR = timedelta(hours=1)
OLD = "versions that no run, tag or ledger entry names"
LATE = "files of commits that did not take place"
ASIDE = "temporary files that nobody finished"
MEMORY = "what the fetcher remembers of runs that are decided"


@dataclass
class Group:
    """What goes for one reason in one place."""

    where: str
    why: str
    files: int = 0
    bytes: int = 0
    versions: int = 0
    tables: int = 0


@dataclass
class Collected:
    """`refused` names, by table, why it was left as it is; `open_runs` keep everything that was newest since then."""

    applied: bool
    newest_since: datetime
    open_runs: dict[str, datetime]
    groups: list[Group] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(group.bytes for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        return {
            "applied": self.applied,
            "newest_since": self.newest_since,
            "open_runs": self.open_runs,
            "groups": [vars(group) for group in self.groups],
            "files": sum(group.files for group in self.groups),
            "versions": sum(group.versions for group in self.groups),
            "bytes": self.bytes,
            "refused": self.refused,
        }


def collect_house(home: Home, *, older_than: timedelta, now: datetime, apply: bool) -> Collected:
    """Raises IntegrityError when the ledger or a run's files cannot be read: what they name is then not known.

    A table that is damaged is left alone and reported.
    """
    runs = known_runs(home)
    limit = now - older_than
    collected = Collected(apply, min((limit, *runs.open_since.values())), dict(runs.open_since))
    old, kept = _memories(home, runs, limit)
    named = named_versions(home, kept)
    for place, roots in _tables(home):
        late, gone = Group(place, LATE), Group(place, OLD)
        for root in roots:
            try:
                _collect_table(home, root, named, collected, gone, late)
            except IntegrityError as fault:
                collected.refused[home.relative(root)] = str(fault)
        collected.groups += [group for group in (gone, late) if group.files or group.versions]
    _remove("everywhere", ASIDE, _asides(home, now - max(older_than, _ASIDE_FOR)), collected)
    notes = [path for folder in old for path in sorted(folder.iterdir()) if path.is_file()]
    _remove("state/fetcher/runs", MEMORY, notes, collected)
    if apply:
        for folder in old:
            if not any(folder.iterdir()):
                folder.rmdir()
    return collected


def _tables(home: Home) -> Iterator[tuple[str, list[Path]]]:
    for root in (home.symbols_table, home.exchanges_table, home.lakehouse / "adjustments"):
        yield root.name, [root] if _is_native(root) else []
    for interval in sorted((home.lakehouse / "features").glob("*")):
        for root in sorted(interval.glob("*")):
            yield f"features/{interval.name}/{root.name}", [root] if _is_native(root) else []
    for interval in sorted((home.lakehouse / "bars").glob("*")):
        yield f"bars/{interval.name}", [root for root in sorted(interval.glob("*")) if _is_native(root)]


def _is_native(root: Path) -> bool:
    return (root / "segments").is_dir() or (root / "manifests").is_dir()


def _collect_table(home: Home, root: Path, named: Named, collected: Collected, gone: Group, late: Group) -> None:
    table = open_table(root)
    keep = _kept(home, table, named)
    garbage = table.collect(keep, newest_since=collected.newest_since)
    for path in garbage.files:
        group = late if path in garbage.left_over else gone
        group.files += 1
        group.bytes += _size(path)
    gone.versions += len(garbage.versions)
    for group, touched in ((gone, garbage.versions), (late, garbage.left_over)):
        group.tables += bool(touched)
    if collected.applied and (garbage.files or garbage.versions):
        table.collect(keep, newest_since=collected.newest_since, apply=True)


def _kept(home: Home, table: Table, named: Named) -> set[int]:
    root = table.root
    if root == home.symbols_table:
        return named.catalog
    if root.is_relative_to(home.lakehouse / "bars"):
        return named.bars.get(home.relative(root), set())
    if root.is_relative_to(home.lakehouse / "features"):
        return named.features | {version for version in table.versions() if _says_something(table.load(version))}
    # Nothing names a version of the exchanges: what was known of them, and when, stands in every later one.
    return named.adjustments if root == home.lakehouse / "adjustments" else set()


def _says_something(snapshot: Snapshot) -> bool:
    """Whether a version of the feature store is a promotion, a way back or a repair. The rest are compactions: their
    rows are those of the version before, and so is what they say."""
    said = [snapshot.meta.get("rollback"), snapshot.meta.get("repair")]
    before = [one.get("from", one.get("before")) for one in said if isinstance(one, dict)]
    return snapshot.version - 1 in (snapshot.meta.get("parent"), *before)


def _memories(home: Home, runs: Runs, limit: datetime) -> tuple[list[Path], list[Path]]:
    """The fetcher's notes by run: of those decided before the limit, and the others."""
    folders = sorted(path for path in (home.state / "fetcher" / "runs").glob("*") if path.is_dir())
    old = [
        path
        for path in folders
        if path.name not in runs.open_since and path.name in runs.decided and runs.decided[path.name] < limit
    ]
    return old, [path for path in folders if path not in old]


def _asides(home: Home, before: datetime) -> list[Path]:
    """What was written aside and never got its name. Those in a table's `manifests` are the table's own affair."""
    places = (home.lakehouse, home.runs, home.state, home.quarantine, home.cache)
    found = [home.root.glob(".*.tmp"), *(place.rglob(".*.tmp") for place in places)]
    return [
        path
        for paths in found
        for path in sorted(paths)
        if path.parent.name != "manifests" and path.is_file() and path.stat().st_mtime < before.timestamp()
    ]


def _remove(where: str, why: str, paths: list[Path], collected: Collected) -> None:
    if not paths:
        return
    collected.groups.append(Group(where, why, len(paths), sum(map(_size, paths))))
    if collected.applied:
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            files.sync_dir(folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its writer took it back meanwhile
        return 0
