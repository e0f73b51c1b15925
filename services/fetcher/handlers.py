"""Events in, facts from upstreams out. A run is planned into batches; a batch is attempted while retrying may help.

Everything a batch achieves is remembered at once, so that a batch that is delivered again, to this replica or another,
asks upstreams only for what is still open, and says again what it said before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from services.fetcher.domain.attempts import Backoff
from services.fetcher.domain.faults import failure_of
from services.fetcher.domain.plan import BatchSizes, plan_tasks
from services.fetcher.ports import RetryBudget, RunMemory
from shared.candidates import parse_candidates
from shared.clock import Clock
from shared.errors import ContractError, PipelineError
from shared.events import (
    BarsHydrated,
    Event,
    ExchangeMetadata,
    Failure,
    FetchAttempted,
    FetchTask,
    RunCandidates,
    SymbolMetadata,
)
from shared.exchanges import EXCHANGES
from shared.symbols import split_symbol

SOURCE = "fetcher"
Events = list[Event[Any]]
# One attempt at some symbols of a task: the faults of those that did not come. What came is in the memory by then.
Attempt = Callable[[FetchTask, Sequence[str]], Awaitable[Mapping[str, PipelineError]]]
Sleep = Callable[[float], Awaitable[None]]


async def plan_run(
    event: Event[RunCandidates],
    *,
    memory: RunMemory,
    clock: Clock,
    batch_sizes: BatchSizes,
    default_exchange: str | None,
) -> Events:
    """The run's tasks. The same content again gives the same tasks, whose batches are then found done.

    Raises ContractError for a run id that was used with other content, and when there are no candidates at all.
    Malformed candidates are the auditor's to report.
    """
    run = event.data
    if run.run_id is None:
        raise ContractError("a run without a run_id", fix="publish it on run-candidates, where the bus gives it one")
    candidates = parse_candidates(run.candidates, default_exchange=default_exchange)
    plan = await asyncio.to_thread(memory.plan, run.run_id, run, run.as_of or event.time)
    tasks = plan_tasks(run, run_id=run.run_id, symbols=candidates.symbols, as_of=plan.as_of, batch_sizes=batch_sizes)
    now = clock()
    return [Event.of(task, source=SOURCE, time=now, subject=run.run_id) for task in tasks]


@dataclass(frozen=True, slots=True)
class Attempts:
    """What bounds the attempts of a batch; sleep and random are passed in, so that tests do not wait."""

    backoff: Backoff
    clock: Clock
    random: Random
    budget: RetryBudget
    sleep: Sleep = asyncio.sleep


async def fetch(
    event: Event[FetchTask], *, memory: RunMemory, attempts: Attempts, metadata: Attempt, bars: Attempt
) -> Events:
    """Carry one batch as far as it goes: an outcome for every symbol, and every attempt reported."""
    task = event.data
    attempt = metadata if task.kind == "metadata" else bars
    failures = await _attempt_all(task, memory, attempts, attempt)
    done = await asyncio.to_thread(memory.finished, task)
    now = attempts.clock()
    published: Events = [Event.of(made, source=SOURCE, time=now, subject=task.run_id) for made in done.attempts]
    if task.kind == "bars":
        hydrated = BarsHydrated(
            run_id=task.run_id,
            batch=task.batch,
            interval=task.interval,
            hydrated=tuple(done.bars[symbol] for symbol in task.symbols if symbol in done.bars),
            failures=failures,
        )
        return [*published, Event.of(hydrated, source=SOURCE, time=now, subject=task.run_id)]
    observed = [done.metadata[symbol] for symbol in task.symbols if symbol in done.metadata]
    return [
        *_exchanges(observed, now),
        *(Event.of(one, source=SOURCE, time=now, subject=one.symbol) for one in observed),
        *published,
    ]


async def _attempt_all(task: FetchTask, memory: RunMemory, bounds: Attempts, attempt: Attempt) -> dict[str, Failure]:
    """Attempt what is open until it came, was refused, or the attempts are used up. Returns the final failures."""
    done = await asyncio.to_thread(memory.finished, task)
    final: dict[str, Failure] = {}
    open_symbols = [s for s in task.symbols if s not in done.metadata and s not in done.bars]
    for made in done.attempts:
        # What an earlier delivery learned for good is not asked again.
        final |= {
            symbol: failure
            for symbol, failure in made.failures.items()
            if symbol in open_symbols and (not failure.retryable or made.idx >= bounds.backoff.attempts)
        }
    open_symbols = [symbol for symbol in open_symbols if symbol not in final]
    for idx in range(len(done.attempts) + 1, bounds.backoff.attempts + 1):
        if not open_symbols:
            break
        started_at = bounds.clock()
        faults = await attempt(task, open_symbols)
        failures = {
            symbol: failure_of(fault, attempts=idx, fix=_next_command(task, fault)) for symbol, fault in faults.items()
        }
        report = FetchAttempted(
            run_id=task.run_id,
            kind=task.kind,
            batch=task.batch,
            idx=idx,
            fetched=len(open_symbols) - len(failures),
            failed=len(failures),
            started_at=started_at,
            duration_s=max((bounds.clock() - started_at).total_seconds(), 0.0),
            failures=failures,
        )
        final |= failures
        retried = [symbol for symbol, fault in faults.items() if bounds.backoff.may_retry(fault)]
        if idx == bounds.backoff.attempts or not retried or not await bounds.budget.take(task.run_id, len(retried)):
            retried = []
        ended = {symbol: failure for symbol, failure in failures.items() if symbol not in retried}
        outcomes = _failed_metadata(task, ended, bounds.clock()) if task.kind == "metadata" else []
        await asyncio.to_thread(memory.note, task, *outcomes, report)
        open_symbols = retried
        if retried:
            final = {symbol: failure for symbol, failure in final.items() if symbol not in retried}
            await bounds.sleep(bounds.backoff.wait(idx, bounds.random))
    return final


def _next_command(task: FetchTask, fault: PipelineError) -> str | None:
    if not fault.retryable:
        return fault.fix
    again = f"asof retry {task.run_id}"
    return f"{fault.fix}, then {again}" if fault.fix else again


def _failed_metadata(task: FetchTask, failures: Mapping[str, Failure], now: datetime) -> list[SymbolMetadata]:
    return [
        SymbolMetadata(run_id=task.run_id, symbol=symbol, observed_at=now, failure=failure)
        for symbol, failure in failures.items()
    ]


def _exchanges(observed: Sequence[SymbolMetadata], now: datetime) -> Events:
    """What is known of the exchanges of the symbols that came, at the earliest instant one of them was seen."""
    seen: dict[str, SymbolMetadata] = {}
    for one in sorted((o for o in observed if o.record is not None), key=lambda o: o.observed_at, reverse=True):
        seen[split_symbol(one.symbol).exchange] = one
    return [
        Event.of(
            ExchangeMetadata(
                records=(
                    {
                        "exchange": known.exchange,
                        "country": known.country,
                        "timezone": known.timezone,
                        "is_crypto": known.is_crypto,
                        "description": known.description,
                    },
                ),
                observed_at=one.observed_at,
                source="exchanges",
                run_id=one.run_id,
            ),
            source=SOURCE,
            time=now,
            subject=exchange,
        )
        for exchange, one in sorted(seen.items())
        if (known := EXCHANGES.get(exchange)) is not None
    ]
