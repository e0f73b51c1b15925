"""A venue's list of instruments: asked for once by all who need it, kept on disk, used stale where need be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.fetcher.domain.faults import UpstreamTrouble
from services.fetcher.domain.record import Limits
from shared.clock import Clock
from shared.files import write_atomic


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument under the scanner's ticker: what the venue calls it, where its bars are, what it executes by."""

    ticker: str
    native: str
    market: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class _Kept:
    loaded_at: datetime
    instruments: tuple[Instrument, ...]


_FILE = TypeAdapter(_Kept)


@dataclass(frozen=True, slots=True)
class Known:
    """Instruments by ticker. `stale_s`: their age when the venue was asked anew and did not answer, else None."""

    instruments: Mapping[str, Instrument]
    stale_s: int | None


class InstrumentList:
    """`load` asks the venue; its answer serves for `fresh_s`. Replicas of one house share the file."""

    def __init__(
        self,
        file: Path,
        load: Callable[[], Awaitable[tuple[Instrument, ...]]],
        clock: Clock,
        *,
        fresh_s: float,
    ) -> None:
        self._file = file
        self._load = load
        self._clock = clock
        self._fresh_s = fresh_s
        self._flight = asyncio.Lock()
        self._kept: _Kept | None = None
        self._known: Mapping[str, Instrument] = {}

    async def get(self) -> Known:
        """Raises the venue's fault only when there is nothing older to fall back on, or when the refusal is final."""
        async with self._flight:
            if not self._fresh():
                # Another replica may have asked in the meantime.
                self._use(await asyncio.to_thread(self._read) or self._kept)
            if self._fresh():
                return Known(self._known, None)
            try:
                loaded = _Kept(self._clock(), await self._load())
            except UpstreamTrouble:
                if self._kept is None:
                    raise
                return Known(self._known, round(self._age(self._kept)))
            self._use(loaded)
            await asyncio.to_thread(self._write, loaded)
            return Known(self._known, None)

    def _fresh(self) -> bool:
        return self._kept is not None and self._age(self._kept) < self._fresh_s

    def _age(self, kept: _Kept) -> float:
        return (self._clock() - kept.loaded_at).total_seconds()

    def _use(self, kept: _Kept | None) -> None:
        self._kept = kept
        self._known = {} if kept is None else {one.ticker: one for one in kept.instruments}

    def _read(self) -> _Kept | None:
        try:
            return _FILE.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            # A cache of another version is no fact to keep: the venue is asked, and the file written anew.
            return None

    def _write(self, kept: _Kept) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file, _FILE.dump_json(kept), durable=False)
