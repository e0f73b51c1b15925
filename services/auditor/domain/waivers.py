"""Waivers accept that something is missing; they never let data in.

A run's waiver is bound to run, symbol, stage, error code and the evidence it was given on; it holds for later evidence
of the same run (after a retry, or with late results) where that gap is the same. A standing waiver (a halted stock) is
bound to symbol, stage and error code, for every run until it expires.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, ValidationError, field_validator

from services.auditor.domain.canonical import canonical, canonical_sha256
from services.auditor.domain.coverage import Coverage, Gap, GapStage, WaivedGap
from services.auditor.domain.model import Frozen
from shared.clock import format_instant, parse_instant
from shared.errors import ContractError
from shared.events import Name, explain

Text = Annotated[str, Field(min_length=1, max_length=500)]


class WaiverRequest(Frozen):
    """The arguments of a `waive` command. Without an offset `expires` is UTC.

    A run's waiver takes the code of the gap as it is; a standing one (no run) has to name it. `signature` is the
    approver's, ed25519 over `statement`, base64.
    """

    symbols: Annotated[tuple[str, ...], Field(min_length=1)]
    stage: GapStage
    reason: Text
    approver: Text
    expires: AwareDatetime
    code: Name | None = None
    preview: bool = False
    signature: str | None = None

    @field_validator("expires", mode="before")
    @classmethod
    def _utc(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_instant(value, name="expires")
        except ContractError as fault:
            raise ValueError(f"{fault.what}; {fault.fix}") from fault

    @field_validator("reason", "approver")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip(" .…-"):
            raise ValueError("is blank")
        return value.strip()


class Waiver(Frozen):
    """One accepted gap, as the ledger keeps it. `verified` is False where nobody can check the approver's name."""

    id: str
    run_id: str | None
    symbol: str
    stage: GapStage
    code: str
    evidence_sha256: str | None
    reason: str
    approver: str
    requested_by: str
    expires: AwareDatetime
    verified: bool = False

    def covers(self, gap: Gap, run_id: str) -> bool:
        mine = (self.symbol, self.stage, self.code) == (gap.symbol, gap.stage, gap.code)
        return mine and self.run_id in (None, run_id)


class Approvals(Frozen):
    """How many different people have to sign; of two, neither may be the one who asked for the run."""

    needed: Annotated[int, Field(ge=1, le=2)] = 1

    def valid(self, approvers: Collection[str], run_requested_by: str | None) -> bool:
        people = set(approvers)
        if self.needed > 1:
            people.discard(run_requested_by or "")
        return len(people) >= self.needed


def read_request(arguments: Any) -> WaiverRequest:
    try:
        return WaiverRequest.model_validate(arguments)
    except ValidationError as fault:
        raise ContractError(
            "the waiver cannot be read",
            cause=explain(fault),
            fix="asof waive RUN --symbol S --stage X --reason R --approver A --expires 2022-01-31",
        ) from fault


def statement(request: WaiverRequest, *, run_id: str | None, evidence_sha256: str | None) -> bytes:
    """What an approver signs."""
    return canonical(
        {
            "asof": "waiver",
            "run_id": run_id,
            "symbols": sorted(request.symbols),
            "stage": request.stage,
            "code": request.code,
            "evidence_sha256": evidence_sha256,
            "reason": request.reason,
            "approver": request.approver,
            "expires": format_instant(request.expires),
        }
    )


def grant(
    request: WaiverRequest, coverage: Coverage, *, requested_by: str, verified: bool, now: datetime
) -> tuple[Waiver, ...]:
    """One waiver for each symbol, or a ContractError that names every reason to refuse."""
    problems = _expired(request, now)
    by_symbol = {gap.symbol: gap for gap in coverage.gaps}
    gaps = []
    for symbol in request.symbols:
        gap = by_symbol.get(symbol)
        if gap is None:
            known = symbol in coverage.outcomes
            problems.append(f"{symbol} {'has no gap in' if known else 'is no candidate of'} run {coverage.run_id}")
        elif gap.stage != request.stage:
            problems.append(f"the gap of {symbol} is at stage {gap.stage} ({gap.code}), not {request.stage}")
        elif request.code not in (None, gap.code):
            problems.append(f"the gap of {symbol} is {gap.code}, not {request.code}")
        else:
            gaps.append(gap)
    if problems:
        raise ContractError(
            f"the waiver for run {coverage.run_id} is refused",
            cause="; ".join(problems[:10]),
            fix=f"asof show {coverage.run_id}",
        )
    return tuple(
        _waiver(request, gap.symbol, gap.code, coverage.run_id, coverage.evidence_sha256, requested_by, verified)
        for gap in gaps
    )


def grant_standing(request: WaiverRequest, *, requested_by: str, verified: bool, now: datetime) -> tuple[Waiver, ...]:
    """One waiver for each symbol that holds for every run until it expires."""
    problems = _expired(request, now)
    if request.code is None:
        problems.append("a standing waiver has to name the error code that it accepts")
    if request.stage == "candidates":
        problems.append("a malformed candidate has no symbol that another run could have")
    if problems or request.code is None:
        raise ContractError("the standing waiver is refused", cause="; ".join(problems), fix="asof waive --help")
    return tuple(
        _waiver(request, symbol, request.code, None, None, requested_by, verified) for symbol in request.symbols
    )


def _expired(request: WaiverRequest, now: datetime) -> list[str]:
    if request.expires > now:
        return []
    return [f"it expired at {format_instant(request.expires)}, before it was given"]


def _waiver(
    request: WaiverRequest,
    symbol: str,
    code: str,
    run_id: str | None,
    evidence_sha256: str | None,
    requested_by: str,
    verified: bool,
) -> Waiver:
    content: dict[str, Any] = {
        "run_id": run_id,
        "symbol": symbol,
        "stage": request.stage,
        "code": code,
        "evidence_sha256": evidence_sha256,
        "reason": request.reason,
        "approver": request.approver,
        "requested_by": requested_by,
    }
    name = canonical_sha256({**content, "expires": format_instant(request.expires)})
    return Waiver(id=f"w-{name[:16]}", expires=request.expires, verified=verified, **content)


def apply_waivers(
    coverage: Coverage,
    waivers: Iterable[Waiver],
    *,
    now: datetime,
    earlier: Collection[str] = (),
    approvals: Approvals | None = None,
    run_requested_by: str | None = None,
) -> tuple[WaivedGap, ...]:
    """The gaps that valid waivers cover, in the order of the gaps. Expired and foreign ones do not count.

    `earlier` are the hashes of the run's evidence in its earlier decisions.
    """
    approvals = approvals or Approvals()
    known = {None, coverage.evidence_sha256, *earlier}
    by_symbol: dict[str, list[Waiver]] = {}
    for waiver in sorted(waivers, key=lambda waiver: waiver.id):
        if waiver.expires > now and waiver.evidence_sha256 in known:
            by_symbol.setdefault(waiver.symbol, []).append(waiver)
    waived = []
    for gap in coverage.gaps:
        covering = [waiver for waiver in by_symbol.get(gap.symbol, ()) if waiver.covers(gap, coverage.run_id)]
        if covering and approvals.valid({waiver.approver for waiver in covering}, run_requested_by):
            waived.append(_waived(gap, covering))
    return tuple(waived)


def _waived(gap: Gap, covering: Sequence[Waiver]) -> WaivedGap:
    return WaivedGap(
        symbol=gap.symbol,
        stage=gap.stage,
        code=gap.code,
        waiver=covering[0].id,
        reason=covering[0].reason,
        approvers=tuple(sorted({waiver.approver for waiver in covering})),
        verified=all(waiver.verified for waiver in covering),
        expires=min(waiver.expires for waiver in covering),
    )
