"""Observations in, versions committed, `catalog-updated` out. One commit takes a whole batch of events."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.catalog.domain.decide import Batch, UpsertResult
from services.catalog.ports import Catalog, Exports, ImportPlan, Lease, RunViews
from shared.clock import Clock, format_instant, parse_instant
from shared.errors import CommitConflict, ContractError, DamagedState, IntegrityError, NotFoundError, StaleEpochError
from shared.events import (
    CatalogUpdated,
    Command,
    CommandResult,
    Event,
    ExchangeMetadata,
    Failure,
    FileRef,
    PromotionDecided,
    SymbolMetadata,
    UniverseSnapshot,
)

SOURCE = "catalog"
_LEASES = 20
Events = list[Event[Any]]


@dataclass(frozen=True)
class Desk:
    """What the handlers work with. `writing` lets one commit at a time out of this process, and `lease` out of all,
    to spare retries."""

    symbols: Catalog
    exchanges: Catalog
    views: RunViews
    exports: Exports
    clock: Clock
    read_universe: Callable[[FileRef], list[dict[str, Any]]]
    plan_import: Callable[[str], Sequence[ImportPlan]]
    lease: Lease
    writing: asyncio.Lock


async def commit(catalog: Catalog, batches: Sequence[Batch], desk: Desk) -> list[UpsertResult]:
    """Apply batches as the one writer. Who was paused until another took the lease takes it again and decides anew.

    Raises DamagedState for a table that cannot be read: no event is to blame, and none can be applied.
    """
    for _ in range(_LEASES):
        async with desk.lease.held(catalog.epoch) as epoch:
            try:
                return await asyncio.to_thread(catalog.apply, batches, epoch=epoch)
            except StaleEpochError:
                continue
            except IntegrityError as fault:
                raise DamagedState.of(fault) from fault
    raise CommitConflict(
        "the catalog could not be written", cause=f"the lease was lost {_LEASES} times", fix="asof doctor"
    )


async def observe(events: Sequence[Event[SymbolMetadata]], *, desk: Desk) -> Events:
    """Version what was observed and keep what each run saw. A named failure is the auditor's, not the catalog's."""
    seen = [event for event in events if event.data.record is not None]
    if not seen:
        return []
    async with desk.writing:
        results = await commit(desk.symbols, [_batch(event, desk) for event in seen], desk)
        return await asyncio.to_thread(_observed, seen, results, desk)


def _observed(seen: Sequence[Event[SymbolMetadata]], results: Sequence[UpsertResult], desk: Desk) -> Events:
    runs: dict[str, list[tuple[Event[SymbolMetadata], UpsertResult]]] = {}
    for event, result in zip(seen, results, strict=True):
        runs.setdefault(event.data.run_id, []).append((event, result))
    return [_updated(run_id, observed, desk) for run_id, observed in runs.items()]


def _batch(event: Event[SymbolMetadata], desk: Desk) -> Batch:
    data = event.data
    record: dict[str, Any] = {**(data.record or {}), "symbol": data.symbol, "sources": data.sources}
    source = next(iter(data.sources.values()), None)
    return Batch("upsert", [record], desk.clock(), data.observed_at, "keep", event.id, data.run_id, source)


def _updated(run_id: str, observed: Sequence[tuple[Event[SymbolMetadata], UpsertResult]], desk: Desk) -> Event[Any]:
    groups: dict[str, list[str]] = {"inserted": [], "changed": [], "unchanged": []}
    rejected: dict[str, Failure] = {}
    seen = []
    for event, result in observed:
        symbol = event.data.symbol
        for name, group in groups.items():
            group.extend(getattr(result, name))
        for reason in result.rejected.values():
            rejected[symbol] = Failure(code="invalid_record", message=reason, retryable=False, fix=f"asof get {symbol}")
        record = None if result.rejected else desk.symbols.left_by(symbol, event.id)
        if record is not None:
            seen.append((event.data.observed_at, record))
    # Named after the events, so that a batch delivered twice is one file.
    part = hashlib.sha256("".join(event.id for event, _ in observed).encode()).hexdigest()[:16]
    data = CatalogUpdated(
        run_id=run_id,
        catalog_version=max(result.version for _, result in observed),
        inserted=tuple(groups["inserted"]),
        changed=tuple(groups["changed"]),
        unchanged=tuple(groups["unchanged"]),
        rejected=rejected,
        metadata=desk.views.keep(run_id, part, seen) if seen else None,
    )
    return Event.of(data, source=SOURCE, time=desk.clock(), subject=run_id)


async def observe_exchanges(event: Event[ExchangeMetadata], *, desk: Desk) -> Events:
    data = event.data
    batch = Batch("upsert", data.records, desk.clock(), data.observed_at, "keep", event.id, data.run_id, data.source)
    async with desk.writing:
        await commit(desk.exchanges, [batch], desk)
    return []


async def take_snapshot(event: Event[UniverseSnapshot], *, desk: Desk) -> Events:
    """A full universe: what is absent was delisted."""
    data = event.data
    async with desk.writing:
        records = await asyncio.to_thread(desk.read_universe, data.records)
        batch = Batch(
            "snapshot",
            records,
            desk.clock(),
            data.observed_at,
            event_id=event.id,
            run_id=data.run_id,
            source=data.source,
            exchange=data.exchange,
        )
        await commit(desk.symbols, [batch], desk)
        await asyncio.to_thread(desk.exports.refresh)
    return []


async def obey(event: Event[Command], *, desk: Desk) -> Events:
    """`retire`, `rename` and `import`; other kinds are other services'."""
    act = {"retire": _retire, "rename": _rename, "import": _import}.get(event.data.kind)
    return [] if act is None else [await act(event, desk)]


async def _retire(event: Event[Command], desk: Desk) -> Event[Any]:
    symbols = event.data.arguments.get("symbols")
    if not isinstance(symbols, list) or not symbols:
        return _answer(event, "refused", "retire names no symbols; next: asof retire SYMBOL…", {}, desk)
    result = await _carried_out("retire", [{"symbol": symbol} for symbol in symbols], event, desk)
    refused = {str(symbol): reason for symbol, reason in result.rejected.items()}
    text = f"{len(result.changed)} retired, {len(result.unchanged)} were retired before"
    if refused:
        text += "; refused: " + ", ".join(f"{symbol} ({reason})" for symbol, reason in refused.items())
    outcome = "refused" if refused and not result.changed and not result.unchanged else "done"
    references = {"retired": list(result.changed), "refused": refused, "catalog_version": result.version}
    return _answer(event, outcome, text, references, desk)


async def _rename(event: Event[Command], desk: Desk) -> Event[Any]:
    """`old` is called `new` from `at` on, by default from when the command was given."""
    given = event.data.arguments
    old, new, at = (given.get(name) for name in ("old", "new", "at"))
    try:
        effective = event.time if at is None else parse_instant(str(at), name="at")
    except ContractError as fault:
        return _answer(event, "refused", str(fault), {}, desk)
    record = {"symbol": old, "renamed_to": new}
    result = await _carried_out("rename", [record], event, desk, effective)
    for reason in result.rejected.values():
        return _answer(event, "refused", f"{old} cannot be renamed to {new}: {reason}; next: asof get {old}", {}, desk)
    references = {"old": old, "new": new, "at": format_instant(effective), "catalog_version": result.version}
    return _answer(event, "done", f"{old} is {new} from {format_instant(effective)} on", references, desk)


async def _carried_out(
    kind: Literal["retire", "rename"],
    records: Sequence[Mapping[str, Any]],
    event: Event[Command],
    desk: Desk,
    at: datetime | None = None,
) -> UpsertResult:
    batch = Batch(kind, records, desk.clock(), at or event.time, "keep", event.id, event.data.run_id)
    async with desk.writing:
        (result,) = await commit(desk.symbols, [batch], desk)
        await asyncio.to_thread(desk.exports.refresh)
    return result


async def _import(event: Event[Command], desk: Desk) -> Event[Any]:
    """Take over an existing house: `folder`; without `apply` only say what would be taken and what is refused."""
    folder, apply = event.data.arguments.get("folder"), event.data.arguments.get("apply") is True
    if not isinstance(folder, str) or not folder:
        return _answer(event, "refused", "import names no folder; next: asof import DIR", {}, desk)
    async with desk.writing:
        try:
            plans = await asyncio.to_thread(desk.plan_import, folder)
        except (ContractError, NotFoundError) as fault:
            return _answer(event, "refused", str(fault), {}, desk)
        for plan in plans if apply else ():
            await commit(plan.catalog, plan.batches, desk)
        reports = [plan.done() if apply else plan.report for plan in plans]
        if apply:
            await asyncio.to_thread(desk.exports.refresh)
    refused = sum(len(report.refused) for report in reports)
    text = ("taken over" if apply else "would be taken over") + (f"; {refused} refused by name" if refused else "")
    return _answer(event, "done", text, {"files": [report.as_dict() for report in reports]}, desk)


def _answer(event: Event[Command], outcome: Any, message: str, references: Mapping[str, Any], desk: Desk) -> Event[Any]:
    command = event.data
    data = CommandResult(
        command_id=command.command_id,
        kind=command.kind,
        run_id=command.run_id,
        outcome=outcome,
        message=message,
        references=dict(references),
    )
    return Event.of(data, source=SOURCE, time=desk.clock(), subject=command.command_id)


async def close_run(event: Event[PromotionDecided], *, desk: Desk) -> Events:
    """The run is over: one file of what it saw, the exports, and, when granted, a tag that keeps its version."""
    data = event.data
    async with desk.writing:
        await asyncio.to_thread(desk.views.assemble, data.run_id)
        await asyncio.to_thread(desk.exports.refresh)
        if data.decision == "granted" and data.catalog_version:
            await asyncio.to_thread(desk.symbols.tag, f"run-{data.run_id}", data.catalog_version)
    return []
