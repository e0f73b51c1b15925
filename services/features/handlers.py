"""Events in, staged rows and promoted versions out. Nothing is stored before it was validated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from services.features.domain.parity import summary
from services.features.domain.runs import RunRecord, record_run
from services.features.ports import FeatureStore, Receipt, Workspace
from services.features.staging import Stage, stage_batch
from shared.candidates import parse_candidates
from shared.clock import Clock
from shared.errors import ContractError, IntegrityError, TerminalError
from shared.events import (
    BarsHydrated,
    Event,
    Failure,
    FeaturesPromoted,
    PromotionDecided,
    RatingsComputed,
    Rejected,
    RunCandidates,
)

log = structlog.get_logger(__name__)

SOURCE = "features"
Events = list[Event[Any]]


async def open_run(
    event: Event[RunCandidates], *, stage: Stage, clock: Clock, default_exchange: str | None, batch_size: int
) -> Events:
    """Open the run's workspace with the candidates' current values; rate stored bars when the run asks for those.

    Raises ContractError for a run id that is taken by other content, for unknown rules, and when there are no
    candidates at all. Malformed candidates are the auditor's to report.
    """
    run = event.data
    if run.run_id is None:
        raise ContractError("a run without a run_id", fix="publish it on run-candidates, where the bus gives it one")
    candidates = parse_candidates(run.candidates, default_exchange=default_exchange)
    stored = run.bars == "lakehouse" and "ratings" in run.stages
    pins, unreadable = (
        await asyncio.to_thread(stage.bars.newest, run.interval, candidates.symbols) if stored else ({}, {})
    )
    continues = await asyncio.to_thread(stage.histories.newest, run.interval, run.rules)
    record = record_run(
        run,
        candidates,
        run_id=run.run_id,
        event_time=event.time,
        pins=pins,
        unreadable=unreadable,
        continues=continues,
    )
    record = await asyncio.to_thread(stage.workspace.open, record)
    if not stored:
        return []
    published = []
    for number, start in enumerate(range(0, len(record.symbols), batch_size)):
        symbols = record.symbols[start : start + batch_size]
        said = await asyncio.to_thread(_rate_stored, stage, record, number, event.id, symbols)
        published.append(said)
        if record.strict and said.rejected:
            break
    return [_event(said, clock) for said in published]


def _rate_stored(stage: Stage, record: RunRecord, batch: int, event_id: str, symbols: Sequence[str]) -> RatingsComputed:
    wanted, missing = [], {}
    for symbol in symbols:
        if symbol not in record.pins:
            missing[symbol] = _not_stored(record, symbol)
            continue
        try:
            wanted.append(stage.bars.pinned(record.interval, symbol, record.pins[symbol]))
        except TerminalError as fault:
            missing[symbol] = _rejected(fault.code, str(fault), fault.fix)
    return stage_batch(stage, record, batch=batch, event_id=event_id, wanted=wanted, missing=missing)


def _not_stored(record: RunRecord, symbol: str) -> Rejected:
    if symbol in record.unreadable:
        return _rejected(IntegrityError.code, record.unreadable[symbol], "asof audit bars")
    return _rejected(
        "not_stored",
        f"no {record.interval} bars of {symbol} are stored, and the run reads stored bars only",
        "asof run FILE under another run id without --bars lakehouse, to fetch them",
    )


def _rejected(code: str, message: str, fix: str | None) -> Rejected:
    return Rejected(stage="bars", failure=Failure(code=code, message=message[:2000], retryable=False, fix=fix))


async def rate_batch(event: Event[BarsHydrated], *, stage: Stage, clock: Clock) -> Events:
    """Rate one hydrated batch. Raises TransientError when the run's own event was not read yet."""
    hydrated = event.data
    record = await asyncio.to_thread(stage.workspace.record, hydrated.run_id)
    if not record.rated or not hydrated.hydrated:
        return []
    if hydrated.interval != record.interval:
        raise ContractError(
            f"run {record.run_id} is of {record.interval} bars, its batch {hydrated.batch} of {hydrated.interval}",
            fix="asof retry RUN",
        )
    said = await asyncio.to_thread(
        stage_batch, stage, record, batch=hydrated.batch, event_id=event.id, wanted=hydrated.hydrated
    )
    return [_event(said, clock)]


async def promote(event: Event[PromotionDecided], *, workspace: Workspace, store: FeatureStore, clock: Clock) -> Events:
    """Merge what was granted, write the plain files, and put the run's own rows together whatever was decided."""
    decided = event.data
    record = await asyncio.to_thread(workspace.record, decided.run_id)
    try:
        await asyncio.to_thread(workspace.assemble, decided.run_id)
    except TerminalError as fault:
        if decided.decision == "granted":
            raise
        # What stands in the way of a blocked run may be this very file: the decision names it.
        log.warning("the rows of a blocked run cannot be put together", run_id=decided.run_id, cause=str(fault))
    if decided.decision != "granted" or not decided.staged:
        return []
    receipts = await asyncio.to_thread(workspace.receipts, decided.run_id)
    granted = frozenset(decided.symbols)
    parity = [one for receipt in receipts for one in receipt.parity if one.symbol in granted]
    merged = await asyncio.to_thread(
        store.merge,
        decided,
        strict_scope=record.strict_scope,
        parity=summary(parity),
        ratings=_how_rated(record, receipts, granted),
    )
    await asyncio.to_thread(store.export, decided.interval, decided.rules.name)
    promoted = FeaturesPromoted(
        run_id=decided.run_id,
        interval=decided.interval,
        rules=decided.rules,
        feature_version=merged.version,
        parent=merged.parent,
        catalog_version=decided.catalog_version,
        symbols=merged.symbols,
        rows=merged.rows,
    )
    return [_event(promoted, clock)]


def _how_rated(record: RunRecord, receipts: Sequence[Receipt], granted: frozenset[str]) -> dict[str, object]:
    """How many of the granted symbols went on from which feature version, how many were computed from their whole
    history, and which of these why, although something of them was kept. The later batch counts."""
    continued: dict[str, bool] = {}
    rebuilt: dict[str, str] = {}
    for receipt in receipts:
        for one in receipt.said.staged:
            continued[one.symbol] = one.symbol in receipt.continued
            rebuilt.pop(one.symbol, None)
        rebuilt |= receipt.rebuilt
    count = sum(continued[symbol] for symbol in continued.keys() & granted)
    return {
        "continued": count,
        "computed": len(granted) - count,
        "continues": record.continues,
        "rebuilt": {symbol: why for symbol, why in sorted(rebuilt.items()) if symbol in granted},
    }


def _event(payload: RatingsComputed | FeaturesPromoted, clock: Clock) -> Event[Any]:
    return Event.of(payload, source=SOURCE, time=clock(), subject=payload.run_id)
