"""One attempt at a batch's bars: what is newer than the stored bars is fetched, cleaned and written by symbol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.fetcher.domain.faults import NoBars, UpstreamError
from services.fetcher.domain.series import Series, clean, every_step, make_rows, missing_sessions
from services.fetcher.domain.sessions import Hours, Instants, from_seconds, read_hours
from services.fetcher.ports import BarsSent, BarsSource, BarStore, BarsWanted, Calendars, RunMemory
from shared.bars import Trading
from shared.clock import format_instant
from shared.errors import PipelineError
from shared.events import Bars, FetchTask
from shared.exchanges import EXCHANGES
from shared.symbols import split_symbol

log = structlog.get_logger(__name__)

_WRITES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class BarsFrom:
    """Where bars come from: a venue's own source by exchange, and one for every other."""

    venues: Mapping[str, BarsSource]
    others: BarsSource

    def of(self, symbol: str) -> BarsSource:
        return self.venues.get(split_symbol(symbol).exchange, self.others)


async def attempt_bars(
    task: FetchTask,
    symbols: Sequence[str],
    *,
    sources: BarsFrom,
    store: BarStore,
    calendars: Calendars,
    memory: RunMemory,
    workers: int,
) -> Mapping[str, PipelineError]:
    """Fetch what is newer than the stored bars, write each symbol as it completes, and remember it.

    When a bar of the overlap was revised, a split or a correction may reach further back: the whole history is fetched
    before anything is written, so that no stored series is half of one history and half of another.
    """
    last = await asyncio.to_thread(lambda: {symbol: store.last_bar(task.interval, symbol) for symbol in symbols})
    faults: dict[str, PipelineError] = {}
    revised: list[str] = []
    writing = asyncio.Semaphore(_WRITES_AT_ONCE)

    def keep(symbol: str, sent: BarsSent, *, whole: bool) -> Bars | None:
        """The stored bars, or None when the whole history has to be fetched first."""
        cleaned = clean_bars(task, symbol, sent)
        if whole or last[symbol] is None:
            return store_bars(task, symbol, sent, cleaned, store, calendars)
        compared = store.compare(task.interval, symbol, cleaned.series)
        if compared.revised:
            return None
        return store_bars(task, symbol, sent, cleaned, store, calendars, nothing_new=compared.added == 0)

    async def write(symbol: str, sent: BarsSent, *, whole: bool) -> None:
        try:
            bars = await asyncio.to_thread(keep, symbol, sent, whole=whole)
            if bars is None:
                revised.append(symbol)
            else:
                await asyncio.to_thread(memory.note, task, bars)
        except UpstreamError as fault:
            fault.host = fault.host or sent.host
            faults[symbol] = fault
        except PipelineError as fault:
            faults[symbol] = fault
        finally:
            writing.release()

    async def fetch(wanted: Sequence[BarsWanted], *, whole: bool) -> None:
        by_source: dict[int, tuple[BarsSource, list[BarsWanted]]] = {}
        for want in wanted:
            source = sources.of(want.symbol)
            by_source.setdefault(id(source), (source, []))[1].append(want)
        async with asyncio.TaskGroup() as writes:

            async def sink(symbol: str, outcome: BarsSent | UpstreamError) -> None:
                if isinstance(outcome, NoBars) and last[symbol] is not None:
                    outcome = _nothing_new(outcome, task)
                if isinstance(outcome, UpstreamError):
                    faults[symbol] = outcome
                    return
                # The next series travels while this one is written; the semaphore bounds what waits in memory.
                await writing.acquire()
                writes.create_task(write(symbol, outcome, whole=whole))

            await asyncio.gather(
                *(source.fetch(group, sink, workers=task.workers or workers) for source, group in by_source.values())
            )

    try:
        await fetch([_since(task, symbol, last[symbol]) for symbol in symbols], whole=False)
        if revised:
            log.info("bars_revised", run_id=task.run_id, symbols=revised)
            await fetch([_since(task, symbol, None) for symbol in revised], whole=True)
    except BaseExceptionGroup as group:
        # The bus decides by the class of one error; the first one is the cause, the others were cancelled.
        raise group.exceptions[0] from group
    return faults


def _since(task: FetchTask, symbol: str, last: datetime | None) -> BarsWanted:
    # A run may end before the newest stored bar; what it asks for ends where it does.
    return BarsWanted(symbol, task.interval, None if last is None else min(last, task.as_of), task.as_of)


def _nothing_new(fault: NoBars, task: FetchTask) -> BarsSent:
    return BarsSent(make_rows([]), fault.host or "", task.as_of, warnings=(f"nothing new: {fault.what}",))


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A series that may be stored, and by which hours and calendar it was read."""

    series: Series
    hours: Hours | None
    timezone: str | None
    session: str | None
    calendar: str | None


def clean_bars(task: FetchTask, symbol: str, sent: BarsSent) -> Cleaned:
    known = EXCHANGES.get(split_symbol(symbol).exchange)
    timezone = sent.timezone or (known.timezone if known else None)
    session = sent.session or (known.session if known else None)
    hours = read_hours(timezone, session)
    series = clean(sent.rows, interval=task.interval, hours=hours, cutoff=_cutoff(task, sent))
    return Cleaned(series, hours, timezone, session, known.calendar if known else None)


def _cutoff(task: FetchTask, sent: BarsSent) -> datetime:
    return min(task.as_of, sent.observed_at)


def store_bars(
    task: FetchTask,
    symbol: str,
    sent: BarsSent,
    cleaned: Cleaned,
    store: BarStore,
    calendars: Calendars,
    *,
    nothing_new: bool = False,
) -> Bars:
    """Write one series, unless all of it is stored. Raises NoBars when nothing of it may be used and nothing is."""
    series = cleaned.series
    if len(series.index) == 0 and not nothing_new and store.last_bar(task.interval, symbol) is None:
        until = format_instant(_cutoff(task, sent))
        raise NoBars(f"no bar is final by {until}", symbol=symbol, host=sent.host)
    gap = _gap(series.index, task.interval, cleaned.calendar, cleaned.hours, calendars)
    if nothing_new:
        written = store.stored(task.interval, symbol)
    else:
        trading = Trading(cleaned.timezone, cleaned.session, cleaned.calendar)
        written = store.write(task.interval, symbol, series, run_id=task.run_id, trading=trading)
    return Bars(
        symbol=symbol,
        path=written.path,
        table_version=written.version,
        sha256=written.sha256,
        rows=written.rows,
        first_bar=written.first_bar,
        last_bar=written.last_bar,
        added=written.added,
        revised=written.revised,
        timezone=cleaned.timezone,
        session=cleaned.session,
        calendar=cleaned.calendar,
        warnings=(*sent.warnings, *series.warnings, *((gap,) if gap else ())),
    )


def _gap(index: Instants, interval: str, calendar: str | None, hours: Hours | None, calendars: Calendars) -> str | None:
    if len(index) < 2:
        return None
    if hours is not None and hours.opens is None:
        return missing_sessions(index, every_step(index, interval))
    if calendar is None or interval != "1d":
        return None
    expected = calendars.sessions(calendar, from_seconds(index[0]), from_seconds(index[-1]))
    return missing_sessions(index, expected) if expected is not None else None
