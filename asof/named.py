"""Which versions of the house's tables are named: by a run's files, by the ledger, by what was promoted.

Read from the files as they stand, by the names of their fields and not by their schemas: a field more keeps a version
too many, which costs space; a field less would take a run's inputs away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.auditor.adapters.ledger_file import FIX, LedgerFile
from shared.clock import parse_instant
from shared.errors import IntegrityError
from shared.paths import Home

_DOCUMENTS = ("manifest.json", "feature_ingest_coverage.json", "staged/*.json")
_LINES = ("outcomes.jsonl", "audit.jsonl")
_FEATURES = ("feature_version", "features", "parent", "from", "to", "continues")
_CATALOG = ("catalog_version", "catalog")
_ADJUSTMENTS = ("adjustments_version",)


@dataclass
class Named:
    """Versions by number; those of bars by the table's folder, relative to the home.

    Numbers of feature versions are not told apart by table: a number that is named keeps that version of each.
    """

    features: set[int] = field(default_factory=set)
    catalog: set[int] = field(default_factory=set)
    adjustments: set[int] = field(default_factory=set)
    bars: dict[str, set[int]] = field(default_factory=dict)

    def note(self, found: dict[str, Any]) -> dict[str, Any]:
        """Take in one JSON object; the objects inside it came before."""
        numbers = ((_FEATURES, self.features), (_CATALOG, self.catalog), (_ADJUSTMENTS, self.adjustments))
        for names, versions in numbers:
            versions.update(found[name] for name in names if isinstance(found.get(name), int))
        if isinstance(found.get("table_version"), int) and isinstance(found.get("path"), str):
            self.bars.setdefault(found["path"], set()).add(found["table_version"])
        return found


@dataclass(frozen=True)
class Runs:
    """`open_since`: the runs that are not decided, each with when it was opened (again)."""

    decided: Mapping[str, datetime]
    open_since: Mapping[str, datetime]


def named_versions(home: Home, memories: Iterable[Path]) -> Named:
    """`memories`: the fetcher's notes of runs that it may still be asked about.

    Raises IntegrityError for a file of a run that cannot be read: what it names is then not known."""
    named = Named()
    _read_lines(home.ledger, named)
    for folder in sorted(path for path in home.runs.glob("*") if path.is_dir()):
        for pattern in _DOCUMENTS:
            for path in sorted(folder.glob(pattern)):
                _take_pins(home, _read(path.read_bytes(), path, named), named)
        for name in _LINES:
            _read_lines(folder / name, named)
    for folder in memories:
        for path in sorted(folder.glob("*.jsonl")):
            _read_lines(path, named, torn=True)
    return named


def known_runs(home: Home) -> Runs:
    """Raises IntegrityError when the ledger is broken: nobody can say then what it names."""
    ledger = LedgerFile(home)
    if (broken := ledger.broken()) is not None:
        raise IntegrityError("the ledger is broken, so what it names is not known", cause=broken, fix=FIX)
    decided: dict[str, datetime] = {}
    for entry in ledger.of_kind("decided"):
        if entry.run_id is not None:
            decided[entry.run_id] = parse_instant(entry.time)
    since: dict[str, datetime] = {}
    for run_id in ledger.open_runs():
        opened = [entry.time for kind in ("opened", "reopened") for entry in ledger.of_run(run_id, kind)]
        since[run_id] = parse_instant(max(opened))
    for folder in home.runs.glob("*"):
        # The auditor has not heard of it yet; another service made its folder.
        if folder.is_dir() and folder.name not in decided and folder.name not in since:
            times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
            since[folder.name] = datetime.fromtimestamp(min(times), UTC)
    return Runs(decided, dict(sorted(since.items())))


def _take_pins(home: Home, document: Any, named: Named) -> None:
    """`staged/run.json` of a run that read stored bars: a version by symbol."""
    pins = document.get("pins") if isinstance(document, dict) else None
    if isinstance(pins, dict) and pins:
        for symbol, version in pins.items():
            path = home.relative(home.bars_table(str(document["interval"]), symbol))
            named.bars.setdefault(path, set()).add(version)


def _read_lines(path: Path, named: Named, *, torn: bool = False) -> None:
    """What follows the last line end is being written. `torn`: a line that a kill cut off counts as not written."""
    if not path.is_file():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        if line.strip():
            try:
                _read(line, path, named)
            except IntegrityError:
                if not torn:
                    raise


def _read(data: bytes, path: Path, named: Named) -> Any:
    try:
        return json.loads(data, object_hook=named.note)
    except ValueError as fault:
        raise IntegrityError(
            f"{path} cannot be read, so what it names is not known",
            cause=str(fault),
            fix="restore it from a backup, or move the run's folder away to let go of what it names",
        ) from fault
