"""A damaged table's way back: the newest version that is sound takes the place of those that are not.

What is given up is put aside first, in `damaged/` below the table's root: the manifests of the broken versions and all
their files that no sound version names, the damaged ones among them, with `repair.json` that says what they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shared import files
from shared.errors import IntegrityError
from shared.tables import segment as segments_io
from shared.tables.model import Damage, JsonValue, Manifest, Repaired, Segment, Violation

if TYPE_CHECKING:
    from shared.tables.table import VersionedTable


def find(table: VersionedTable) -> Damage | None:
    """Every file of every version compared with what was written."""
    hashed: dict[Segment, str | None] = {}
    sound: list[Manifest] = []
    broken: dict[int, Manifest | None] = {}
    problems: list[Violation] = []
    for version in sorted({*table.log.versions(), *table.log.missing()}):
        manifest, found = _look(table, version, hashed)
        if manifest is not None and not found:
            sound.append(manifest)
        elif found:
            broken[version] = manifest
            problems += found
    if not broken:
        return None
    newest = max([*broken, *(one.version for one in sound)])
    restores = None if newest not in broken else sound[-1].version if sound else 0
    return Damage(tuple(broken), tuple(problems), newest, restores, _rows_lost(broken, sound), _runs(broken))


def repair(table: VersionedTable, note: Mapping[str, JsonValue]) -> Repaired | None:
    """See `Table.repair`. Cut off at any step, it is done again from the start."""
    damage = find(table)
    if damage is None:
        return None
    if damage.restores == 0:
        raise IntegrityError(
            f"{table.root}: no version is sound",
            cause=f"versions {damage.broken[0]}–{damage.broken[-1]} are broken",
            fix="restore a backup",
        )
    aside = _put_aside(table, damage, note)
    version = damage.newest
    if damage.restores is not None:
        sound = table.load(damage.restores).manifest
        told: dict[str, JsonValue] = {"before": damage.newest, "restored": sound.version, "lost": [*damage.broken]}
        meta = {**sound.meta, "repair": {**told, **note}}
        version = table.restore_broken(sound, after=damage.newest, meta=meta)
    table.log.forget(damage.broken)
    return Repaired(version, damage.restores or damage.newest, damage.broken, aside)


def _look(
    table: VersionedTable, version: int, hashed: dict[Segment, str | None]
) -> tuple[Manifest | None, list[Violation]]:
    """The version's manifest as far as it can be read, and what is wrong with its files."""
    try:
        manifest = table.log.read(version)
    except IntegrityError as fault:
        return None, [Violation(version, f"manifest of version {version}", str(fault))]
    if manifest is None:  # collected a moment ago
        return None, []
    for segment in manifest.segments:
        if segment not in hashed:
            hashed[segment] = segments_io.verify(table.root, segment)
    wrong = [(segment.file, hashed[segment]) for segment in manifest.segments]
    return manifest, [Violation(version, file, problem) for file, problem in wrong if problem is not None]


def _rows_lost(broken: Mapping[int, Manifest | None], sound: list[Manifest]) -> int | None:
    """Rows in segments that no sound version has; None when a manifest that cannot be read may name more."""
    if None in broken.values():
        return None
    kept = {segment.file for manifest in sound for segment in manifest.segments}
    gone = {segment.file: segment.rows for one in broken.values() if one is not None for segment in one.segments}
    return sum(rows for file, rows in gone.items() if file not in kept)


def _runs(broken: Mapping[int, Manifest | None]) -> tuple[str, ...]:
    runs: dict[str, None] = {}
    for manifest in broken.values():
        if manifest is not None:
            several = manifest.meta.get("runs")
            named = several if isinstance(several, list) else [manifest.meta.get("run_id")]
            runs.update((run_id, None) for run_id in named if isinstance(run_id, str))
    return tuple(runs)


def _put_aside(table: VersionedTable, damage: Damage, note: Mapping[str, JsonValue]) -> Path:
    needed: set[str] = set()
    given_up: set[str] = set()
    for version in sorted({*table.log.versions(), *damage.broken}):
        try:
            manifest = table.log.read(version)
        except IntegrityError:
            manifest = None
        named = [] if manifest is None else [segment.file for segment in manifest.segments]
        (given_up if version in damage.broken else needed).update(named)
        if version in damage.broken:
            given_up.update(table.log.version_files(version))
    number = 1
    while (folder := table.root / "damaged" / f"{damage.newest}-{number}").exists():
        number += 1
    for file in sorted(given_up - needed):
        if (table.root / file).is_file():
            files.make_dirs((folder / file).parent)
            _keep(table.root / file, folder / file)
    files.make_dirs(folder)
    told = {
        "table": table.root.name,
        "given_up": list(damage.broken),
        "restored": damage.restores,
        "rows_lost": damage.rows_lost,
        "runs": list(damage.runs),
        "problems": [f"version {one.version}: {one.file}: {one.problem}" for one in damage.problems],
        **note,
    }
    files.write_atomic(folder / "repair.json", json.dumps(told, indent=1, ensure_ascii=False).encode())
    for kept in {path.parent for path in folder.rglob("*") if path.is_file()}:
        files.sync_dir(kept)
    return folder


def _keep(path: Path, target: Path) -> None:
    """Another name for the same bytes; a copy where the file system has no such names."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
        files.sync_file(target)
