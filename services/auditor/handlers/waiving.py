"""`waive`: somebody accepts that symbols are missing, in one run or in every run until a date."""

from __future__ import annotations

from collections.abc import Sequence

from services.auditor.domain.chain import Entry
from services.auditor.domain.waivers import Waiver, WaiverRequest, grant, grant_standing, read_request, statement
from services.auditor.handlers.answers import (
    Done,
    check_closed,
    check_not_granted,
    entries_of,
    references_of,
    result_of,
    said,
)
from services.auditor.handlers.desk import Desk
from services.auditor.handlers.verdict import preview, rule, waived_coverage
from shared.clock import format_instant
from shared.errors import ContractError
from shared.events import Command, Event


def waive(desk: Desk, command: Command, event: Event[Command]) -> Done:
    request = read_request(command.arguments)
    if command.run_id is None:
        return _waive_standing(desk, command, request)
    with desk.runs.hold(command.run_id) as run:
        check_closed(run)
        coverage = waived_coverage(desk, run)
        entered = desk.ledger.find(f"waived:{command.command_id}")
        if entered is None:
            check_not_granted(desk, run)
            signed = statement(request, run_id=run.run_id, evidence_sha256=coverage.evidence_sha256)
            verified = not request.preview and _verified(desk, request, signed)
            waivers = grant(request, coverage, requested_by=command.requested_by, verified=verified, now=desk.clock())
            if request.preview:
                decision = preview(desk, run, waivers)
                message = f"with this waiver the gate would say {decision.verdict}: {decision.reason}"
                return result_of(command, "done", message, decision=decision.verdict, preview=True), [], []
            entered = _enter_waivers(desk, command, waivers)
        ruling = rule(desk, run)
    ids = [waiver["id"] for waiver in entered.data["waivers"]]
    message = f"{len(ids):,} waived for run {run.run_id}{_unverified(entered)}. {said(ruling)}"
    return result_of(command, "done", message, waivers=ids, **references_of(ruling)), ruling.events, entries_of(ruling)


def _waive_standing(desk: Desk, command: Command, request: WaiverRequest) -> Done:
    if request.preview:
        raise ContractError(
            "a standing waiver belongs to no run that could be previewed", fix="asof waive RUN --preview"
        )
    entered = desk.ledger.find(f"waived:{command.command_id}")
    if entered is None:
        verified = _verified(desk, request, statement(request, run_id=None, evidence_sha256=None))
        waivers = grant_standing(request, requested_by=command.requested_by, verified=verified, now=desk.clock())
        entered = _enter_waivers(desk, command, waivers)
    ids = [waiver["id"] for waiver in entered.data["waivers"]]
    until = format_instant(request.expires)
    message = (
        f"{len(ids):,} standing waivers until {until}{_unverified(entered)}; every decision from now on counts them. "
        "Next: asof promote RUN, for a run that is blocked already"
    )
    return result_of(command, "done", message, waivers=ids), [], []


def _enter_waivers(desk: Desk, command: Command, waivers: Sequence[Waiver]) -> Entry:
    return desk.ledger.append(
        "waived",
        key=f"waived:{command.command_id}",
        run_id=command.run_id,
        time=desk.clock(),
        data={
            "command_id": command.command_id,
            "requested_by": command.requested_by,
            "signature": command.arguments.get("signature"),
            "waivers": [waiver.model_dump(mode="json") for waiver in waivers],
        },
    )


def _verified(desk: Desk, request: WaiverRequest, signed: bytes) -> bool:
    if desk.approvers is None:
        return False
    desk.approvers.check(request.approver, signed, request.signature)
    return True


def _unverified(entered: Entry) -> str:
    verified = all(waiver["verified"] for waiver in entered.data["waivers"])
    return "" if verified else " (the approver's name is not verified: no keys are set up)"
