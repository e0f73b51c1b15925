"""The coverage artifact, `runs/<run>/feature_ingest_coverage.json`: what became of every candidate in every stage.

`evidence_sha256` is over everything that the run itself produced: all fields but the hash and the three that follow
from waivers. Waivers are bound to it, so that accepting a gap does not change what was accepted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from services.auditor.domain.canonical import canonical_sha256
from services.auditor.domain.manifest import MalformedItem, RunManifest
from services.auditor.domain.model import Frozen
from services.auditor.domain.notes import ClosedBy
from shared.errors import IntegrityError
from shared.events import FileRef, Rules, Stage, Versions, explain

Share = Annotated[float, Field(ge=0, le=1)]
GapStage = Literal["candidates", "metadata", "bars", "validation", "ratings"]


class Outcome(Frozen):
    """One symbol in one stage. `skipped` names the stage that failed before it; `code` and `cause` are then its own."""

    status: Literal["ok", "failed", "skipped"]
    code: str | None = None
    cause: str | None = None
    retryable: bool | None = None
    attempts: Annotated[int, Field(ge=1)] | None = None
    host: str | None = None
    http_status: int | None = None
    after: Stage | None = None
    quarantine: FileRef | None = None


class Input(Frozen):
    """The bars a symbol's ratings were computed from: a version of its table and the hash of that version's rows."""

    path: str
    table_version: int
    sha256: str


class Gap(Frozen):
    """One candidate that is not covered, at the first stage it failed in, and the command that deals with it.

    `symbol` of a malformed candidate is `#<index>`.
    """

    symbol: str
    stage: GapStage
    code: str
    cause: str
    retryable: bool
    attempts: Annotated[int, Field(ge=1)] | None = None
    since: AwareDatetime
    next: str


class KindAttempt(Frozen):
    fetched: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    duration_s: Annotated[float, Field(ge=0)]


class AttemptRow(KindAttempt):
    """Attempt `idx` over all batches: sums, and the time from the first start to the last end. `kinds` splits it."""

    idx: Annotated[int, Field(ge=1)]
    kinds: dict[str, KindAttempt] = Field(default_factory=dict)


class WaivedGap(Frozen):
    """A gap that somebody signed for."""

    symbol: str
    stage: GapStage
    code: str
    waiver: str
    reason: str
    approvers: tuple[str, ...]
    verified: bool
    expires: AwareDatetime


@dataclass(frozen=True, slots=True)
class Figures:
    """A run's coverage in few words. `gaps`: candidates of each stage, waived ones included."""

    covered: float
    covered_with_waivers: float
    gaps: Mapping[GapStage, int]


class Coverage(Frozen):
    version: Literal[1] = 1
    run_id: str
    profile: str
    interval: str
    rules: Rules | None = None
    as_of: AwareDatetime
    round: Annotated[int, Field(ge=1)]
    opened_at: AwareDatetime
    deadline_at: AwareDatetime
    closed_at: AwareDatetime
    closed_by: ClosedBy
    stages: tuple[Stage, ...]
    base: Versions
    catalog_version: Annotated[int, Field(ge=0)]
    expected: tuple[str, ...]
    malformed: tuple[MalformedItem, ...]
    attempts: tuple[AttemptRow, ...]
    failed_symbols: tuple[str, ...]
    outcomes: dict[str, dict[Stage, Outcome]]
    gaps: tuple[Gap, ...]
    inputs: dict[str, Input]
    warnings: dict[str, tuple[str, ...]]
    metadata_files: tuple[FileRef, ...]
    staged: tuple[FileRef, ...]
    covered: Share
    evidence_sha256: str
    waived: tuple[WaivedGap, ...] = ()
    covered_with_waivers: Share
    counts: dict[str, int]

    @property
    def covered_symbols(self) -> tuple[str, ...]:
        """In the order of `expected`."""
        missing = {gap.symbol for gap in self.gaps}
        return tuple(symbol for symbol in self.expected if symbol not in missing)

    def figures(self) -> Figures:
        gaps = Counter(gap.stage for gap in self.gaps)
        return Figures(self.covered, self.covered_with_waivers, {stage: gaps[stage] for stage in get_args(GapStage)})

    @model_validator(mode="after")
    def _adds_up(self) -> Coverage:
        total = len(self.expected) + len(self.malformed)
        missing = {gap.symbol for gap in self.gaps}
        if len(missing) != len(self.gaps):
            raise ValueError("a candidate has more than one gap")
        if not total:
            raise ValueError("it expects no candidate")
        if self.outcomes.keys() != set(self.expected):
            raise ValueError("outcomes and expected symbols differ")
        if self.covered != figure(total - len(missing), total):
            raise ValueError(f"covered is {self.covered}, its gaps make it {figure(total - len(missing), total)}")
        open_gaps = missing - {waived.symbol for waived in self.waived}
        if self.covered_with_waivers != figure(total - len(open_gaps), total):
            raise ValueError(f"covered_with_waivers is {self.covered_with_waivers}, its gaps and waivers differ")
        return self


EVIDENCE_EXCLUDES = {"evidence_sha256", "waived", "covered_with_waivers", "counts"}


def figure(covered: int, total: int) -> float:
    """A share that is 1 only when nothing is missing."""
    return 1.0 if covered == total else min(round(covered / total, 6), 0.999999)


def evidence_of(coverage: Coverage) -> str:
    return canonical_sha256(coverage.model_dump(mode="json", exclude_none=True, exclude=EVIDENCE_EXCLUDES))


def with_waivers(coverage: Coverage, waived: tuple[WaivedGap, ...]) -> Coverage:
    """The same evidence with these gaps accepted."""
    total = len(coverage.expected) + len(coverage.malformed)
    open_gaps = {gap.symbol for gap in coverage.gaps} - {gap.symbol for gap in waived}
    counts = {**coverage.counts, "waived": len(waived), "open_gaps": len(open_gaps)}
    return coverage.model_copy(
        update={
            "waived": waived,
            "covered_with_waivers": figure(total - len(open_gaps), total),
            "counts": counts,
        }
    )


def to_bytes(coverage: Coverage) -> bytes:
    return coverage.model_dump_json(exclude_none=True, indent=1).encode() + b"\n"


def read_coverage(data: bytes, *, name: str, manifest: RunManifest | None = None) -> Coverage:
    """Read an artifact and check that it adds up. Raises IntegrityError, with the reason, where it does not."""
    fix = f"asof promote {manifest.run_id}" if manifest else "asof promote RUN writes it anew from the run's journal"
    if not data.strip():
        raise IntegrityError(f"{name} is empty", fix=fix)
    try:
        coverage = Coverage.model_validate_json(data)
    except ValidationError as fault:
        raise IntegrityError(f"{name} is no coverage artifact", cause=explain(fault), fix=fix) from fault
    if evidence_of(coverage) != coverage.evidence_sha256:
        raise IntegrityError(f"{name} was changed", cause="its content does not have its evidence_sha256", fix=fix)
    if manifest is not None and (coverage.run_id, coverage.expected) != (manifest.run_id, manifest.expected):
        raise IntegrityError(f"{name} is of another run or expects other symbols than the manifest", fix=fix)
    return coverage
