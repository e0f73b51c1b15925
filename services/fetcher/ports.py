"""What the fetcher needs from outside: sources of facts, a store for bars, a pace, a memory of what is done.

A source answers per symbol, with a value or with the fault that this symbol met; it raises only what concerns every
symbol it was asked for. It never retries: attempts are the handler's, so that each one is paced and reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from services.fetcher.domain.discovery import Discovery
from services.fetcher.domain.faults import UpstreamError
from services.fetcher.domain.record import Described, Limits
from services.fetcher.domain.series import Rows, Series
from services.fetcher.domain.sessions import Instants
from shared.bars import Trading
from shared.events import Bars, FetchAttempted, FetchTask, FileRef, RunCandidates, SymbolMetadata


class DescriptionSource(Protocol):
    """The primary source of descriptive and structural fields; one request answers for many symbols."""

    @property
    def name(self) -> str: ...

    async def describe(self, symbols: Sequence[str]) -> Mapping[str, Described | UpstreamError]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a discovery found, each symbol once, in the order asked for. `complete`: nothing that matches is missing."""

    symbols: tuple[Described, ...]
    complete: bool


class Universe(Protocol):
    async def discover(self, asked: Discovery, screener: Sequence[str]) -> Found:
        """Every symbol that matches, with the values of the `screener` columns."""
        ...


class Documents(Protocol):
    """Files that answer a command. Both calls touch the disk."""

    def write_json(self, name: str, content: Any) -> FileRef: ...

    def write_records(self, name: str, records: Sequence[Mapping[str, Any]]) -> FileRef: ...


class LimitsSource(Protocol):
    """Execution limits of one venue. `described` holds what the primary source said of each symbol.

    A symbol that the venue does not list is absent from the answer: unknown, not failed.
    """

    @property
    def name(self) -> str: ...

    @property
    def exchanges(self) -> tuple[str, ...]: ...

    async def limits(self, described: Mapping[str, Described]) -> Mapping[str, Limits | UpstreamError]: ...


@dataclass(frozen=True, slots=True)
class BarsWanted:
    """One symbol's bars from `since` on (None: all there is), at `interval`, final at `until`."""

    symbol: str
    interval: str
    since: datetime | None
    until: datetime


@dataclass(frozen=True, slots=True)
class BarsSent:
    """Rows as they came (seconds, open, high, low, close, volume) and the hours the upstream states, if any.

    `observed_at`: the upstream's clock where it may be trusted, else ours; a bar that is not over by then is forming.
    """

    rows: Rows
    host: str
    observed_at: datetime
    timezone: str | None = None
    session: str | None = None
    warnings: tuple[str, ...] = ()


BarsSink = Callable[[str, BarsSent | UpstreamError], Awaitable[None]]


class BarsSource(Protocol):
    @property
    def name(self) -> str: ...

    async def fetch(self, wanted: Sequence[BarsWanted], sink: BarsSink, *, workers: int) -> None:
        """Give `sink` every wanted symbol exactly once, in the order in which they are complete."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What a write made of a symbol's table: a version, its content hash, and what was new in it."""

    path: str
    version: int
    sha256: str
    rows: int
    first_bar: datetime
    last_bar: datetime
    added: int
    revised: int


@dataclass(frozen=True, slots=True)
class Compared:
    """Bars that are not stored yet, and stored bars that are stated otherwise."""

    added: int
    revised: int


class BarStore(Protocol):
    """Versioned bars. Every call touches the disk: run them off the event loop."""

    def last_bar(self, interval: str, symbol: str) -> datetime | None: ...

    def compare(self, interval: str, symbol: str, series: Series) -> Compared:
        """What writing `series` would do."""
        ...

    def stored(self, interval: str, symbol: str) -> Written:
        """The newest version as it stands. Raises ContractError when there is none."""
        ...

    def write(self, interval: str, symbol: str, series: Series, *, run_id: str, trading: Trading) -> Written:
        """`trading` is kept with the bars: a run that reads them later has to know when each was known."""
        ...


class Calendars(Protocol):
    def sessions(self, calendar: str, first: datetime, last: datetime) -> Instants | None:
        """Trading dates of a calendar, both ends included, as seconds of 00:00 UTC; None when nobody knows it."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """What is known to be done of one task: outcomes by symbol, attempts in order. A repeated write adds nothing."""

    metadata: Mapping[str, SymbolMetadata]
    bars: Mapping[str, Bars]
    attempts: tuple[FetchAttempted, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run was first understood: the hash of its content and the instant its bars end at."""

    content: str
    as_of: datetime


class RunMemory(Protocol):
    """What survives a killed fetcher, shared by all replicas of one house."""

    def plan(self, run_id: str, run: RunCandidates, as_of: datetime) -> Plan:
        """The run's first plan. The same content again returns it; other content raises ContractError."""
        ...

    def finished(self, task: FetchTask) -> Finished: ...

    def note(self, task: FetchTask, *outcomes: SymbolMetadata | Bars | FetchAttempted) -> None: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to one request (or one connection) to a venue, until it is handed back."""

    venue: str
    ticket: str


class Pace(Protocol):
    """One limiter for the whole fleet, weighted; a venue is one upstream host under the name of its connector."""

    async def acquire(self, venue: str, weight: int = 1) -> Turn:
        """Wait for a turn. Raises Paused when the venue is closed for longer than waiting is sensible."""
        ...

    async def served(self, turn: Turn) -> None:
        """Say that an answer came well on a turn that is kept: a connection that goes on to serve others."""
        ...

    async def release(self, turn: Turn, fault: UpstreamError | None, *, used: int | None = None) -> None:
        """Hand the turn back with what came of it: push-back slows every replica down, a named time pauses the venue.

        `used`: the weight that the upstream says this address has used in its current window.
        """
        ...


class RetryBudget(Protocol):
    """What a run may retry in all, over all replicas: a storm of faults must not become a storm of requests."""

    async def take(self, run_id: str, retries: int) -> bool:
        """Whether that many more symbols may be tried again."""
        ...
