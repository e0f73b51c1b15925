"""`asof audit`: proofs over files alone, so that they can be made while no service runs, and by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.errors import ContractError
from shared.paths import Home


@dataclass(frozen=True)
class AuditResult:
    """What was looked at, and what is wrong with it: empty `violations` is sound."""

    what: str
    counts: dict[str, int]
    violations: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"audit": self.what, "counts": self.counts, "violations": list(self.violations)}


def run_audit(what: str, home: Home, run_id: str | None) -> AuditResult:
    """Make one audit. Raises ContractError for one that does not exist."""
    audits: dict[str, Callable[[Home, str | None], AuditResult]] = {
        "pit": _pit,
        "features": _features,
        "ledger": _ledger,
    }
    if what not in audits:
        raise ContractError(f"no audit is called {what!r}", fix=f"asof audit {'|'.join(audits)}")
    return audits[what](home, run_id)


def _pit(home: Home, _: str | None) -> AuditResult:
    """Every version of every symbol: contiguous, one open, no overlap, no two equal neighbours."""
    from services.catalog import MetadataCatalog

    catalog = MetadataCatalog.open(home.symbols_table)
    history = catalog.history()
    counts = {
        "symbols": int(history["symbol"].nunique()),
        "versions": len(history),
        "open versions": int(history["valid_until"].isna().sum()),
    }
    return AuditResult("pit", counts, tuple(str(violation) for violation in catalog.audit()))


def _ledger(home: Home, run_id: str | None) -> AuditResult:
    from services.auditor.adapters.ledger_file import verify_ledger
    from services.auditor.domain.chain import verify_extract

    flaws, entries, _ = verify_ledger(home)
    violations = [str(flaw) for flaw in flaws]
    counts = {"entries": entries}
    if run_id is not None:
        extract = home.run(run_id).audit
        lines = extract.read_bytes().splitlines(keepends=True) if extract.is_file() else []
        violations += verify_extract(lines) if lines else [f"run {run_id} has no extract"]
        counts["entries of the run"] = len(lines)
    return AuditResult("ledger", counts, tuple(violations))


def _features(home: Home, _: str | None) -> AuditResult:
    """Every file of every feature table against the bytes that were written."""
    from shared.tables import open_table

    counts = {"tables": 0, "symbols": 0}
    violations: list[str] = []
    for root in sorted((home.lakehouse / "features").glob("*/*")):
        table = open_table(root)
        counts["tables"] += 1
        counts["symbols"] += len(table.load().keys)
        violations += [str(violation) for violation in table.verify()]
    return AuditResult("features", counts, tuple(violations))
