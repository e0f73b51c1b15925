"""`asof audit`: proofs over files alone, so that they can be made while no service runs, and by somebody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from asof.repairs import damaged_tables, repair_tables, tables_of, told
from shared.errors import ContractError
from shared.paths import Home
from shared.tables import Damage, open_table


@dataclass(frozen=True)
class AuditResult:
    """What was looked at, and what is wrong with it: empty `violations` is sound.

    `repairs`: by table, what a repair would give up, or did.
    """

    what: str
    counts: dict[str, int]
    violations: tuple[str, ...]
    repairs: tuple[dict[str, Any], ...] = ()
    repaired: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "audit": self.what,
            "counts": self.counts,
            "violations": list(self.violations),
            "repaired" if self.repaired else "repairable": list(self.repairs),
        }


def run_audit(what: str, home: Home, run_id: str | None) -> AuditResult:
    """Make one audit. Raises ContractError for one that does not exist."""
    audits: dict[str, Callable[[Home, str | None], AuditResult]] = {
        "pit": _pit,
        "features": partial(_tables, "features"),
        "bars": partial(_tables, "bars"),
        "tables": partial(_tables, "tables"),
        "ledger": _ledger,
    }
    if what not in audits:
        raise ContractError(f"no audit is called {what!r}", fix=f"asof audit {'|'.join(audits)}")
    return audits[what](home, run_id)


def run_repair(what: str, home: Home, *, now: datetime, by: str) -> AuditResult:
    """Repair the tables of an audit, then make it. Raises ContractError for one that has no repair."""
    done, failed = repair_tables(what, home, now=now, by=by)
    after = run_audit(what, home, None)
    return replace(after, violations=(*after.violations, *failed), repairs=tuple(done), repaired=True)


def _pit(home: Home, _: str | None) -> AuditResult:
    """Every file of the catalogs; every version of every key: contiguous, one open, no overlap, no equal neighbours."""
    from services.catalog import ExchangeCatalog, MetadataCatalog

    damaged = damaged_tables("pit", home)
    counts: dict[str, int] = {}
    violations = _files(home, damaged)
    for kind, root, words in (
        (MetadataCatalog, home.symbols_table, ("symbols", "versions", "open versions")),
        (ExchangeCatalog, home.exchanges_table, ("exchanges", "exchange versions", "open exchange versions")),
    ):
        if root in damaged:
            continue
        catalog = kind.open(root)
        history = catalog.history()
        numbers = (history[kind.schema.key].nunique(), len(history), history["valid_until"].isna().sum())
        counts |= dict(zip(words, map(int, numbers), strict=True))
        violations += map(str, catalog.audit())
    return AuditResult("pit", counts, tuple(violations), _repairable("pit", home, damaged))


def _tables(what: str, home: Home, _: str | None) -> AuditResult:
    """Every file of every version of the tables against the bytes that were written."""
    damaged = damaged_tables(what, home)
    sound = [root for root in tables_of(what, home) if root not in damaged]
    counts = {"tables": len(damaged) + len(sound)}
    if what == "features":
        counts["symbols"] = sum(len(open_table(root).load().keys) for root in sound)
    return AuditResult(what, counts, tuple(_files(home, damaged)), _repairable(what, home, damaged))


def _files(home: Home, damaged: Mapping[Path, Damage]) -> list[str]:
    return [
        f"{home.relative(root)}: version {one.version}: {one.file}: {one.problem}"
        for root, damage in damaged.items()
        for one in damage.problems
    ]


def _repairable(what: str, home: Home, damaged: Mapping[Path, Damage]) -> tuple[dict[str, Any], ...]:
    return tuple(told(what, home, root, damage) for root, damage in damaged.items())


def _ledger(home: Home, run_id: str | None) -> AuditResult:
    from services.auditor.adapters.ledger_file import kept_entries, verify_ledger
    from services.auditor.domain.chain import verify_extract

    flaws, entries, _ = verify_ledger(home)
    kept = kept_entries(home) if flaws else {}
    violations = [f"{flaw}; {kept[flaw.n]}" if flaw.n in kept else str(flaw) for flaw in flaws]
    counts = {"entries before the first flaw" if flaws else "entries": entries}
    if run_id is not None:
        extract = home.run(run_id).audit
        lines = extract.read_bytes().splitlines(keepends=True) if extract.is_file() else []
        if lines:
            violations += verify_extract(lines)
        elif home.run(run_id).coverage.is_file():
            violations.append(f"run {run_id} is decided and has no extract")
        counts["entries of the run"] = len(lines)
    return AuditResult("ledger", counts, tuple(violations))
