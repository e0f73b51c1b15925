"""`asof audit … --repair`: what is damaged among the house's tables, and the way back, only when asked for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.clock import format_instant
from shared.errors import ContractError, IntegrityError
from shared.files import make_dirs, write_atomic
from shared.paths import Home
from shared.tables import Damage, open_table

REPAIRABLE = ("pit", "features", "bars", "tables")


def tables_of(what: str, home: Home) -> Iterator[Path]:
    """The folders of the tables that an audit is about: `pit` the catalogs, `features`, `bars`, or all `tables`."""
    lakehouse = home.lakehouse
    groups: Mapping[str, list[Path]] = {
        "pit": [home.symbols_table, home.exchanges_table],
        "features": [lakehouse / "adjustments", *sorted((lakehouse / "features").glob("*/*"))],
        "bars": sorted((lakehouse / "bars").glob("*/*")),
    }
    for name, roots in groups.items():
        if what in (name, "tables"):
            yield from (root for root in roots if (root / "manifests").is_dir())


def damaged_tables(what: str, home: Home) -> dict[Path, Damage]:
    """Every file of every version of these tables is read."""
    found = ((root, open_table(root).damage()) for root in tables_of(what, home))
    return {root: damage for root, damage in found if damage is not None}


def told(what: str, home: Home, root: Path, damage: Damage) -> dict[str, Any]:
    """What a repair of this table would do."""
    return {
        "table": home.relative(root),
        "gives_up": list(damage.broken),
        "goes_back_to": damage.restores,
        "rows_lost": damage.rows_lost,
        "runs": list(damage.runs),
        "next": f"asof audit {what} --repair" if damage.restores != 0 else "restore a backup",
    }


def repair_tables(what: str, home: Home, *, now: datetime, by: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Repair what is damaged: what was done to each table, and why others could not be repaired.

    Raises ContractError for an audit whose subject no repair can bring back.
    """
    if what not in REPAIRABLE:
        raise ContractError(f"audit {what} has no repair", fix=f"asof audit {'|'.join(REPAIRABLE)} --repair")
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    for root, damage in damaged_tables(what, home).items():
        table = open_table(root)
        try:
            repaired = table.repair({"at": format_instant(now), "by": by})
        except IntegrityError as fault:
            failed.append(str(fault))
            continue
        if repaired is None:  # somebody else was faster
            continue
        if "prod" in table.tags():
            table.tag("prod", repaired.version)
        report = told(what, home, root, damage) | {
            "version": repaired.version,
            "kept_aside": home.relative(repaired.aside),
        }
        _note(home, report | {"at": format_instant(now), "by": by})
        done.append(report | {"next": _again(home, root, damage)})
    return done, failed


def _note(home: Home, report: dict[str, Any]) -> None:
    """For the auditor, who enters it into the ledger at its next tick."""
    note = {name: value for name, value in report.items() if name != "next"}
    make_dirs(home.repair_notes)
    write_atomic(home.repair_notes / f"{uuid.uuid4().hex}.json", json.dumps(note, ensure_ascii=False).encode())


def _again(home: Home, root: Path, damage: Damage) -> str | None:
    """How what was given up comes back."""
    if damage.restores is None:
        return None
    if root == home.lakehouse / "adjustments":
        return "asof adjust, for what was recorded since"
    if root.is_relative_to(home.lakehouse / "features"):
        files = [home.run(run_id).candidates for run_id in damage.runs]
        return "; ".join(f"asof run {path}" for path in files if path.is_file()) or None
    return "asof refresh"
