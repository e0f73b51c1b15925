"""What the features service needs from outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

import pandas as pd

from services.features.domain.adjustments import Adjustment
from services.features.domain.bars_batch import BarsBatch
from services.features.domain.histories import History
from services.features.domain.parity import Parity
from services.features.domain.rating import RatedBatch
from services.features.domain.runs import RunRecord
from services.features.domain.sessions import Sessions
from shared.errors import PipelineError
from shared.events import Bars, FileRef, PromotionDecided, RatingsComputed


class BarSource(Protocol):
    def read(self, interval: str, wanted: Sequence[Bars]) -> tuple[BarsBatch, dict[str, PipelineError]]:
        """The bars of exactly these versions, symbols in order of name; and why each other symbol's cannot be used: a
        version whose content has another hash than its event says, for example."""
        ...

    def added(self, interval: str, bars: Bars, *, since: int, sha256: str) -> pd.DataFrame | None:
        """The stored bars behind version `since`, when those before are the same ones and `since` has that hash; None
        when they are not, or cannot be read."""
        ...

    def newest(self, interval: str, symbols: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
        """The newest stored version of each symbol that has bars; and, by symbol, what is wrong with damaged ones."""
        ...

    def pinned(self, interval: str, symbol: str, version: int) -> Bars:
        """A stored version as an event would name it. Raises TerminalError when it is gone or damaged."""
        ...


class Adjustments(Protocol):
    def newest(self) -> tuple[int, tuple[Adjustment, ...]]:
        """The newest version of the book of recorded adjustments, and what stands in it."""
        ...


class Calendars(Protocol):
    def sessions(self, calendar: str) -> Sessions | None:
        """Every session of a calendar; None for one that nobody knows."""
        ...


class Histories(Protocol):
    """What was kept of each symbol, so that a run goes on from a feature version instead of beginning anew."""

    @property
    def program(self) -> str:
        """A hash of the code that rates."""
        ...

    def newest(self, interval: str, rules: str) -> int:
        """The feature version that a run opened now goes on from; 0 when there is none."""
        ...

    def load(self, record: RunRecord, symbols: Sequence[str]) -> tuple[dict[str, History], dict[str, str]]:
        """By symbol, what belongs to the version that the run goes on from; and why something kept cannot be used."""
        ...

    def keep(self, staged: FileRef, histories: Mapping[str, History]) -> None:
        """Put down what belongs to a staged file; it counts once that file is merged."""
        ...


class AdjustmentBook(Protocol):
    """Where adjustments are written down; nothing in it is ever changed."""

    def record(
        self,
        symbol: str,
        date: date,
        factor: float,
        *,
        recorded_by: str,
        reason: str,
        known_at: datetime | None = None,
    ) -> Adjustment: ...

    def withdraw(self, symbol: str, date: date, *, recorded_by: str, reason: str) -> None:
        """Raises NotFoundError for one that is not recorded."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one batch: the event it came from, what was said of it, how it compared with a screener, and which
    version of the book of adjustments it was rated with.

    `continued` names the staged symbols whose rows go on from the run's feature version. Of the others `rebuilt` says
    why what was kept could not be used; of the rest nothing was kept.
    """

    event_id: str
    said: RatingsComputed
    parity: tuple[Parity, ...]
    adjustments_version: int = 0
    continued: tuple[str, ...] = ()
    rebuilt: Mapping[str, str] = field(default_factory=dict)


class Workspace(Protocol):
    """The staged part of one run's folder."""

    def open(self, record: RunRecord) -> RunRecord:
        """Keep the record of a run; the one that is there already when it was asked for with the same content.

        Raises ContractError when the run id is taken by other content.
        """
        ...

    def record(self, run_id: str) -> RunRecord:
        """Raises TransientError for a run that was not opened here yet."""
        ...

    def stage(
        self, record: RunRecord, batch: int, rated: RatedBatch, continued: RatedBatch, continues: Mapping[str, int]
    ) -> FileRef | None:
        """Write the rows that may be stored as one file; None when there are none. The same rows, the same bytes. The
        file names the adjustments that its rows were computed with.

        Of the symbols in `continued` there are only the last rows: those before them are in the feature version that
        the run goes on from. `continues` says how many rows each of them has in all.
        """
        ...

    def quarantine(self, record: RunRecord, batch: int, rated: RatedBatch) -> dict[str, FileRef]:
        """Put aside what was refused, each row with its reason beside it; the file of each refused symbol."""
        ...

    def keep(self, run_id: str, batch: int, receipt: Receipt) -> None: ...

    def receipt(self, run_id: str, batch: int) -> Receipt | None:
        """What became of a batch, when its staged file still has the bytes that were announced."""
        ...

    def receipts(self, run_id: str) -> list[Receipt]: ...

    def assemble(self, run_id: str) -> FileRef | None:
        """All rows that the run staged, and its current values, as `features.parquet`; None when there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Merged:
    """A version of the feature table that a run made."""

    version: int
    parent: int
    symbols: int
    rows: int


class FeatureStore(Protocol):
    def merge(
        self,
        decided: PromotionDecided,
        *,
        strict_scope: bool,
        parity: Mapping[str, object],
        ratings: Mapping[str, object],
    ) -> Merged:
        """Bring exactly the decided symbols of the decided files into the table of their interval and rules, in one
        commit; with `strict_scope` the new version holds no other symbol. A run that was merged is not merged again.
        `parity` and `ratings` are for the promotion record.

        Raises IntegrityError when a file is not the one that was decided on.
        """
        ...

    def export(self, interval: str, rules: str) -> None:
        """Write the plain wide file, where this interval and these rules have one."""
        ...
