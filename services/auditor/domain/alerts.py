"""What the person on duty gets: one alert for each cause, naming what, which symbols, since when, and what to do."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from services.auditor.domain.coverage import Coverage, Gap
from services.auditor.domain.gate import Decision
from shared.clock import format_instant, parse_instant
from shared.events import Alert

_NAMED = 40  # symbols that one alert spells out


def fingerprint(labels: Mapping[str, str]) -> str:
    """Sixteen hex digits that identify a problem by its labels."""
    text = "\n".join(f"{key}={labels[key]}" for key in sorted(labels))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def alert(
    labels: Mapping[str, str],
    *,
    summary: str,
    error: str,
    next_command: str,
    starts_at: datetime,
    run_id: str | None = None,
    ledger_head: str | None = None,
    ends_at: datetime | None = None,
    **annotations: str,
) -> Alert:
    return Alert(
        status="firing" if ends_at is None else "resolved",
        fingerprint=fingerprint(labels),
        labels=dict(labels),
        annotations={"summary": summary, **annotations},
        starts_at=starts_at,
        ends_at=ends_at,
        error=error,
        next_command=next_command,
        run_id=run_id,
        ledger_head=ledger_head,
    )


def blocked_alerts(coverage: Coverage, decision: Decision, *, ledger_head: str) -> list[Alert]:
    """One for the blocked run, then one for each cause among its open gaps."""
    run_id = coverage.run_id
    alerts = [
        alert(
            _blocked_labels(coverage),
            summary=f"run {run_id} is blocked: {decision.reason}",
            error=_summed_up(coverage) if decision.code in ("gaps", "strict") else decision.reason,
            next_command=_way_out(coverage, decision.code),
            starts_at=coverage.closed_at,
            run_id=run_id,
            ledger_head=ledger_head,
            code=decision.code,
        )
    ]
    for gaps in grouped(open_gaps(coverage)):
        alerts.append(_gap_alert(coverage, gaps, ledger_head))
    return alerts


def raised(alerts: Iterable[Alert]) -> list[dict[str, Any]]:
    """What the ledger keeps of a decision's alerts, so that a later decision can end them."""
    return [{"labels": dict(alert.labels), "starts_at": format_instant(alert.starts_at)} for alert in alerts]


def resolved_alerts(
    before: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
    *,
    run_id: str,
    why: str,
    at: datetime,
    ledger_head: str,
) -> list[Alert]:
    """Ends what an earlier decision raised and this one does not raise any more."""
    still = {fingerprint(item["labels"]) for item in now}
    return [
        alert(
            item["labels"],
            summary=_ended(item["labels"], why),
            error="none",
            next_command=f"asof show {run_id}",
            starts_at=parse_instant(item["starts_at"]),
            ends_at=at,
            run_id=run_id,
            ledger_head=ledger_head,
        )
        for item in before
        if fingerprint(item["labels"]) not in still
    ]


def _ended(labels: Mapping[str, str], why: str) -> str:
    if labels["alertname"] == "CoverageGap":
        return f"run {labels['run_id']} has no open gap at {labels['stage']} ({labels['code']}) any more: {why}"
    return f"run {labels['run_id']} is not blocked any more: {why}"


def open_gaps(coverage: Coverage) -> list[Gap]:
    waived = {gap.symbol for gap in coverage.waived}
    return [gap for gap in coverage.gaps if gap.symbol not in waived]


def grouped(gaps: Iterable[Gap]) -> list[list[Gap]]:
    """Gaps of one cause together: same stage, same code."""
    groups: dict[tuple[str, str], list[Gap]] = {}
    for gap in gaps:
        groups.setdefault((gap.stage, gap.code), []).append(gap)
    return [groups[key] for key in sorted(groups)]


def _gap_alert(coverage: Coverage, gaps: list[Gap], ledger_head: str) -> Alert:
    first = gaps[0]
    causes = sorted({gap.cause for gap in gaps})
    named = " ".join(gap.symbol for gap in gaps[:_NAMED])
    more = f" and {len(gaps) - _NAMED:,} more" if len(gaps) > _NAMED else ""
    since = min(gap.since for gap in gaps)
    return alert(
        _gap_labels(coverage, first),
        summary=f"{_count(gaps)} of run {coverage.run_id} failed at {first.stage} ({first.code}): {named}{more}",
        error=_errors(gaps),
        next_command=command_for(coverage.run_id, gaps),
        starts_at=since,
        run_id=coverage.run_id,
        ledger_head=ledger_head,
        symbols=named + more,
        stage=first.stage,
        code=first.code,
        cause=causes[0] if len(causes) == 1 else f"{len(causes)} causes, the first: {causes[0]}",
        retryable="yes" if first.retryable else "no",
        since=format_instant(since),
    )


def _summed_up(coverage: Coverage) -> str:
    counts = ((gaps[0].stage, gaps[0].code, _count(gaps)) for gaps in grouped(open_gaps(coverage)))
    return "; ".join(f"{stage} {code}: {count}" for stage, code, count in counts)


def _errors(gaps: list[Gap]) -> str:
    if len(gaps) > 1 and len({gap.cause for gap in gaps}) == 1:
        return f"{gaps[0].cause} (each of the {len(gaps):,})"
    more = f"; and {len(gaps) - 3:,} more" if len(gaps) > 3 else ""
    return "; ".join(f"{gap.symbol}: {gap.cause}" for gap in gaps[:3]) + more


def command_for(run_id: str, gaps: Sequence[Gap]) -> str:
    """The one command that deals with gaps of one cause: their own when they agree, one waiver for all, else show."""
    commands = {gap.next for gap in gaps}
    if len(commands) == 1:
        return commands.pop()
    if len(gaps) <= _NAMED and all(gap.next.startswith("asof waive ") for gap in gaps):
        head, _, tail = gaps[0].next.partition(f"--symbol {shlex.quote(gaps[0].symbol)} ")
        return f"{head}--symbol {shlex.quote(','.join(gap.symbol for gap in gaps))} {tail}"
    return f"asof show {run_id}"


def _way_out(coverage: Coverage, code: str) -> str:
    run_id = coverage.run_id
    return {
        "ledger_broken": "asof audit ledger",
        "manifest_changed": _another_run(coverage),
        "coverage_changed": f"asof promote {run_id}",
        "staged_changed": f"asof retry {run_id}",
        "mixed_rules": f"asof retry {run_id}",
        "base_moved": _another_run(coverage),
    }.get(code, f"asof show {run_id}")


def _another_run(coverage: Coverage) -> str:
    """The same candidates under another run id, from now on; a shell finds the house as asof does."""
    asked = {
        "profile": (coverage.profile, "default"),
        "interval": (coverage.interval, "1d"),
        "rules": (coverage.rules.name if coverage.rules else "screener", "screener"),
        "stages": (",".join(stage for stage in coverage.stages if stage != "validation"), "metadata,bars,ratings"),
    }
    options = "".join(f" --{name} {value}" for name, (value, usual) in asked.items() if value != usual)
    file = f'"${{ASOF_HOME:-data}}/runs/{coverage.run_id}/candidates.json"'
    return f"asof run {file} --run-id {coverage.run_id[:58]}-again{options}"


def _count(gaps: list[Gap]) -> str:
    return "1 symbol" if len(gaps) == 1 else f"{len(gaps):,} symbols"


def _blocked_labels(coverage: Coverage) -> dict[str, str]:
    return {"alertname": "PromotionBlocked", "run_id": coverage.run_id, "profile": coverage.profile, "severity": "page"}


def _gap_labels(coverage: Coverage, gap: Gap) -> dict[str, str]:
    return {
        "alertname": "CoverageGap",
        "run_id": coverage.run_id,
        "profile": coverage.profile,
        "stage": gap.stage,
        "code": gap.code,
        "severity": "page",
    }
