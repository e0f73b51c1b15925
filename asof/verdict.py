"""What became of a run, read from its files: manifest, coverage artifact, its extract of the ledger, the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from asof.lakehouse import Run
from services.auditor import what_happened
from shared.clock import parse_instant, system_clock
from shared.errors import NotFoundError
from shared.tables import open_table


@dataclass(frozen=True)
class Moment:
    """One entry of the ledger about the run. `kind` is the ledger's word; `what` is empty where that says it all."""

    entry: int
    time: str
    kind: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """One run for a person: how much is covered, what is missing and why, what the gate said, what was promoted.

    `gaps`, `waived` and `attempts` are rows of the coverage artifact. `decision` is None while the run is open.
    `next` is the command that the decision named, `withdrawn_by` the feature version that went back to before this
    run's promotion (see `with_rollback`).
    `parity` has `differences` (local minus screener, by symbol and feature) and the `badge` that sums them up; it is
    empty where no candidate brought values to compare with (see `with_parity`).
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
    next: str | None = None
    promoted_version: int | None = None
    catalog_version: int | None = None
    withdrawn_by: int | None = None
    parity: dict[str, Any] = field(default_factory=dict)
    attempts: tuple[dict[str, Any], ...] = ()
    timeline: tuple[Moment, ...] = ()
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
        return asdict(self)


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
        return Verdict(run.run_id, manifest["profile"], expected, reason=_open_until(manifest), files=files)
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
        next=decided.get("next"),
        promoted_version=promoted.get("feature_version"),
        catalog_version=promoted.get("catalog_version", decided.get("catalog_version")),
        attempts=tuple(coverage["attempts"]),
        timeline=tuple(_moment(entry) for entry in entries),
        files=files,
    )


def _open_until(manifest: dict[str, Any]) -> str:
    deadline = parse_instant(manifest["deadline_at"])
    if deadline < system_clock():
        return f"still open, although its deadline was {manifest['deadline_at']}: `asof doctor` tells what stands still"
    return f"still open; what is silent at {manifest['deadline_at']} becomes a gap"


def _moment(entry: dict[str, Any]) -> Moment:
    return Moment(entry["n"], entry["time"], entry["kind"], what_happened(entry["kind"], entry["data"]))


def _newest(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [entry["data"] for entry in entries if entry.get("kind") == kind]
    return found[-1] if found else {}


def with_parity(run: Run, verdict: Verdict) -> Verdict:
    """The verdict with how the run's ratings compare with what the screener showed, promoted or not.

    Where the features service is not installed, as in another service's image, nothing is compared.
    """
    if find_spec("services.features") is None:
        return verdict
    from services.features.adapters.workspace import RunWorkspace
    from services.features.domain.parity import summary

    receipts = RunWorkspace(run.home).receipts(run.run_id)
    return replace(verdict, parity=summary(one for receipt in receipts for one in receipt.parity))


def with_rollback(run: Run, verdict: Verdict) -> Verdict:
    """The verdict with the newest rollback that leaves this run's promotion out of what the store now holds.

    Walks the store's versions back to the promotion, so it is asked for one run and not for a list of them.
    """
    promotion = _newest(run.ledger, "promoted") if verdict.promoted_version is not None else {}
    if not promotion:
        return verdict
    table = open_table(run.home.features_table(promotion["interval"], promotion["rules"]["name"]))
    version = table.load().version
    while version > promotion["feature_version"]:
        back = table.load(version).meta.get("rollback")
        equals = int(str(back["to"])) if isinstance(back, dict) else version - 1
        if equals < promotion["feature_version"]:
            return replace(verdict, withdrawn_by=version)
        version = equals
    return verdict
