"""What became of a run, read from its own files: manifest, coverage artifact and its extract of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asof.lakehouse import Run
from shared.errors import NotFoundError


@dataclass(frozen=True)
class Verdict:
    """One run for a person: how much is covered, what is missing and why, what the gate said, what was promoted.

    `gaps` and `waived` are rows of the coverage artifact. `decision` is None while the run is open.
    """

    run_id: str
    profile: str
    expected: int
    covered: float | None = None
    covered_with_waivers: float | None = None
    gaps: tuple[dict[str, Any], ...] = ()
    waived: tuple[dict[str, Any], ...] = ()
    decision: str | None = None
    reason: str = ""
    promoted_version: int | None = None
    catalog_version: int | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def nothing_came(self) -> bool:
        """Not one candidate's metadata and bars could be had: the upstream, not the data, is what failed."""
        fetched = {"metadata", "bars"}
        return bool(self.gaps) and self.covered == 0 and all(gap["stage"] in fetched for gap in self.gaps)

    @property
    def open_gaps(self) -> list[dict[str, Any]]:
        signed = {gap["symbol"] for gap in self.waived}
        return [gap for gap in self.gaps if gap["symbol"] not in signed]

    def open_gaps_by_stage(self) -> dict[str, list[str]]:
        stages: dict[str, list[str]] = {}
        for gap in self.open_gaps:
            stages.setdefault(gap["stage"], []).append(gap["symbol"])
        return stages

    def causes(self) -> list[tuple[str, str, list[dict[str, Any]]]]:
        """The open gaps grouped by (stage, code), the largest group first."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for gap in self.open_gaps:
            groups.setdefault((gap["stage"], gap["code"]), []).append(gap)
        return [(*key, gaps) for key, gaps in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))]

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "gaps": list(self.gaps), "waived": list(self.waived)}


def detached(run_id: str, profile: str, expected: int) -> Verdict:
    """A run that was published and is not followed."""
    return Verdict(run_id, profile, expected, reason=f"published; follow it with `asof show {run_id}`")


def read_verdict(run: Run) -> Verdict:
    """The verdict as the files have it now. Raises NotFoundError for a run nobody opened."""
    manifest = run.manifest
    expected = len(manifest["expected"]) + len(manifest["malformed"])
    paths = {"manifest": run.paths.manifest, "coverage": run.paths.coverage, "ledger extract": run.paths.audit}
    paths |= {"metadata": run.paths.metadata, "features": run.paths.features, "report": run.paths.report}
    files = {name: str(path) for name, path in paths.items() if path.is_file()}
    try:
        coverage, entries = run.coverage, run.ledger
    except NotFoundError:
        return Verdict(run.run_id, manifest["profile"], expected, files=files)
    decided = _newest(entries, "decided")
    promoted = _newest(entries, "promoted")
    return Verdict(
        run.run_id,
        manifest["profile"],
        expected,
        covered=coverage["covered"],
        covered_with_waivers=coverage["covered_with_waivers"],
        gaps=tuple(coverage["gaps"]),
        waived=tuple(coverage.get("waived", ())),
        decision=decided.get("decision"),
        reason=decided.get("reason", ""),
        promoted_version=promoted.get("feature_version"),
        catalog_version=promoted.get("catalog_version", decided.get("catalog_version")),
        files=files,
    )


def _newest(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [entry["data"] for entry in entries if entry.get("kind") == kind]
    return found[-1] if found else {}
