"""What every command has in common: the run it names, the checks, the form of its answer."""

from __future__ import annotations

from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.facts import last_decision
from services.auditor.handlers.verdict import Ruling
from services.auditor.ports import HeldRun
from shared.clock import format_instant
from shared.errors import ContractError, NotFoundError
from shared.events import Command, CommandResult

# The result, the other events that the command caused, and the decisions (ledger entries) among them.
Done = tuple[CommandResult, Events, list[int]]


class NotOurs(Exception):
    """A command on the shared stream that another service carries out."""


def run_of(command: Command) -> str:
    if command.run_id is None:
        raise ContractError(f"`{command.kind}` needs a run", fix="asof runs")
    return command.run_id


def check_closed(run: HeldRun) -> None:
    if run.manifest is None:
        raise NotFoundError(f"there is no run {run.run_id!r}", fix="asof runs")
    if run.journal.closed is None:
        raise ContractError(
            f"run {run.run_id} is still open",
            cause=f"{run.journal.tally.pending(run.manifest):,} outcomes are awaited until "
            f"{format_instant(run.journal.deadline(run.manifest))}",
            fix=f"asof show {run.run_id}, when it is closed",
        )


def check_not_granted(desk: Desk, run: HeldRun) -> None:
    decided = last_decision(desk, run.run_id)
    if decided is not None and decided.data["decision"] == "granted":
        raise ContractError(
            f"run {run.run_id} has no open gap", cause="its promotion is granted", fix=f"asof show {run.run_id}"
        )


def said(ruling: Ruling) -> str:
    return f"{ruling.decision.verdict}: {ruling.decision.reason}"


def entries_of(ruling: Ruling) -> list[int]:
    return [] if ruling.entry is None else [ruling.entry.n]


def references_of(ruling: Ruling) -> dict[str, str]:
    entry = {} if ruling.entry is None else {"ledger_head": ruling.entry.hash}
    return {"decision": ruling.decision.verdict, **entry}


def result_of(command: Command, outcome: str, message: str, **references: object) -> CommandResult:
    return CommandResult.model_validate(
        {
            "command_id": command.command_id,
            "kind": command.kind,
            "run_id": command.run_id,
            "outcome": outcome,
            "message": message,
            "references": references,
        }
    )
