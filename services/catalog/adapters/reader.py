"""The reading side of the catalogs: files only, no service and no Redis. A reader takes in what was committed since its
last look, and nothing else."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from services.catalog.adapters.book import Book
from services.catalog.adapters.chunk import SMALL
from services.catalog.adapters.deriving import derive
from services.catalog.adapters.facts import micros
from services.catalog.adapters.frames import history_frame, history_rows, join_frame, panel_frame, record_of, write_rows
from services.catalog.adapters.panel import Panel
from services.catalog.domain.schema import SYMBOLS, Schema
from services.catalog.domain.versions import Timeline, violations
from shared.clock import Clock, parse_instant, system_clock
from shared.errors import ContractError
from shared.tables import Snapshot, Table, open_table

_KEPT_RECORDS = 100_000

Instant = str | datetime


class CatalogReader:
    """The versions in one table. One object may be used by several threads."""

    schema: Schema = SYMBOLS

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._lock = threading.RLock()
        self._start_anew()

    @classmethod
    def open(cls, root: str | Path, *, clock: Clock = system_clock) -> Self:
        return cls(open_table(Path(root)), clock)

    def export(self, path: str | Path) -> Path:
        """Every version as a plain Parquet file with `valid_from` and `valid_until`; its metadata names the version."""
        with self._lock:
            version = str(self._follow().version)
            rows = history_rows(self._panel(None), self.schema)
        return write_rows(rows, Path(path), metadata={"asof.version": version, "catalog_version": version})

    def follow(self) -> None:
        """Take in what was committed since the last look, as every read does. Raises IntegrityError for what is not as
        it was written."""
        self._follow_locked()

    @property
    def version(self) -> int:
        with self._lock:
            return self._follow().version

    @property
    def epoch(self) -> int:
        """The number of the newest lease that wrote the table; 0 before the first."""
        return self._table.load().epoch

    def get_instrument(
        self, symbol: str, as_of: Instant | None = None, known_at: Instant | None = None
    ) -> dict[str, Any] | None:
        """All columns of the version that holds at `as_of` (default: `known_at`, else now), or None."""
        if os.path.exists(self._next):  # noqa: PTH110  a Path would cost more than the look-up
            self._follow_locked()
        if known_at is not None:
            known = parse_instant(known_at, name="known_at")
            timeline = self._timeline(symbol)
            starts, records = self._records_of(None if timeline is None else timeline.known_by(known))
            instant = known if as_of is None else parse_instant(as_of, name="as_of")
        else:
            found = self._records.get(symbol)
            starts, records = found if found is not None else self._remember(symbol)
            instant = self._clock() if as_of is None else parse_instant(as_of, name="as_of")
        place = bisect_right(starts, instant)
        return dict(records[place - 1]) if place else None

    def history(self, symbol: str | None = None, known_at: Instant | None = None) -> pd.DataFrame:
        """Every version, ordered by symbol and `valid_from`."""
        if symbol is None:
            return panel_frame(self._at_version(known_at), None, self.schema)
        self._follow_locked()
        timeline = self._timeline(symbol)
        if timeline is not None and known_at is not None:
            timeline = timeline.known_by(parse_instant(known_at, name="known_at"))
        return history_frame([] if timeline is None else timeline.versions, self.schema)

    def at(self, as_of: Instant, known_at: Instant | None = None) -> pd.DataFrame:
        """Every symbol's version at that instant, ordered by symbol."""
        instant = micros(parse_instant(as_of, name="as_of"))
        panel = self._at_version(known_at)
        places = panel.holding(instant)
        if panel.by_name is not None:
            places = panel.by_name[np.isin(panel.by_name, places)]
        return panel_frame(panel, places, self.schema)

    def join(
        self,
        frame: pd.DataFrame,
        on: tuple[str, str] = ("symbol", "ts"),
        known_at: Instant | None = None,
        columns: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """`frame` with each row's metadata as of its own instant; row order and index are kept.

        columns  the catalog's columns to add, all when None. One that `frame` has too is added as `<name>_catalog`.

        Raises ContractError for a column without a time zone and for symbols that the catalog does not know. Keep the
        symbol column categorical: its codes are looked up ten times as fast as text.
        """
        panel = self._at_version(known_at)
        return join_frame(frame, on, panel, self._book.codes, self.schema, columns)

    def active(self) -> list[str]:
        """The symbols that are active now; a retirement that was announced for later does not count yet."""
        panel = self._at_version(None)
        now = panel.holding(micros(self._clock()))
        live = panel.columns["active"].to_numpy(zero_copy_only=False).astype(bool)[now]
        return sorted(panel.names[code] for code in panel.codes[now][live])

    def left_by(self, symbol: str, event_id: str) -> dict[str, Any] | None:
        """All columns of the version at an event's instant as that event left it, whatever others said and say."""
        self._follow_locked()
        timeline = self._timeline(symbol)
        version = None if timeline is None else timeline.left_by(event_id)
        return None if version is None else record_of(version, self.schema)

    def audit(self) -> list[str]:
        """What is wrong with the table; empty when it is sound."""
        with self._lock:
            self._follow()
            found = [str(violation) for violation in self._table.verify()]
            names = sorted(self._book.names)
            for start in range(0, len(names), _KEPT_RECORDS):
                timelines = self._book.timelines(names[start : start + _KEPT_RECORDS])
                found += [text for timeline in timelines.values() for text in violations(timeline.versions)]
        return found

    # -- inside

    def _start_anew(self) -> None:
        self._book = Book(self.schema)
        self._version = 0
        self._next = self._manifest(1)
        self._records: dict[str, tuple[list[datetime], list[dict[str, Any]]]] = {}
        self._panels: dict[int | None, Panel] = {}

    def _manifest(self, version: int) -> str:
        return str(self._table.root / "manifests" / f"{version:020d}.json")

    def _follow_locked(self) -> None:
        with self._lock:
            self._follow()

    def _follow(self) -> Snapshot:
        """Take in what was committed since the last look, without reading again what did not change."""
        snapshot = self._table.load()
        if snapshot.version == self._version:
            return snapshot
        new = snapshot.since(self._version)
        if new is None:
            self._start_anew()
            new = snapshot.segments
        for _, part in groupby(new, key=lambda segment: segment.rows > SMALL and segment.file):
            # A large segment is taken as it is; small ones would each cost as much as all of them together.
            self._take(snapshot.read(segments=[*part]), snapshot.version)
        self._version = snapshot.version
        self._next = self._manifest(snapshot.version + 1)
        return snapshot

    def _take(self, rows: Any, version: int) -> None:
        touched = self._book.add(rows)
        if touched is None:
            self._records.clear()
        else:
            for key in touched:
                self._records.pop(key, None)
        self._moved(version)

    def _moved(self, version: int) -> None:
        self._panels.clear()
        self._version = version
        self._next = self._manifest(version + 1)

    def _timeline(self, symbol: str) -> Timeline | None:
        with self._lock:
            timeline = self._book.timelines([symbol]).get(symbol)
            if timeline is None and isinstance(symbol, str):
                with suppress(ContractError):
                    key = self.schema.read_key({self.schema.key: symbol})
                    timeline = self._book.timelines([key]).get(key)
            return timeline

    def _records_of(self, timeline: Timeline | None) -> tuple[list[datetime], list[dict[str, Any]]]:
        if timeline is None:
            return [], []
        starts = [row.start for row in timeline.rows]
        return starts, [record_of(version, self.schema) for version in timeline.versions]

    def _remember(self, symbol: str) -> tuple[list[datetime], list[dict[str, Any]]]:
        with self._lock:
            self._follow()
            made = self._records_of(self._timeline(symbol))
            if len(self._records) >= _KEPT_RECORDS:
                self._records.clear()
            if made[0]:
                self._records[symbol] = made
            return made

    def _at_version(self, known_at: Instant | None) -> Panel:
        known = None if known_at is None else micros(parse_instant(known_at, name="known_at"))
        with self._lock:
            self._follow()
            return self._panel(known)

    def _panel(self, known: int | None) -> Panel:
        if known not in self._panels:
            self._panels = {at: panel for at, panel in self._panels.items() if at is None}  # one other at a time
            self._panels[known] = derive(self._book, known)
        return self._panels[known]
