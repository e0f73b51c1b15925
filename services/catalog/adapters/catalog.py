"""The catalogs: bitemporal, order-free, each in one versioned table. Reading needs files only.

Every write follows the table, decides and commits; a conflict starts over, which is safe because a stored event is a
no-op. A reader takes in what was committed since its last look and nothing else.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from services.catalog.adapters.book import Book
from services.catalog.adapters.chunk import SMALL
from services.catalog.adapters.facts import micros, to_rows
from services.catalog.adapters.frames import history_frame, history_rows, join_frame, panel_frame, record_of, write_rows
from services.catalog.adapters.panel import Panel, derive
from services.catalog.domain.decide import Batch, UpsertResult, decide
from services.catalog.domain.schema import EXCHANGES, SYMBOLS, Schema
from services.catalog.domain.versions import Fact, Timeline, violations
from shared.clock import Clock, parse_instant, system_clock
from shared.errors import CommitConflict, ContractError
from shared.tables import Changes, NewSegment, Snapshot, Table, open_table
from shared.tables.model import JsonValue

_ATTEMPTS = 50
_DELTAS = 32  # so many commits are merged into one segment
_KEPT_RECORDS = 100_000

Instant = str | datetime
Records = Iterable[Mapping[str, Any]]


class MetadataCatalog:
    """A symbol's versions. `root` is the folder of one table; it is created by the first write.

    One object may be used by several threads.
    """

    schema: Schema = SYMBOLS

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._lock = threading.RLock()
        self._start_anew()

    @classmethod
    def open(cls, root: str | Path, *, clock: Clock = system_clock) -> Self:
        return cls(open_table(Path(root)), clock)

    # -- writing

    def upsert_symbols(
        self,
        records: Records,
        *,
        effective_at: Instant | None = None,
        known_at: Instant | None = None,
        nulls: Literal["keep", "set"] = "keep",
        run_id: str | None = None,
        event_id: str | None = None,
        source: str | None = None,
    ) -> UpsertResult:
        """Patch symbols: only stated fields change. A record that cannot be read is rejected by name."""
        batch = self._batch("upsert", list(records), effective_at, known_at, run_id, event_id, nulls, source)
        return self.apply([batch])[0]

    def retire_symbols(
        self,
        symbols: Iterable[str],
        *,
        effective_at: Instant | None = None,
        known_at: Instant | None = None,
        run_id: str | None = None,
        event_id: str | None = None,
    ) -> UpsertResult:
        """Mark symbols as no longer active, every attribute kept. Unknown ones are rejected by name."""
        records = [{self.schema.key: symbol} for symbol in ([symbols] if isinstance(symbols, str) else symbols)]
        return self.apply([self._batch("retire", records, effective_at, known_at, run_id, event_id)])[0]

    def apply_snapshot(
        self,
        records: Records,
        *,
        effective_at: Instant | None = None,
        known_at: Instant | None = None,
        run_id: str | None = None,
        event_id: str | None = None,
        exchange: str | None = None,
    ) -> UpsertResult:
        """Take a full universe: a live symbol that is absent is retired, a field that is not stated is null.

        With `exchange` it is the universe of that exchange alone, and symbols of others are neither retired nor taken.
        """
        batch = self._batch("snapshot", list(records), effective_at, known_at, run_id, event_id)
        return self.apply([replace(batch, exchange=exchange)])[0]

    def rename_symbol(
        self,
        old: str,
        new: str,
        *,
        effective_at: Instant | None = None,
        known_at: Instant | None = None,
        run_id: str | None = None,
        event_id: str | None = None,
    ) -> UpsertResult:
        """A ticker changed: `old` is retired and `new` begins with its attributes and `renamed_from`, in one commit."""
        with self._lock:
            at = known_at if effective_at is None else effective_at
            found = self.get_instrument(old, as_of=at)
            if found is None:
                return UpsertResult(rejected={old: "the catalog does not know it"}, version=self.version)
            kept = {name: found[name] for name in self.schema.attributes if found[name] is not None}
            record = {**kept, self.schema.key: new, "renamed_from": found[self.schema.key], "active": True}
            inserted = self._batch("upsert", [record], effective_at, known_at, run_id, event_id)
            retired = replace(inserted, kind="retire", records=[{self.schema.key: old}])
            new_one, old_one = self.apply([inserted, retired])
        return UpsertResult(
            new_one.inserted,
            (*new_one.changed, *old_one.changed),
            (*new_one.unchanged, *old_one.unchanged),
            {**new_one.rejected, **old_one.rejected},
            old_one.version,
        )

    def apply(self, batches: Sequence[Batch], *, epoch: int | None = None) -> list[UpsertResult]:
        """Several batches in one commit, each decided on what the ones before it made.

        `epoch` is the fencing token of the writer's lease; a table that has seen a newer one refuses the commit with
        StaleEpochError. Without a lease the compare-and-set alone decides.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                snapshot = self._follow()
                facts, timelines, results = self._decided(batches)
                if not facts:
                    return [replace(result, version=snapshot.version) for result in results]
                try:
                    version = self._commit(snapshot, facts, epoch)
                except CommitConflict:
                    continue
                self._book.keep(timelines)
                return [replace(result, version=version) for result in results]
        raise CommitConflict(
            f"{self._table.root.name} could not be written",
            cause=f"other writers were faster {_ATTEMPTS} times",
            fix="run the same command again",
        )

    def compact(self) -> None:
        """Fold the deltas into one segment; readers of older versions keep what they have."""
        self._table.compact()

    def tag(self, name: str, version: int) -> None:
        """Name a version that has to stay readable."""
        self._table.tag(name, version)

    def export(self, path: str | Path) -> Path:
        """Every version as a plain Parquet file with `valid_from` and `valid_until`; its metadata names the version."""
        with self._lock:
            version = str(self._follow().version)
            rows = history_rows(self._panel(None), self.schema)
        return write_rows(rows, Path(path), metadata={"asof.version": version, "catalog_version": version})

    # -- reading

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
        """The symbols whose open version is active."""
        panel = self._at_version(None)
        live = panel.columns["active"].to_numpy(zero_copy_only=False).astype(bool) & panel.is_open
        return sorted(panel.names[code] for code in panel.codes[live])

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

    def _batch(
        self,
        kind: Literal["upsert", "retire", "snapshot"],
        records: Sequence[Mapping[str, Any]],
        effective_at: Instant | None,
        known_at: Instant | None,
        run_id: str | None,
        event_id: str | None,
        nulls: Literal["keep", "set"] = "keep",
        source: str | None = None,
    ) -> Batch:
        if nulls not in {"keep", "set"}:
            raise ContractError(f"nulls {nulls!r} is neither keep nor set", fix='nulls="set" clears, "keep" keeps')
        known = self._clock() if known_at is None else parse_instant(known_at, name="known_at")
        effective = None if effective_at is None else parse_instant(effective_at, name="effective_at")
        return Batch(kind, records, known, effective, nulls, event_id, run_id, source)

    def _decided(self, batches: Sequence[Batch]) -> tuple[list[Fact], Mapping[str, Timeline], list[UpsertResult]]:
        layered = _Layered(self._book)
        facts: list[Fact] = []
        results: list[UpsertResult] = []
        for batch in batches:
            outcome = decide(layered, batch, self.schema)
            layered.take(outcome.facts, outcome.timelines)
            facts.extend(outcome.facts)
            results.append(outcome.result)
        return facts, layered.made, results

    def _commit(self, base: Snapshot, facts: Sequence[Fact], epoch: int | None) -> int:
        rows = to_rows(facts, self.schema)
        runs: list[JsonValue] = [*sorted({fact.run_id for fact in facts if fact.run_id})]
        changes = Changes(append=(NewSegment(rows, key_column=self.schema.key),))
        token = base.epoch if epoch is None else epoch
        version = self._table.commit(base.version, changes, epoch=token, meta={"runs": runs})
        self._book.note(facts, rows)
        for fact in facts:
            self._records.pop(fact.key, None)
        self._moved(version)
        if sum(segment.first == segment.last for segment in base.segments) >= _DELTAS:
            with suppress(CommitConflict):
                self._table.compact(small_only=True)
        return version

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


class ExchangeCatalog(MetadataCatalog):
    """The same for exchanges."""

    schema = EXCHANGES
    upsert_exchanges = MetadataCatalog.upsert_symbols
    retire_exchanges = MetadataCatalog.retire_symbols
    get_exchange = MetadataCatalog.get_instrument


class _Layered:
    """A book with what earlier batches of the same commit add to it."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.made: dict[str, Timeline] = {}
        self._snapshots: set[str] = set()
        self.newest_known = book.newest_known

    def timelines(self, keys: Iterable[str]) -> Mapping[str, Timeline]:
        asked = [*keys]
        own = {key: self.made[key] for key in asked if key in self.made}
        return {**self._book.timelines(key for key in asked if key not in own), **own}

    def keys_of(self, exchange: str | None) -> Iterable[str]:
        more = (key for key in self.made if exchange is None or key.startswith(f"{exchange}:"))
        return dict.fromkeys([*self._book.keys_of(exchange), *more])

    def has_snapshot(self, event_id: str) -> bool:
        return event_id in self._snapshots or self._book.has_snapshot(event_id)

    def take(self, facts: Sequence[Fact], timelines: Mapping[str, Timeline]) -> None:
        self.made.update(timelines)
        self._snapshots.update(fact.event_id for fact in facts if fact.kind == "snapshot" and fact.event_id)
        if facts:
            self.newest_known = facts[0].known
