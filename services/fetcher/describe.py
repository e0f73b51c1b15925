"""One attempt at a batch's metadata: the primary source describes, venues state their limits, both make a record."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from services.fetcher.domain.faults import UpstreamError
from services.fetcher.domain.record import Described, Hybrid, Limits, merge
from services.fetcher.ports import DescriptionSource, LimitsSource, RunMemory
from shared.events import FetchTask, SymbolMetadata
from shared.symbols import split_symbol

log = structlog.get_logger(__name__)


async def attempt_metadata(
    task: FetchTask,
    symbols: Sequence[str],
    *,
    descriptions: DescriptionSource,
    limits: Mapping[str, LimitsSource],
    memory: RunMemory,
) -> Mapping[str, UpstreamError]:
    """Describe all symbols at once, ask each venue once for its limits, and remember every record that came of it."""
    try:
        faults, observed = await observe(symbols, descriptions=descriptions, limits=limits)
    except UpstreamError as fault:
        return dict.fromkeys(symbols, fault)
    records: list[SymbolMetadata] = []
    for symbol, (known, hybrid) in observed.items():
        if hybrid.disagreements:
            log.info("sources_disagree", run_id=task.run_id, symbol=symbol, **hybrid.disagreements)
        records.append(
            SymbolMetadata(
                run_id=task.run_id,
                symbol=symbol,
                observed_at=known.observed_at,
                record=dict(hybrid.record),
                sources=hybrid.sources,
            )
        )
    await asyncio.to_thread(memory.note, task, *records)
    return faults


async def observe(
    symbols: Sequence[str], *, descriptions: DescriptionSource, limits: Mapping[str, LimitsSource]
) -> tuple[dict[str, UpstreamError], dict[str, tuple[Described, Hybrid]]]:
    """By symbol, the fault it met, or what was said of it and the record that comes of it.

    Raises UpstreamError for what concerns every symbol.
    """
    answers = await descriptions.describe(symbols)
    faults = {symbol: answer for symbol, answer in answers.items() if isinstance(answer, UpstreamError)}
    described = {symbol: answer for symbol, answer in answers.items() if isinstance(answer, Described)}
    by_venue: dict[str, dict[str, Described]] = {}
    for symbol, known in described.items():
        by_venue.setdefault(split_symbol(symbol).exchange, {})[symbol] = known
    asked = [(group, limits[exchange]) for exchange, group in by_venue.items() if exchange in limits]
    stated: dict[str, Limits] = {}
    for answered in await asyncio.gather(*(_limits(source, group) for group, source in asked)):
        faults |= {symbol: one for symbol, one in answered.items() if isinstance(one, UpstreamError)}
        stated |= {symbol: one for symbol, one in answered.items() if isinstance(one, Limits)}
    records = {
        symbol: (known, merge(known, stated.get(symbol))) for symbol, known in described.items() if symbol not in faults
    }
    return faults, records


async def _limits(source: LimitsSource, described: Mapping[str, Described]) -> Mapping[str, Limits | UpstreamError]:
    try:
        return await source.limits(described)
    except UpstreamError as fault:
        return dict.fromkeys(described, fault)
