"""What people ask of the auditor. Each command ends in one command-result: done, refused with why, or failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from services.auditor.domain.coverage import read_coverage
from services.auditor.domain.notes import Closed
from services.auditor.handlers.answers import (
    Done,
    NotOurs,
    check_closed,
    entries_of,
    references_of,
    result_of,
    run_of,
    said,
)
from services.auditor.handlers.desk import Desk, Events
from services.auditor.handlers.facts import last_decision
from services.auditor.handlers.hushing import acknowledge, silence
from services.auditor.handlers.retrying import retry
from services.auditor.handlers.rollback import rollback
from services.auditor.handlers.verdict import rule
from services.auditor.handlers.waiving import waive
from shared.errors import ContractError, IntegrityError, NotFoundError
from shared.events import Command, Event, RunCandidates


async def obey(event: Event[Command], *, desk: Desk) -> Events:
    """Carry out a command that is the auditor's; every other kind is somebody else's."""
    command: Command = event.data
    act = _COMMANDS.get(command.kind)
    if act is None:
        return []
    events, decisions = await asyncio.to_thread(_carry_out, act, desk, command, event)
    desk.mark_sent(decisions)
    return events


Act = Callable[[Desk, Command, Event[Command]], Done]


def _carry_out(act: Act, desk: Desk, command: Command, event: Event[Command]) -> tuple[Events, list[int]]:
    try:
        result, events, decisions = act(desk, command, event)
    except (ContractError, NotFoundError) as fault:
        result, events, decisions = result_of(command, "refused", str(fault)), [], []
    except NotOurs:
        return [], []
    except IntegrityError as fault:
        result, events, decisions = result_of(command, "failed", str(fault)), [], []
    desk.note_alerts(events)
    return [*events, desk.event(result)], decisions


def _promote(desk: Desk, command: Command, event: Event[Command]) -> Done:
    with desk.runs.hold(run_of(command)) as run:
        check_closed(run)
        before = last_decision(desk, run.run_id)
        late = len(run.journal.late)
        if late and (before is None or before.data["decision"] == "blocked"):
            run.append([Closed(desk.clock(), "promote")])
        ruling = rule(desk, run)
    taken = f" ({late:,} late results were taken in)" if late and run.journal.late == {} else ""
    outcome = "done" if ruling.decision.granted else "refused"
    message = f"{said(ruling)}{taken}"
    if not ruling.decision.granted:
        message += f". Next: asof show {run.run_id}"
    return result_of(command, outcome, message, **references_of(ruling)), ruling.events, entries_of(ruling)


def _refresh(desk: Desk, command: Command, event: Event[Command]) -> Done:
    arguments = dict(command.arguments)
    symbols = desk.tables.active_symbols(desk.clock())
    if not symbols:
        raise NotFoundError("the catalog has no active symbol", fix="asof run FILE, with the candidates to begin with")
    run_id = command.run_id or f"refresh-{command.command_id[:40].replace('.', '-')}"
    asked = RunCandidates.model_validate(
        {
            "candidates": symbols,
            "run_id": run_id,
            "stages": ["metadata"],
            "requested_by": command.requested_by,
            **{name: arguments[name] for name in ("profile", "workers", "deadline_s") if arguments.get(name)},
        }
    )
    started = desk.event(asked, time=event.time)
    message = f"run {run_id} asks for the metadata of {len(symbols):,} active symbols"
    return result_of(command, "done", message, run_id=run_id, symbols=len(symbols)), [started], []


def _report(desk: Desk, command: Command, event: Event[Command]) -> Done:
    with desk.runs.hold(run_of(command)) as run:
        check_closed(run)
        entries = [entry for entry in desk.ledger.of_run(run.run_id) if entry.kind != "reported"]
        manifest, data = run.manifest, run.coverage()
        assert manifest is not None, "a closed run was opened"
        if data is None or not any(entry.kind == "decided" for entry in entries):
            raise ContractError(f"run {run.run_id} is not decided yet", fix=f"asof promote {run.run_id}")
        coverage = read_coverage(data, name=f"runs/{run.run_id}/feature_ingest_coverage.json", manifest=manifest)
        written = run.write_report(desk.reporter.render(manifest, coverage, entries))
        entry = desk.ledger.append(
            "reported",
            key=f"reported:{run.run_id}:{written.sha256}",
            run_id=run.run_id,
            time=desk.clock(),
            data={"report": written.model_dump(mode="json", exclude_none=True), "up_to": entries[-1].n},
        )
        run.write_extract(desk.ledger.extract(run.run_id))
    message = f"{written.path} proves the ledger up to entry {entries[-1].n}; entry {entry.n} records its hash"
    return result_of(command, "done", message, path=written.path, sha256=written.sha256), [], []


_COMMANDS: Mapping[str, Act] = {
    "waive": waive,
    "promote": _promote,
    "retry": retry,
    "refresh": _refresh,
    "report": _report,
    "ack": acknowledge,
    "silence": silence,
    "rollback": rollback,
}
