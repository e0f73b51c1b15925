"""What every exchange connector has in common: lists of instruments by market, limits from them, bars one by one.

A connector is a file with a `connect` function that returns a `Venue`; `venues.py` names them all. See docs/venues.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from services.fetcher.adapters.http import Caps, HttpUpstream
from services.fetcher.adapters.instruments import Instrument, InstrumentList, Known
from services.fetcher.domain.faults import Garbled, UnknownSymbol, Unsupported, UpstreamError
from services.fetcher.domain.pace import VenuePace
from services.fetcher.domain.record import Described, Limits
from services.fetcher.domain.sessions import interval_seconds
from services.fetcher.ports import BarsSent, BarsSink, BarsWanted, Pace
from shared.clock import Clock
from shared.symbols import encode_symbol, split_symbol

PERPETUAL = ".P"
MAX_PAGES = 500


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a connector is built from. `fresh_s`: how long a list serves; `overlap`: stored bars to ask for again."""

    client: httpx.AsyncClient
    pace: Pace
    clock: Clock
    caps: Caps
    cache: Path
    fresh_s: float
    overlap: int
    paces: dict[str, VenuePace]

    def upstream(
        self,
        venue: str,
        url: str,
        *,
        pace: VenuePace | None = None,
        used_header: str | None = None,
        forbidden_pause_s: float | None = None,
    ) -> HttpUpstream:
        """`pace` is for a venue that `domain/pace.py` does not name; what a test or an operator gave goes before it."""
        if pace is not None:
            self.paces.setdefault(venue, pace)
        return HttpUpstream(
            self.client, venue, url, self.pace, self.clock, self.caps,
            used_header=used_header, forbidden_pause_s=forbidden_pause_s,
        )  # fmt: skip

    def instruments(
        self, name: str, upstream: HttpUpstream, load: Callable[[], Awaitable[tuple[Instrument, ...]]]
    ) -> InstrumentList:
        # The host is part of the name: what a replay said is no answer of the exchange itself.
        file = self.cache / f"{name}-{encode_symbol(upstream.host)}.json"
        return InstrumentList(file, load, self.clock, fresh_s=self.fresh_s)


@dataclass(frozen=True)
class Venue:
    """One exchange as a source of limits and of bars.

    `markets_of`: the lists a ticker may stand in; a perpetual's are never the spot's. `series`: all bars of one
    instrument that are wanted; it raises an UpstreamError.
    """

    name: str
    exchanges: tuple[str, ...]
    lists: Mapping[str, InstrumentList]
    markets_of: Callable[[str], tuple[str, ...]]
    series: Callable[[Instrument, BarsWanted], Awaitable[BarsSent]]

    async def limits(self, described: Mapping[str, Described]) -> Mapping[str, Limits | UpstreamError]:
        """A symbol that stands in none of its lists is absent: unknown."""
        found = await self._find(list(described))
        stated: dict[str, Limits | UpstreamError] = {}
        for symbol, one in found.items():
            if isinstance(one, UpstreamError):
                stated[symbol] = one
            elif one is not None:
                stated[symbol] = one.limits
        return stated

    async def fetch(self, wanted: Sequence[BarsWanted], sink: BarsSink, *, workers: int) -> None:
        found = await self._find([want.symbol for want in wanted])
        waiting = deque(wanted)

        async def work() -> None:
            while waiting:
                want = waiting.popleft()
                await sink(want.symbol, await self._bars(found[want.symbol], want))

        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, min(workers, len(wanted)))):
                group.create_task(work())

    async def _bars(self, found: Instrument | UpstreamError | None, want: BarsWanted) -> BarsSent | UpstreamError:
        if isinstance(found, UpstreamError):
            return found
        if found is None:
            return UnknownSymbol(f"{self.name} lists no such instrument", symbol=want.symbol, host=self.name)
        try:
            return await self.series(found, want)
        except UpstreamError as fault:
            return fault

    async def _find(self, symbols: Sequence[str]) -> dict[str, Instrument | UpstreamError | None]:
        """Each symbol's instrument, None where no list has it, or the fault of a list that could not be had."""
        markets = sorted({market for symbol in symbols for market in self.markets_of(split_symbol(symbol).ticker)})
        lists = dict(zip(markets, await asyncio.gather(*map(self._list, markets)), strict=True))
        return {symbol: self._find_one(split_symbol(symbol).ticker, lists) for symbol in symbols}

    def _find_one(self, ticker: str, lists: Mapping[str, Known | UpstreamError]) -> Instrument | UpstreamError | None:
        missing: UpstreamError | None = None
        for market in self.markets_of(ticker):
            known = lists[market]
            if isinstance(known, UpstreamError):
                missing = known
                continue
            found = known.instruments.get(ticker)
            if found is not None and known.stale_s is not None:
                return replace(found, limits=replace(found.limits, stale_s=known.stale_s))
            if found is not None:
                return found
        return missing

    async def _list(self, market: str) -> Known | UpstreamError:
        try:
            return await self.lists[market].get()
        except UpstreamError as fault:
            return fault


def perpetual(ticker: str) -> bool:
    return ticker.endswith(PERPETUAL)


def interval_name(names: Mapping[str, str], want: BarsWanted, host: str) -> str:
    """What the venue calls an interval. Raises Unsupported with the ones it has."""
    try:
        return names[want.interval]
    except KeyError:
        raise Unsupported(
            f"{host} serves no {want.interval} bars", symbol=want.symbol, host=host,
            fix=f"use one of {', '.join(names)}",
        ) from None  # fmt: skip


def window_ms(want: BarsWanted, overlap: int) -> tuple[int, int]:
    """From the overlap before the last stored bar (or the beginning) to `until`, in milliseconds."""
    since = 0 if want.since is None else int(want.since.timestamp()) - overlap * interval_seconds(want.interval)
    return max(since, 0) * 1000, int(want.until.timestamp() * 1000)


def kline(item: Any, host: str, *, volume: int = 5) -> list[float]:
    """One bar from a venue's array: start in ms, open, high, low, close, and the volume at its place."""
    try:
        return [int(item[0]) / 1000, *(float(item[place]) for place in (1, 2, 3, 4, volume))]
    except (TypeError, ValueError, IndexError, KeyError) as fault:
        raise Garbled("a kline is not an array of numbers", host=host, cause=str(fault)[:200]) from fault


def objects(value: Any, name: str, host: str) -> list[dict[str, Any]]:
    """A list of objects, whatever else was sent raising Garbled."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Garbled(f"{name} is no list of objects", host=host)
    return value
