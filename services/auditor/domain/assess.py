"""From a tally to the coverage artifact: one outcome for every symbol and stage, one gap for every candidate missed.

    stage        ok when                              failed when
    metadata     the catalog committed it             the fetcher or the catalog named a failure
    bars         hydrated, or rated from what is      the fetcher named a failure, or the features service
                 stored                               could not read them
    validation   staged, or failed only in ratings    the features service rejected bars or features
    ratings      staged                               the features service rejected its ratings

What nobody spoke of until the run closed is `silence`. Metadata and bars are fetched side by side; validation needs
bars and ratings need validation, so after a failure the stages behind it are `skipped`. A gap counts once, at the
first stage that failed; a failure that somebody named goes before silence, because it says more.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from services.auditor.domain.coverage import (
    AttemptRow,
    Coverage,
    Gap,
    GapStage,
    Input,
    KindAttempt,
    Outcome,
    evidence_of,
    figure,
)
from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.notes import ClosedBy
from services.auditor.domain.tally import Attempt, File, Heard, Tally
from shared.clock import format_instant, parse_instant
from shared.events import FileRef, Rules, Stage

OK = Outcome(status="ok")
_UNSPOKEN = ("silence", "aborted")
_REFUSED_HERE = ("region_blocked", "forbidden")
_WRITER: Mapping[Stage, str] = {
    "metadata": "the fetcher",
    "bars": "the fetcher",
    "validation": "the features service",
    "ratings": "the features service",
}


def assess(manifest: RunManifest, tally: Tally, *, closed_at: datetime, closed_by: ClosedBy) -> Coverage:
    """The artifact of a run that closed: a pure function of its manifest, the set of its notes and how it closed."""
    outcomes = {
        symbol: {stage: _outcome(manifest, tally, symbol, stage, closed_by) for stage in manifest.stages}
        for symbol in manifest.expected
    }
    _skip_behind_failures(outcomes)
    gaps = [
        Gap(
            symbol=f"#{item.index}",
            stage="candidates",
            code="malformed",
            cause=item.reason,
            retryable=False,
            since=manifest.opened_at,
            next=_waiver(manifest, f"#{item.index}", "candidates", closed_at),
        )
        for item in manifest.malformed
    ]
    for symbol in manifest.expected:
        gap = _gap(manifest, tally, symbol, outcomes[symbol], closed_at)
        if gap is not None:
            gaps.append(gap)
    rated = tally.rated_with(manifest.expected)
    total = len(manifest.expected) + len(manifest.malformed)
    covered = figure(total - len(gaps), total)
    coverage = Coverage.model_construct(
        version=1,
        run_id=manifest.run_id,
        profile=manifest.profile,
        interval=manifest.interval,
        rules=_rules(rated),
        as_of=manifest.as_of,
        round=tally.round,
        opened_at=manifest.opened_at,
        deadline_at=manifest.deadline_at,
        closed_at=closed_at,
        closed_by=closed_by,
        stages=manifest.stages,
        base=manifest.base,
        catalog_version=manifest.base.catalog if tally.catalog_version is None else tally.catalog_version,
        expected=manifest.expected,
        malformed=manifest.malformed,
        attempts=_attempts(tally),
        failed_symbols=tuple(gap.symbol for gap in gaps if gap.stage != "candidates"),
        outcomes=outcomes,
        gaps=tuple(gaps),
        inputs=_inputs(manifest, tally),
        warnings={symbol: tally.warnings[symbol] for symbol in sorted(tally.warnings) if symbol in outcomes},
        metadata_files=_files(tally.metadata_files, tally.metadata_files.keys()),
        staged=_files(tally.staged_files, {evidence["file"] for evidence in rated.values()}),
        covered=covered,
        evidence_sha256="",
        waived=(),
        covered_with_waivers=covered,
        counts={
            "expected": total,
            "covered": total - len(gaps),
            "gaps": len(gaps),
            "waived": 0,
            "open_gaps": len(gaps),
        },
    )
    return coverage.model_copy(update={"evidence_sha256": evidence_of(coverage)})


def _outcome(manifest: RunManifest, tally: Tally, symbol: str, stage: Stage, closed_by: ClosedBy) -> Outcome:
    heard = _heard(tally, symbol, stage)
    if heard is None:
        return _silent(manifest, tally, symbol, stage, closed_by)
    return OK if heard.ok else _failed(tally, symbol, heard)


def _heard(tally: Tally, symbol: str, stage: Stage) -> Heard | None:
    if stage == "metadata":
        return tally.metadata.get(symbol)
    rated, bars = tally.rated.get(symbol), tally.bars.get(symbol)
    if rated is None:
        return bars if stage == "bars" else None
    if rated.ok or rated.stage == stage:
        return rated
    reached = ("bars", "validation", "ratings")
    if reached.index(stage) < reached.index(rated.stage):
        return rated._replace(ok=True)
    return None


def _failed(tally: Tally, symbol: str, heard: Heard) -> Outcome:
    failure = heard.failure or {}
    kind = "metadata" if heard.stage == "metadata" else "bars"
    tried = len(tally.attempts_of(kind, symbol)) if heard.stage in ("metadata", "bars") else 0
    return Outcome(
        status="failed",
        code=failure["code"],
        cause=failure["message"],
        retryable=failure["retryable"],
        attempts=max(failure.get("attempts", 1), tried),
        host=failure.get("host"),
        http_status=failure.get("status"),
        quarantine=None if heard.evidence is None else FileRef.model_validate(heard.evidence),
    )


def _silent(manifest: RunManifest, tally: Tally, symbol: str, stage: Stage, closed_by: ClosedBy) -> Outcome:
    if closed_by == "strict":
        return Outcome(
            status="failed",
            code="aborted",
            cause="the run is strict and was aborted at the first failure",
            retryable=True,
        )
    waited = f"until the deadline at {format_instant(manifest.deadline_at)}"
    if stage == "metadata" and symbol in tally.fetched:
        cause = f"fetched at {format_instant(tally.fetched[symbol])}, but the catalog reported no commit of it {waited}"
    elif stage in ("validation", "ratings") and symbol in tally.bars:
        cause = (
            f"its bars came at {format_instant(tally.bars[symbol].time)}, but {_WRITER[stage]} said nothing {waited}"
        )
    else:
        writer = "the features service" if stage == "bars" and manifest.bars == "lakehouse" else _WRITER[stage]
        cause = f"{writer} said nothing of it {waited}"
        if tried := tally.attempts_of("metadata" if stage == "metadata" else "bars", symbol):
            cause += f"; the last of {len(tried)} attempts failed with {tried[-1]['code']}: {tried[-1]['message']}"
    cause += "; `asof doctor` tells whether it is at work"
    before = tally.before.get((symbol, stage))
    if before is not None and before.failure is not None:
        cause += f"; before it was asked for again it had failed with {before.failure['code']}"
    return Outcome(status="failed", code="silence", cause=cause, retryable=True)


def _skip_behind_failures(outcomes: Mapping[str, dict[Stage, Outcome]]) -> None:
    chain: tuple[Stage, ...] = ("bars", "validation", "ratings")
    for stages in outcomes.values():
        failed_at: Stage | None = None
        for stage in chain:
            if stage not in stages:
                continue
            outcome = stages[stage]
            if failed_at is not None:
                stages[stage] = Outcome(status="skipped", code=stages[failed_at].code, after=failed_at)
            elif outcome.status == "failed":
                failed_at = stage


def _gap(
    manifest: RunManifest, tally: Tally, symbol: str, stages: Mapping[Stage, Outcome], closed_at: datetime
) -> Gap | None:
    failed = [stage for stage, outcome in stages.items() if outcome.status == "failed"]
    if not failed:
        return None
    stage = next((stage for stage in failed if stages[stage].code not in _UNSPOKEN), failed[0])
    outcome = stages[stage]
    heard = _heard(tally, symbol, stage)
    return Gap(
        symbol=symbol,
        stage=stage,
        code=outcome.code or "",
        cause=outcome.cause or "",
        retryable=bool(outcome.retryable),
        attempts=outcome.attempts,
        since=closed_at if heard is None else heard.time,
        next=_next(manifest, symbol, stage, outcome, heard, closed_at),
    )


def _next(
    manifest: RunManifest, symbol: str, stage: Stage, outcome: Outcome, heard: Heard | None, closed_at: datetime
) -> str:
    stated = (heard.failure or {}).get("fix") if heard is not None else None
    if isinstance(stated, str) and stated:
        return stated
    if outcome.code in _REFUSED_HERE:
        # The upstream refuses this place, not this symbol: signing for a whole universe is no way out.
        return f"asof retry {manifest.run_id}  # once the fetcher asks from a place that {outcome.host or 'it'} serves"
    if outcome.retryable or outcome.code == "dead_letter":
        return f"asof retry {manifest.run_id}"
    return _waiver(manifest, symbol, stage, closed_at)


def _waiver(manifest: RunManifest, symbol: str, stage: GapStage, closed_at: datetime) -> str:
    return (
        f"asof waive {manifest.run_id} --symbol {shlex.quote(symbol)} --stage {stage}"
        f' --reason "…" --approver NAME --expires {format_instant(closed_at + timedelta(days=30))[:10]}'
    )


def _attempts(tally: Tally) -> tuple[AttemptRow, ...]:
    """Summed by number. A retry's attempts count on from those before it, so that no wait for a person is in a span."""
    rows: list[AttemptRow] = []
    for number in range(tally.round):
        made = [one for one in tally.attempts.items() if _round_of(tally, one[1]) == number]
        before = len(rows)
        for idx in range(1, max((key[2] for key, _ in made), default=0) + 1):
            at_idx = [(key[0], attempt) for key, attempt in made if key[2] == idx]
            if at_idx:
                kinds = {
                    kind: _sum([attempt for other, attempt in at_idx if other == kind])
                    for kind in sorted({kind for kind, _ in at_idx})
                }
                summed = _sum([attempt for _, attempt in at_idx])
                rows.append(AttemptRow(idx=before + idx, kinds=kinds, **summed.model_dump()))
    return tuple(rows)


def _round_of(tally: Tally, attempt: Attempt) -> int:
    started = parse_instant(attempt.data["started_at"])
    return sum(started >= reopened for reopened in tally.reopened)


def _sum(attempts: list[Attempt]) -> KindAttempt:
    starts = [parse_instant(attempt.data["started_at"]) for attempt in attempts]
    ends = [
        start + timedelta(seconds=attempt.data["duration_s"]) for start, attempt in zip(starts, attempts, strict=True)
    ]
    return KindAttempt(
        fetched=sum(attempt.data["fetched"] for attempt in attempts),
        failed=sum(attempt.data["failed"] for attempt in attempts),
        duration_s=round((max(ends) - min(starts)).total_seconds(), 6),
    )


def _inputs(manifest: RunManifest, tally: Tally) -> dict[str, Input]:
    inputs = {}
    for symbol in manifest.expected:
        heard = tally.bars.get(symbol)
        if heard is not None and heard.ok and heard.evidence is not None:
            bars: Mapping[str, Any] = heard.evidence
            inputs[symbol] = Input(path=bars["path"], table_version=bars["table_version"], sha256=bars["sha256"])
    return inputs


def _files(files: Mapping[str, File], used: Collection[str]) -> tuple[FileRef, ...]:
    """Those that hold something the run counts: a file whose symbols were all asked for again is no result."""
    return tuple(FileRef.model_validate(files[path].ref) for path in sorted(files) if path in used)


def rules_of(rated: Mapping[str, Mapping[str, Any]]) -> list[Rules]:
    """The rules that made the staged rows; more than one is a fault that the gate names."""
    found = {(evidence["rules"]["name"], evidence["rules"]["version"]) for evidence in rated.values()}
    return [Rules(name=name, version=version) for name, version in sorted(found)]


def _rules(rated: Mapping[str, Mapping[str, Any]]) -> Rules | None:
    rules = rules_of(rated)
    return rules[0] if len(rules) == 1 else None
