"""A run as the auditor opened it: what it expects, until when, and which versions it started from."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

from pydantic import AwareDatetime

from services.auditor.domain.model import Frozen
from shared.candidates import parse_candidates
from shared.errors import ContractError
from shared.events import FileRef, RunCandidates, Stage, Versions

STAGES: tuple[Stage, ...] = ("metadata", "bars", "validation", "ratings")


class MalformedItem(Frozen):
    """A candidate that could not be read: its position or key in what was sent, and why."""

    index: int | str
    reason: str


class DeadlinePolicy(Frozen):
    """How long silence is no gap yet: `base_s` + `per_symbol_s` for each symbol, at most `longest_s`."""

    base_s: float
    per_symbol_s: float
    longest_s: float

    def seconds(self, symbols: int) -> float:
        return min(self.base_s + self.per_symbol_s * symbols, self.longest_s)


class RunManifest(Frozen):
    """`runs/<run>/manifest.json`. `content_sha256` is over what was asked: a run id with another one is refused."""

    version: Literal[1] = 1
    run_id: str
    profile: str
    interval: str
    rules: str
    stages: tuple[Stage, ...]
    bars: Literal["hydrate", "lakehouse"]
    strict: bool
    strict_scope: bool
    as_of: AwareDatetime
    opened_at: AwareDatetime
    deadline_s: float
    deadline_at: AwareDatetime
    base: Versions
    expected: tuple[str, ...]
    malformed: tuple[MalformedItem, ...]
    candidates: FileRef
    content_sha256: str
    event_id: str
    requested_by: str | None

    @cached_property
    def expected_set(self) -> frozenset[str]:
        return frozenset(self.expected)


def content_sha256(asked: RunCandidates) -> str:
    """Over all that shapes the run; who asked does not."""
    return hashlib.sha256(asked.model_dump_json(exclude={"requested_by", "run_id"}).encode()).hexdigest()


def open_run(
    asked: RunCandidates,
    *,
    run_id: str,
    event_id: str,
    event_time: datetime,
    now: datetime,
    base: Versions,
    candidates: FileRef,
    deadlines: DeadlinePolicy,
    default_exchange: str | None,
) -> RunManifest:
    """What the auditor will hold the run to. Raises ContractError when it names no candidate at all."""
    parsed = parse_candidates(asked.candidates, default_exchange=default_exchange)
    deadline_s = asked.deadline_s or deadlines.seconds(len(parsed.items))
    return RunManifest(
        run_id=run_id,
        profile=asked.profile,
        interval=asked.interval,
        rules=asked.rules,
        stages=expected_stages(asked),
        bars=asked.bars,
        strict=asked.strict,
        strict_scope=asked.strict_scope,
        as_of=asked.as_of or event_time,
        opened_at=now,
        deadline_s=deadline_s,
        deadline_at=now + timedelta(seconds=deadline_s),
        base=base,
        expected=parsed.symbols,
        malformed=tuple(MalformedItem(index=item.index, reason=item.reason) for item in parsed.malformed),
        candidates=candidates,
        content_sha256=content_sha256(asked),
        event_id=event_id,
        requested_by=asked.requested_by,
    )


def expected_stages(asked: RunCandidates) -> tuple[Stage, ...]:
    """The stages that have to end in an outcome. Ratings need bars and their validation, whoever reads the bars."""
    wanted: set[Stage] = set()
    if "metadata" in asked.stages:
        wanted.add("metadata")
    if "bars" in asked.stages:
        wanted.add("bars")
    if "ratings" in asked.stages:
        wanted |= {"bars", "validation", "ratings"}
    return tuple(stage for stage in STAGES if stage in wanted)


def check_same(manifest: RunManifest, asked: RunCandidates) -> None:
    """Refuse a run id that is taken by other content."""
    if content_sha256(asked) != manifest.content_sha256:
        raise ContractError(
            f"run {manifest.run_id} exists with other content",
            cause=f"it was opened at {manifest.opened_at.isoformat()} with {len(manifest.expected):,} symbols, "
            f"content {manifest.content_sha256[:12]}…; this one has content {content_sha256(asked)[:12]}…",
            fix="choose another --run-id",
        )
