"""What the fetcher does on command: discover a universe, say what upstreams say today, fetch again what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.fetcher.describe import observe
from services.fetcher.domain.discovery import SCREENER, read_discovery
from services.fetcher.domain.faults import UpstreamError, failure_of
from services.fetcher.domain.plan import BatchSizes, plan_tasks
from services.fetcher.domain.record import Described, merge
from services.fetcher.ports import DescriptionSource, Documents, LimitsSource, Universe
from shared.clock import Clock, format_instant
from shared.errors import ContractError, PipelineError
from shared.events import Command, CommandResult, Event, RunCandidates, UniverseSnapshot, explain
from shared.symbols import Symbol, check_symbol

SOURCE = "fetcher"
AUDITOR = "auditor"
ROUND_BATCHES = 10_000  # more batches than a round of 100,000 candidates can have
Events = list[Event[Any]]
Done = tuple[CommandResult, Events]
Act = Callable[[Command], Awaitable[Done]]
Presets = Mapping[str, Mapping[str, Any]]
MAX_AUDITED = 20_000


async def carry_out(
    event: Event[Command], *, acts: Mapping[str, Callable[[Command], Awaitable[Done]]], clock: Clock
) -> Events:
    """The result of a command that is the fetcher's; other services' commands are theirs to answer."""
    command = event.data
    act = acts.get(command.kind)
    if act is None or (command.kind == "retry" and event.source != AUDITOR):
        return []  # a person's retry is the auditor's to judge; its own order follows
    try:
        result, published = await act(command)
    except PipelineError as fault:
        outcome = "refused" if isinstance(fault, ContractError) else "failed"
        result, published = _result(command, outcome, str(fault), code=fault.code, retryable=fault.retryable), []
    return [*published, Event.of(result, source=SOURCE, time=clock(), subject=command.command_id)]


async def discover(
    command: Command,
    *,
    universe: Universe,
    limits: Mapping[str, LimitsSource],
    documents: Documents,
    presets: Presets,
    clock: Clock,
) -> Done:
    """Write a candidates file; a whole exchange also goes to the catalog, where what is absent from it is retired."""
    asked = read_discovery(command.arguments, presets)
    discovered = await universe.discover(asked, SCREENER)
    found = discovered.symbols
    if not found:
        raise ContractError("nothing matches", cause=asked.model_dump_json(exclude_none=True), fix="widen the filters")
    observed_at = max(one.observed_at for one in found)
    candidates = {
        "meta": {
            "source": "scanner",
            "observed_at": format_instant(observed_at),
            "query": asked.model_dump(exclude_none=True),
        },
        "data": [{"symbol": one.symbol, "metadata": {**one.fields, **one.screener}} for one in found],
    }
    file = await asyncio.to_thread(documents.write_json, f"candidates-{command.command_id}", candidates)
    message, published = f"{len(found):,} symbols found", []
    if asked.whole_exchange() and discovered.complete and asked.exchange is not None:
        records = await _records(found, limits.get(asked.exchange))
        snapshot = UniverseSnapshot(
            exchange=asked.exchange,
            observed_at=observed_at,
            records=await asyncio.to_thread(documents.write_records, f"universe-{command.command_id}", records),
            source="scanner",
        )
        published = [Event.of(snapshot, source=SOURCE, time=clock(), subject=asked.exchange)]
        message += f"; {asked.exchange} handed to the catalog"
    return _result(command, "done", message, path=file.path, sha256=file.sha256, symbols=len(found)), published


async def _records(found: Sequence[Described], venue: LimitsSource | None) -> list[dict[str, Any]]:
    """Whole records. In a snapshot a field that is not stated is null, so a venue that fails ends the command."""
    stated = await venue.limits({one.symbol: one for one in found}) if venue is not None else {}
    records = []
    for one in found:
        limits = stated.get(one.symbol)
        if isinstance(limits, UpstreamError):
            raise limits
        records.append({"symbol": one.symbol, **merge(one, limits).record})
    return records


async def audit_metadata(
    command: Command,
    *,
    descriptions: DescriptionSource,
    limits: Mapping[str, LimitsSource],
    documents: Documents,
    batch_size: int,
) -> Done:
    """What upstreams say today of `arguments.symbols`, as a file that the asker compares with the catalog.

    The records are made as a run's are; the catalog is not told.
    """
    named = command.arguments.get("symbols")
    if not isinstance(named, list) or not 0 < len(named) <= MAX_AUDITED:
        raise ContractError(f"audit-metadata needs 1 to {MAX_AUDITED:,} symbols", fix="name them")
    symbols = list(dict.fromkeys(check_symbol(str(one)) for one in named))
    records: list[dict[str, Any]] = []
    failures: dict[str, Any] = {}
    for start in range(0, len(symbols), batch_size):
        batch = symbols[start : start + batch_size]
        faults, observed = await observe(batch, descriptions=descriptions, limits=limits)
        for symbol, fault in faults.items():
            failures[symbol] = failure_of(fault, attempts=1).model_dump(mode="json", exclude_none=True)
        for symbol, (known, hybrid) in observed.items():
            said = {"observed_at": format_instant(known.observed_at), "sources": hybrid.sources}
            records.append({"symbol": symbol, **said, "record": hybrid.record})
    content = {"records": records, "failures": failures}
    file = await asyncio.to_thread(documents.write_json, f"metadata-{command.command_id}", content)
    message = f"{len(records):,} symbols described, {len(failures):,} failed"
    return _result(command, "done", message, path=file.path, sha256=file.sha256), []


class RetryOrder(BaseModel):
    """What the auditor orders: the symbols to fetch again in each kind of work, for the run as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metadata: tuple[Symbol, ...] = ()
    bars: tuple[Symbol, ...] = ()
    round: Annotated[int, Field(ge=1, le=100_000)]
    interval: str
    as_of: AwareDatetime


async def retry(command: Command, *, batch_sizes: BatchSizes, clock: Clock) -> Done:
    """Tasks for what failed. Batches are numbered on from the round, so that none is taken for one that is done."""
    try:
        order = RetryOrder.model_validate(command.arguments)
    except ValidationError as fault:
        raise ContractError("this is no order to fetch again", cause=explain(fault)) from fault
    if command.run_id is None:
        raise ContractError("an order to fetch again names no run")
    run = RunCandidates(run_id=command.run_id, interval=order.interval)
    tasks = [
        task.model_copy(update={"batch": order.round * ROUND_BATCHES + task.batch})
        for symbols, kind in ((order.metadata, "metadata"), (order.bars, "bars"))
        for task in plan_tasks(
            run.model_copy(update={"stages": (kind,)}),
            run_id=command.run_id,
            symbols=symbols,
            as_of=order.as_of,
            batch_sizes=batch_sizes,
        )
    ]
    now = clock()
    published: Events = [Event.of(task, source=SOURCE, time=now, subject=command.run_id) for task in tasks]
    return _result(command, "done", f"{len(tasks)} batches to fetch again", round=order.round), published


def _result(command: Command, outcome: Any, message: str, **references: Any) -> CommandResult:
    return CommandResult(
        command_id=command.command_id,
        kind=command.kind,
        run_id=command.run_id,
        outcome=outcome,
        message=message,
        references=references,
    )
