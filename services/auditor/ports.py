"""What the auditor needs from outside: runs' folders, the ledger, the tables' versions, the clock's neighbours."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from services.auditor.domain.alert_book import Book
from services.auditor.domain.chain import Entry
from services.auditor.domain.coverage import Coverage
from services.auditor.domain.journal import Journal
from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.notes import Line
from services.auditor.domain.repairs import Repair
from services.auditor.domain.schedule import Schedule
from shared.events import Alert, FileRef, Versions


class HeldRun(Protocol):
    """One run while nobody else may write to its folder: not another thread, not another auditor."""

    run_id: str
    journal: Journal

    @property
    def manifest(self) -> RunManifest | None: ...

    def create(self, manifest: RunManifest, candidates: bytes) -> None:
        """Write candidates and manifest, durably; the manifest last, because it is what makes the run exist."""
        ...

    def append(self, lines: Sequence[Line]) -> None:
        """Add lines to the journal, durably, and apply them."""
        ...

    def manifest_ref(self) -> FileRef: ...

    def coverage(self) -> bytes | None: ...

    def coverage_ref(self, data: bytes) -> FileRef:
        """The artifact's name for these bytes."""
        ...

    def write_coverage(self, data: bytes) -> None: ...

    def set_coverage_aside(self) -> str:
        """Keep a changed artifact beside the new one. Returns where."""
        ...

    def write_extract(self, lines: Iterable[bytes]) -> None: ...

    def write_report(self, data: bytes) -> FileRef: ...


class Runs(Protocol):
    def hold(self, run_id: str) -> AbstractContextManager[HeldRun]: ...

    def candidates_ref(self, run_id: str, data: bytes) -> FileRef: ...

    def wrong_file(self, ref: FileRef) -> str | None:
        """What is wrong with a file that an event named: missing, or other bytes. None when it is as named."""
        ...

    def as_of(self, run_id: str) -> datetime | None:
        """When another run's data ends; None when that run is not known here."""
        ...


class Ledger(Protocol):
    """The one chain. Every call but `append` reads what is there, entries of other writers included."""

    def append(
        self, kind: str, *, key: str, data: Mapping[str, Any], time: datetime, run_id: str | None = None
    ) -> Entry:
        """Enter a fact durably; when `key` is known, the entry it has. Raises IntegrityError for a broken chain."""
        ...

    def refresh(self) -> None: ...

    def head(self) -> Entry | None: ...

    def find(self, key: str) -> Entry | None: ...

    def of_run(self, run_id: str, kind: str | None = None) -> list[Entry]: ...

    def of_kind(self, kind: str, after: int = 0) -> list[Entry]: ...

    def open_runs(self) -> Collection[str]:
        """Runs that were opened, or reopened, and not decided since."""
        ...

    def extract(self, run_id: str) -> list[bytes]: ...

    def broken(self) -> str | None:
        """Where the chain is broken, from the file as it is now; None when it is whole."""
        ...


@dataclass(frozen=True, slots=True)
class Promoted:
    """Symbols that one version of a feature table brought, and the run that promoted them."""

    version: int
    run_id: str | None
    symbols: frozenset[str]


@dataclass(frozen=True, slots=True)
class RolledBack:
    """`version` is new; it equals `equals` and replaces `before`. `catalog_version` is the pair's."""

    version: int
    equals: int
    before: int
    catalog_version: int | None


class Tables(Protocol):
    """Versions of the house's tables, by reading their newest manifests."""

    def current(self, interval: str, rules: str) -> Versions: ...

    def promoted_since(self, interval: str, rules: str, version: int) -> list[Promoted]: ...

    def rollback(self, interval: str, rules: str, *, to: int | None, command_id: str, at: str) -> RolledBack:
        """A new version that equals an older one. The same command again finds what it did. Raises NotFoundError."""
        ...

    def active_symbols(self, at: datetime) -> list[str]:
        """The symbols active at an instant, by the catalog's plain export. Raises NotFoundError without one."""
        ...


class Alerts(Protocol):
    """The alert book, shared by every auditor of the house. Each call is durable when it returns."""

    def open(self) -> AbstractContextManager[Book]: ...

    def note(self, alerts: Sequence[Alert]) -> None:
        """Enter alerts; a problem that is known in these words adds nothing."""
        ...

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None: ...


class Repairs(Protocol):
    """Repairs that are not in the ledger yet."""

    def waiting(self) -> Iterable[tuple[Path, Repair]]:
        """Each with its note."""
        ...

    def done(self, note: Path) -> None:
        """The repair is in the ledger."""
        ...


class Channel(Protocol):
    """One way to reach people. `send` raises TransientError when it could not deliver."""

    name: str

    async def send(self, alert: Alert) -> None: ...


@dataclass(frozen=True, slots=True)
class GroupState:
    """A service's place in a stream: how many events wait for it, and the newest that it was given."""

    stream: str
    group: str
    waiting: int
    delivered: str


class Groups(Protocol):
    async def states(self) -> list[GroupState]:
        """Raises TransientError when nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class ServerState:
    """`undeclared`: stream and group of each group that shared.streams does not declare. Memory in bytes; a limit of 0
    is none."""

    undeclared: Sequence[tuple[str, str]]
    used: int
    limit: int


class Server(Protocol):
    async def state(self) -> ServerState:
        """Raises TransientError when nobody knows."""
        ...


class Approvers(Protocol):
    """The people whose signatures count, where keys are set up."""

    def check(self, approver: str, statement: bytes, signature: str | None) -> None:
        """Raises ContractError, with the reason, unless `approver` is known and has signed the statement."""
        ...


class Reporter(Protocol):
    def render(self, manifest: RunManifest, coverage: Coverage, entries: Sequence[Entry]) -> bytes:
        """A run's report. The same run gives the same bytes; `entries` are the run's, without earlier reports'."""
        ...


class Schedules(Protocol):
    @property
    def schedules(self) -> Sequence[Schedule]: ...

    def candidates(self, schedule: Schedule) -> Any:
        """The content of its candidates file. Raises a PipelineError when it cannot be had."""
        ...

    def carried_out(self) -> dict[str, datetime]:
        """The newest due time of each schedule that was dealt with."""
        ...

    def carry_out(self, done: dict[str, datetime]) -> None: ...


class Bookmark(Protocol):
    """The number of the newest ledger entry whose events are known to be out."""

    def read(self) -> int: ...

    def write(self, n: int) -> None: ...
