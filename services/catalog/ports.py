"""What the catalog's handlers need from outside: the two catalogs, and where a run's own view of them is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from services.catalog.domain.decide import Batch, UpsertResult
from shared.events import FileRef


class Catalog(Protocol):
    @property
    def version(self) -> int: ...

    @property
    def epoch(self) -> int:
        """The number of the newest lease that wrote it."""
        ...

    def apply(self, batches: Sequence[Batch], *, epoch: int | None = None) -> list[UpsertResult]:
        """All batches in one commit. Raises CommitConflict when other writers do not let it through, StaleEpochError
        when the holder of a newer lease has written."""
        ...

    def left_by(self, symbol: str, event_id: str) -> dict[str, Any] | None:
        """The record at an event's instant as that event left it."""
        ...

    def tag(self, name: str, version: int) -> None: ...


class Lease(Protocol):
    """One writer at a time, as far as that can be known."""

    def held(self, floor: int) -> AbstractAsyncContextManager[int]:
        """Hold the lease; its number is above `floor` and above that of every holder before."""
        ...


class ImportPlan(Protocol):
    """One file of another house: what would be written to which catalog, and what is refused."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def batches(self) -> Sequence[Batch]: ...

    @property
    def report(self) -> ImportReport: ...

    def done(self) -> ImportReport:
        """The report after the batches were committed."""
        ...


class ImportReport(Protocol):
    @property
    def refused(self) -> Mapping[str, Sequence[str]]: ...

    def as_dict(self) -> dict[str, Any]: ...


class RunViews(Protocol):
    """What each run saw, whatever other runs did."""

    def keep(self, run_id: str, part: str, seen: Sequence[tuple[datetime, Mapping[str, Any]]]) -> FileRef:
        """Write one batch's records, each with when it was observed; the same part again has the same bytes."""
        ...

    def assemble(self, run_id: str) -> None:
        """Make one file of all parts of a run; of a symbol that it saw more than once, what it observed last."""
        ...


class Exports(Protocol):
    def refresh(self) -> None:
        """Write the plain files of both catalogs anew, when they have a newer version."""
        ...
