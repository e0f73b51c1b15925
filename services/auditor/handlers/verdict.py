"""Closing a run and deciding on it: coverage, ledger, gate, and the events that tell everyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from services.auditor.domain.alerts import alert, blocked_alerts, raised, resolved_alerts
from services.auditor.domain.assess import assess
from services.auditor.domain.canonical import canonical_sha256
from services.auditor.domain.chain import GENESIS, Entry
from services.auditor.domain.coverage import Coverage, to_bytes, with_waivers
from services.auditor.domain.gate import Decision, Facts, decide
from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.notes import Closed, ClosedBy
from services.auditor.domain.waivers import Waiver, apply_waivers
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.facts import changed_artifact, gather_facts, last_decision
from services.auditor.ports import HeldRun
from shared.clock import parse_instant
from shared.events import Alert, FileRef, PromotionDecided, Rules, Versions

# How long a run that a broken ledger blocks waits before its decision is tried again.
_ASK_AGAIN = timedelta(seconds=30)


@dataclass(frozen=True)
class Ruling:
    """A decision and what it makes known. `entry` is None when the ledger could not take it."""

    decision: Decision
    coverage: Coverage
    entry: Entry | None
    events: Events = field(default_factory=list)


def settle(desk: Desk, run: HeldRun) -> Ruling | None:
    """Close and decide the run if it is time: complete, past its deadline, strict and failed, or left half done."""
    manifest = run.manifest
    if manifest is None:
        return None
    journal = run.journal
    if journal.closed is None:
        by = _closing(desk, manifest, run)
        if by is None:
            complete_since = desk.memory.complete_since.get(run.run_id)
            soon = journal.deadline(manifest) if complete_since is None else complete_since + desk.attempts_grace
            desk.memory.deadlines[run.run_id] = min(soon, journal.deadline(manifest))
            return None
        run.append([Closed(desk.clock(), by)])
    elif run.run_id not in desk.ledger.open_runs():
        return None
    return rule(desk, run)


def _closing(desk: Desk, manifest: RunManifest, run: HeldRun) -> ClosedBy | None:
    tally = run.journal.tally
    if manifest.strict and tally.failed(manifest):
        return "strict"
    if tally.is_complete(manifest) and not _awaits_attempts(desk, manifest, run):
        return "complete"
    return "deadline" if desk.clock() >= run.journal.deadline(manifest) else None


def _awaits_attempts(desk: Desk, manifest: RunManifest, run: HeldRun) -> bool:
    """True for a moment after the last outcome, while the report of the last attempt may be on its way."""
    now, since = desk.clock(), desk.memory.complete_since
    if run.journal.tally.attempts_known(manifest) or now - since.setdefault(run.run_id, now) >= desk.attempts_grace:
        since.pop(run.run_id, None)
        return False
    return True


def rule(desk: Desk, run: HeldRun) -> Ruling:
    """Decide on a closed run, from the evidence and the waivers as they are now. Asking twice changes nothing.

    What was granted stands: its rows may be in the store already, and a waiver that ends later takes nothing back.
    """
    manifest = run.manifest
    assert manifest is not None, "only an opened run closes"
    broken = desk.ledger.broken()
    if broken is not None:
        return _unrecorded(desk, run, manifest, broken)
    before = last_decision(desk, run.run_id)
    coverage = waived_coverage(desk, run)
    if before is not None and before.data["decision"] == "granted":
        entry = before
    else:
        facts = gather_facts(desk, run, manifest, coverage, changed_artifact(desk, run))
        same = before is not None and before.data["facts_sha256"] == _facts_sha256(coverage, facts)
        entry = before if before is not None and same else _enter(desk, run, manifest, coverage, facts)
    if entry is not before:
        desk.memory.newest = coverage.figures()
    run.write_extract(desk.ledger.extract(run.run_id))
    decision = decision_of(entry)
    return Ruling(decision, coverage, entry, events_of(desk, entry, coverage))


def waived_coverage(desk: Desk, run: HeldRun, extra: Sequence[Waiver] = ()) -> Coverage:
    """The artifact as it is now; `extra` waivers count as if they were given (a preview)."""
    manifest, closed = run.manifest, run.journal.closed
    assert manifest is not None, "only an opened run is assessed"
    assert closed is not None, "only a closed run is assessed"
    coverage = _unwaived(run, manifest, closed)
    waived = apply_waivers(
        coverage,
        [*waivers_of(desk, run.run_id), *extra],
        now=desk.clock(),
        earlier={entry.data["evidence_sha256"] for entry in desk.ledger.of_run(run.run_id, "decided")},
        approvals=desk.approvals,
        run_requested_by=manifest.requested_by,
    )
    return with_waivers(coverage, waived)


def _unwaived(run: HeldRun, manifest: RunManifest, closed: Closed) -> Coverage:
    return assess(manifest, run.journal.tally, closed_at=closed.at, closed_by=closed.by)


def preview(desk: Desk, run: HeldRun, extra: Sequence[Waiver]) -> Decision:
    """What the gate would say with these waivers, changing nothing."""
    manifest = run.manifest
    assert manifest is not None, "only an opened run is previewed"
    return decide(gather_facts(desk, run, manifest, waived_coverage(desk, run, extra), None))


def waivers_of(desk: Desk, run_id: str) -> list[Waiver]:
    """The run's own and every standing one, valid or not."""
    entries = [entry for entry in desk.ledger.of_kind("waived") if entry.run_id in (None, run_id)]
    return [Waiver.model_validate(waiver) for entry in entries for waiver in entry.data["waivers"]]


def decision_of(entry: Entry) -> Decision:
    return Decision(entry.data["decision"], entry.data["code"], entry.data["reason"])


def events_of(desk: Desk, entry: Entry, coverage: Coverage) -> Events:
    """The events of a decision in the ledger: always the same ones, however often they are published."""
    data = entry.data
    at = parse_instant(entry.time)
    decided = PromotionDecided(
        run_id=coverage.run_id,
        decision=data["decision"],
        reason=data["reason"],
        coverage=FileRef.model_validate(data["coverage"]),
        ledger_head=entry.hash,
        waivers=tuple(data["waivers"]),
        base=Versions.model_validate(data["base"]),
        catalog_version=data["catalog_version"],
        interval=data["interval"],
        rules=Rules.model_validate(data["rules"]),
        staged=tuple(FileRef.model_validate(ref) for ref in data["staged"]),
        symbols=coverage.covered_symbols if data["staged"] else (),
    )
    decision = decision_of(entry)
    firing = [] if decision.granted else blocked_alerts(coverage, decision, ledger_head=entry.hash)
    earlier = [other for other in desk.ledger.of_run(coverage.run_id, "decided") if other.n < entry.n]
    ended = resolved_alerts(
        earlier[-1].data["raised"] if earlier else (),
        data["raised"],
        run_id=coverage.run_id,
        why=decision.reason,
        at=at,
        ledger_head=entry.hash,
    )
    return [desk.event(payload, time=at) for payload in (decided, *firing, *ended)]


def _facts_sha256(coverage: Coverage, facts: Facts) -> str:
    """What a decision follows from: evidence, waivers and everything the gate looked at."""
    return canonical_sha256(
        {
            "evidence": coverage.evidence_sha256,
            "waivers": [waived.waiver for waived in coverage.waived],
            "facts": {name: getattr(facts, name) for name in Facts.__dataclass_fields__},
        }
    )


def _enter(desk: Desk, run: HeldRun, manifest: RunManifest, coverage: Coverage, facts: Facts) -> Entry:
    """The artifact's hash in the ledger, then the artifact, then the decision: each durable before the next.

    In this order no artifact that stands on the disk is unknown to the ledger, whenever the auditor dies.
    """
    data = to_bytes(coverage)
    now = desk.clock()
    ref = run.coverage_ref(data).model_dump(mode="json", exclude_none=True)
    desk.ledger.append(
        "covered",
        key=f"covered:{run.run_id}:{ref['sha256']}",
        run_id=run.run_id,
        time=now,
        data={
            "coverage": ref,
            "evidence_sha256": coverage.evidence_sha256,
            "counts": coverage.counts,
            "closed_by": coverage.closed_by,
        },
    )
    run.write_coverage(data)
    decision = decide(facts)
    staged = _promotable(coverage) if decision.granted else ()
    alerts = [] if decision.granted else blocked_alerts(coverage, decision, ledger_head=GENESIS)
    facts_sha256 = _facts_sha256(coverage, facts)
    return desk.ledger.append(
        "decided",
        # The head makes a state that comes back (tampered, mended, tampered) a decision of its own.
        key=f"decided:{run.run_id}:{facts_sha256}:{_before(desk, run.run_id)}",
        run_id=run.run_id,
        time=now,
        data={
            "decision": decision.verdict,
            "code": decision.code,
            "reason": decision.reason,
            "coverage": ref,
            "evidence_sha256": coverage.evidence_sha256,
            "facts_sha256": facts_sha256,
            "waivers": sorted({waived.waiver for waived in coverage.waived}),
            "base": manifest.base.model_dump(),
            "catalog_version": coverage.catalog_version,
            "interval": manifest.interval,
            "rules": _rules(manifest, coverage).model_dump(),
            "staged": [item.model_dump(mode="json", exclude_none=True) for item in staged],
            "symbols": len(coverage.covered_symbols) if staged else 0,
            "raised": raised(alerts),
            "next": alerts[0].next_command if alerts else None,
        },
    )


def _before(desk: Desk, run_id: str) -> int:
    entry = last_decision(desk, run_id)
    return 0 if entry is None else entry.n


def _promotable(coverage: Coverage) -> tuple[FileRef, ...]:
    return coverage.staged if "ratings" in coverage.stages else ()


def _rules(manifest: RunManifest, coverage: Coverage) -> Rules:
    # A run that rated nothing has the name of its rules and no version of them.
    return coverage.rules or Rules(name=manifest.rules, version="none")


def _unrecorded(desk: Desk, run: HeldRun, manifest: RunManifest, broken: str) -> Ruling:
    """A broken ledger takes no entry: the run is blocked in public and stays open, to be decided when it is mended."""
    closed = run.journal.closed
    assert closed is not None, "only a closed run is decided"
    coverage = _unwaived(run, manifest, closed)
    standing = run.coverage()
    if standing is None:
        standing = to_bytes(coverage)
        run.write_coverage(standing)
    facts = Facts(expected=coverage.counts["expected"], gaps=len(coverage.gaps), waived=0, ledger_broken=broken)
    decision = decide(facts)
    decided = PromotionDecided(
        run_id=manifest.run_id,
        decision="blocked",
        reason=f"the ledger is broken: {broken}",
        coverage=run.coverage_ref(standing),
        ledger_head=head_hash(desk),
        base=manifest.base,
        catalog_version=coverage.catalog_version,
        interval=manifest.interval,
        rules=_rules(manifest, coverage),
    )
    now = desk.clock()
    desk.memory.deadlines[run.run_id] = now + _ASK_AGAIN
    return Ruling(decision, coverage, None, [desk.event(decided), desk.event(ledger_alert(desk, broken))])


def ledger_alert(desk: Desk, broken: str) -> Alert:
    return alert(
        {"alertname": "LedgerBroken", "severity": "page"},
        summary=f"the ledger is broken, nothing is promoted until it is mended: {broken}",
        error=broken,
        next_command="asof audit ledger",
        starts_at=desk.clock(),
        ledger_head=head_hash(desk),
    )


def head_hash(desk: Desk) -> str:
    head = desk.ledger.head()
    return GENESIS if head is None else head.hash
