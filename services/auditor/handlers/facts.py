"""What the gate looks at, read from the files as they are at the moment of the decision."""

from __future__ import annotations

from services.auditor.domain.assess import rules_of
from services.auditor.domain.chain import Entry
from services.auditor.domain.coverage import Coverage, Figures, read_coverage
from services.auditor.domain.gate import BaseState, Facts
from services.auditor.domain.manifest import RunManifest
from services.auditor.handlers.desk import Desk
from services.auditor.ports import HeldRun
from shared.errors import IntegrityError
from shared.events import FileRef


def last_decision(desk: Desk, run_id: str) -> Entry | None:
    decided = desk.ledger.of_run(run_id, "decided")
    return decided[-1] if decided else None


def artifact_of(desk: Desk, entry: Entry) -> Coverage | None:
    """The artifact that a decision was made on; None when a later one has replaced it."""
    assert entry.run_id is not None, "a decision is on a run"
    ref = FileRef.model_validate(entry.data["coverage"])
    with desk.runs.hold(entry.run_id) as run:
        data = run.coverage()
        if data is None or desk.runs.wrong_file(ref) is not None:
            return None
        return read_coverage(data, name=ref.path, manifest=run.manifest)


def newest_figures(desk: Desk) -> Figures | None:
    """Of the run that was decided last, for a process that has decided none yet."""
    decided = desk.ledger.of_kind("decided")
    try:
        coverage = artifact_of(desk, decided[-1]) if decided else None
    except IntegrityError:
        return None  # the gate names what is wrong with it; a figure of it would be a guess
    return None if coverage is None else coverage.figures()


def changed_artifact(desk: Desk, run: HeldRun) -> str | None:
    """What is wrong with the artifact as it stands: it is none that the ledger names for this run."""
    covered = desk.ledger.of_run(run.run_id, "covered")
    data = run.coverage()
    if not covered or data is None:
        return None
    if run.coverage_ref(data).sha256 in {entry.data["coverage"]["sha256"] for entry in covered}:
        return None
    ref = FileRef.model_validate(covered[-1].data["coverage"])
    wrong = desk.runs.wrong_file(ref) or "it changed while it was read"
    try:
        read_coverage(data, name=ref.path, manifest=run.manifest)
    except IntegrityError as fault:
        wrong = f"{fault.what}{f' ({fault.cause})' if fault.cause else ''}"
    return f"{wrong}; it was put aside as {run.set_coverage_aside()}"


def gather_facts(
    desk: Desk, run: HeldRun, manifest: RunManifest, coverage: Coverage, coverage_changed: str | None
) -> Facts:
    base, detail = _base(desk, manifest, coverage)
    return Facts(
        expected=coverage.counts["expected"],
        gaps=len(coverage.gaps),
        waived=len(coverage.waived),
        strict=manifest.strict,
        base=base,
        base_detail=detail,
        mixed_rules=_mixed_rules(run),
        manifest_changed=_manifest_changed(desk, run),
        coverage_changed=coverage_changed,
        staged_changed=_wrong_files(desk, coverage),
    )


def _manifest_changed(desk: Desk, run: HeldRun) -> str | None:
    opened = desk.ledger.find(f"opened:{run.run_id}")
    if opened is None:
        return f"the ledger has no entry of the opening of run {run.run_id}"
    return desk.runs.wrong_file(FileRef.model_validate(opened.data["manifest"]))


def _wrong_files(desk: Desk, coverage: Coverage) -> str | None:
    wrong = [problem for ref in (*coverage.staged, *coverage.metadata_files) if (problem := desk.runs.wrong_file(ref))]
    if not wrong:
        return None
    return "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3:,} more" if len(wrong) > 3 else "")


def _mixed_rules(run: HeldRun) -> str | None:
    assert run.manifest is not None, "only an opened run is decided"
    rules = rules_of(run.journal.tally.rated_with(run.manifest.expected))
    if len(rules) < 2:
        return None
    return "ratings were staged by different rules: " + ", ".join(f"{each.name} {each.version}" for each in rules)


def _base(desk: Desk, manifest: RunManifest, coverage: Coverage) -> tuple[BaseState, str]:
    if not coverage.staged:
        return "same", ""
    own = set(coverage.covered_symbols)
    since = desk.tables.promoted_since(manifest.interval, manifest.rules, manifest.base.features)
    moved = [(promoted, own & promoted.symbols) for promoted in since if promoted.run_id != manifest.run_id]
    moved = [(promoted, symbols) for promoted, symbols in moved if symbols]
    if not moved:
        return "same", ""
    newer = []
    for promoted, symbols in moved:
        other = None if promoted.run_id is None else desk.runs.as_of(promoted.run_id)
        if other is None or other > manifest.as_of:
            newer.append((promoted, symbols))
    state: BaseState = "newer" if newer else "moved"
    named = newer or moved
    listed_symbols = sorted({symbol for _, own_symbols in named for symbol in own_symbols})
    by = ", ".join(f"version {p.version} (run {p.run_id or 'unknown'})" for p, _ in named[:3])
    more = f" and {len(listed_symbols) - 5:,} more" if len(listed_symbols) > 5 else ""
    listed = " ".join(listed_symbols[:5]) + more
    how = "from a later as_of than this run's" if newer else "checked again: this run's rows are not older"
    return state, f"{listed} promoted since the run started from version {manifest.base.features}, by {by}; {how}"
