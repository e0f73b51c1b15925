"""`retry`: a blocked run is opened again for what failed, and only for that."""

from __future__ import annotations

from datetime import timedelta

from services.auditor.domain.again import asked_again
from services.auditor.domain.chain import Entry
from services.auditor.domain.notes import Closed, Reopened
from services.auditor.handlers.answers import (
    Done,
    NotOurs,
    check_closed,
    check_not_granted,
    entries_of,
    references_of,
    result_of,
    run_of,
    said,
)
from services.auditor.handlers.desk import SOURCE, Desk
from services.auditor.handlers.verdict import preview, rule, waived_coverage
from services.auditor.ports import HeldRun
from shared.clock import format_instant
from shared.errors import ContractError
from shared.events import Command, Event


def retry(desk: Desk, command: Command, event: Event[Command]) -> Done:
    if event.source == SOURCE:
        # The auditor's own order to the fetcher, on the stream that both of them read.
        raise NotOurs
    run_id = run_of(command)
    with desk.runs.hold(run_id) as run:
        entered = desk.ledger.find(f"reopened:{command.command_id}")
        if entered is None:
            check_closed(run)
            check_not_granted(desk, run)
            if _late_results_complete(desk, run):
                ruling = rule(desk, run)
                message = f"nothing is asked for again, what was missing came late. {said(ruling)}"
                outcome = "done" if ruling.decision.granted else "refused"
                result = result_of(command, outcome, message, symbols=[], **references_of(ruling))
                return result, ruling.events, entries_of(ruling)
            entered = _reopen(desk, command, run)
        manifest = run.manifest
        assert manifest is not None, "a reopened run was opened"
        desk.memory.deadlines[run_id] = run.journal.deadline(manifest)
    again = {name: list(entered.data[name]) for name in ("metadata", "bars")}
    order = Command(
        command_id=f"{command.command_id[:56]}-order",
        kind="retry",
        run_id=run_id,
        arguments={
            **again,
            "round": entered.data["round"],
            "interval": manifest.interval,
            "as_of": format_instant(manifest.as_of),
        },
        requested_by=SOURCE,
    )
    symbols = {*again["metadata"], *again["bars"]}
    message = f"run {run_id} is open again for {len(symbols):,} symbols until {entered.data['deadline_at']}"
    result = result_of(
        command,
        "done",
        message,
        symbols=sorted(symbols),
        round=entered.data["round"],
        deadline_at=entered.data["deadline_at"],
    )
    return result, [desk.event(order, time=event.time)], []


def _late_results_complete(desk: Desk, run: HeldRun) -> bool:
    """Count what came after the run had closed, so that only what is missing is asked for; whether that is nothing."""
    if not run.journal.late:
        return False
    run.append([Closed(desk.clock(), "promote")])
    return preview(desk, run, ()).granted


def _reopen(desk: Desk, command: Command, run: HeldRun) -> Entry:
    manifest = run.manifest
    assert manifest is not None, "only an opened run is closed"
    run_id = run.run_id
    again = asked_again(waived_coverage(desk, run), run.journal.tally, desk.runs.wrong_file)
    if not again.symbols:
        raise ContractError(
            f"nothing of run {run_id} can be asked for again",
            cause="its open gaps are malformed candidates, or waived",
            fix=f"asof show {run_id}",
        )
    if manifest.bars == "lakehouse" and again.bars:
        raise ContractError(
            f"run {run_id} reads stored bars only, which the fetcher may not fetch for it",
            fix="start it again under another run id when the bars are there",
        )
    now = desk.clock()
    deadline_at = now + timedelta(seconds=desk.deadline_policy.seconds(len(again.symbols)))
    run.append([Reopened(now, command.requested_by, deadline_at, again.metadata, again.bars)])
    entry = desk.ledger.append(
        "reopened",
        key=f"reopened:{command.command_id}",
        run_id=run_id,
        time=now,
        data={
            "command_id": command.command_id,
            "requested_by": command.requested_by,
            "round": run.journal.tally.round,
            "deadline_at": format_instant(deadline_at),
            "metadata": list(again.metadata),
            "bars": list(again.bars),
        },
    )
    run.write_extract(desk.ledger.extract(run_id))
    return entry
