"""The catalogs: bitemporal, order-free, each in one versioned table. Reading needs files only.

Every write reloads, decides and commits; a conflict starts over, which is safe because a stored event is a no-op.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from services.catalog.adapters.facts import from_rows, merged, to_rows
from services.catalog.adapters.frames import at_frame, history_frame, join_frame, record_of, write_frame
from services.catalog.domain.decide import Batch, UpsertResult, decide
from services.catalog.domain.schema import EXCHANGES, SYMBOLS, Schema
from services.catalog.domain.versions import Fact, Version, versions_of, violations
from shared.clock import Clock, parse_instant, system_clock
from shared.errors import CommitConflict
from shared.tables import Changes, NewSegment, Table, open_table
from shared.tables.model import JsonValue

_ATTEMPTS = 50
_FOLD_AT = 64

Instant = str | datetime
Records = Iterable[Mapping[str, Any]]


class MetadataCatalog:
    """A symbol's versions. `root` is the folder of one table; it is created by the first write."""

    schema: Schema = SYMBOLS

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._book: dict[str, list[Fact]] = {}
        self._version = 0
        self._versions: dict[str, list[Version]] = {}

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
        records = [{self.schema.key: symbol} for symbol in symbols]
        return self.apply([self._batch("retire", records, effective_at, known_at, run_id, event_id)])[0]

    def apply_snapshot(
        self,
        records: Records,
        *,
        effective_at: Instant | None = None,
        known_at: Instant | None = None,
        run_id: str | None = None,
        event_id: str | None = None,
    ) -> UpsertResult:
        """Take a full universe: a live symbol that is absent is retired, a field that is not stated is null."""
        batch = self._batch("snapshot", list(records), effective_at, known_at, run_id, event_id)
        return self.apply([batch])[0]

    def apply(self, batches: Sequence[Batch], *, epoch: int = 0) -> list[UpsertResult]:
        """Several batches in one commit, each decided on what the ones before it made."""
        for _ in range(_ATTEMPTS):
            self._follow()
            book: dict[str, list[Fact]] = self._book
            facts: list[Fact] = []
            results: list[UpsertResult] = []
            for batch in batches:
                outcome = decide(book, batch, self.schema)
                book = merged(book, outcome.facts) if outcome.facts else book
                facts.extend(outcome.facts)
                results.append(outcome.result)
            version = self._version
            if facts:
                try:
                    version = self._commit(facts, epoch)
                except CommitConflict:
                    continue
            return [_with_version(result, version) for result in results]
        raise CommitConflict(
            f"{self._table.root.name} could not be written",
            cause=f"other writers were faster {_ATTEMPTS} times",
            fix="run the same command again",
        )

    def compact(self) -> None:
        """Fold the deltas into one segment; readers of older versions keep what they have."""
        self._table.compact()

    def tag(self, name: str, version: int) -> None:
        self._table.tag(name, version)

    def export(self, path: str | Path) -> Path:
        """Every version as a plain Parquet file with `valid_from` and `valid_until`; its metadata names the version."""
        return write_frame(self.history(), Path(path), metadata={"catalog_version": str(self._version)})

    # -- reading

    @property
    def version(self) -> int:
        self._follow()
        return self._version

    def get_instrument(
        self, symbol: str, as_of: Instant | None = None, known_at: Instant | None = None
    ) -> dict[str, Any] | None:
        """All columns of the version that holds at `as_of` (default: `known_at`, else now), or None."""
        self._follow()
        known = None if known_at is None else parse_instant(known_at, name="known_at")
        instant = parse_instant(as_of, name="as_of") if as_of is not None else known or self._clock()
        for version in self._of(symbol, known):
            if version.holds_at(instant):
                return record_of(version, self.schema)
        return None

    def history(self, symbol: str | None = None, known_at: Instant | None = None) -> pd.DataFrame:
        """Every version, ordered by symbol and `valid_from`."""
        return history_frame(self._all(symbol, known_at), self.schema)

    def at(self, as_of: Instant, known_at: Instant | None = None) -> pd.DataFrame:
        """Every symbol's version at that instant."""
        return at_frame(self._all(None, known_at), parse_instant(as_of, name="as_of"), self.schema)

    def join(
        self, frame: pd.DataFrame, on: tuple[str, str] = ("symbol", "ts"), known_at: Instant | None = None
    ) -> pd.DataFrame:
        """`frame` with each row's metadata as of its own instant; row order and index are kept."""
        return join_frame(frame, on, self._all(None, known_at), self.schema)

    def active(self) -> list[str]:
        """The symbols whose open version is active."""
        self._follow()
        return sorted(key for key in self._book if (own := self._of(key, None)) and own[-1].fields["active"])

    def audit(self) -> list[str]:
        """What is wrong with the table; empty when it is sound."""
        self._follow()
        found = [str(violation) for violation in self._table.verify()]
        return found + [text for key in sorted(self._book) for text in violations(self._of(key, None), self.schema)]

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
        known = self._clock() if known_at is None else parse_instant(known_at, name="known_at")
        effective = None if effective_at is None else parse_instant(effective_at, name="effective_at")
        return Batch(kind, records, known, effective, nulls, event_id, run_id, source)

    def _commit(self, facts: Sequence[Fact], epoch: int) -> int:
        changes = Changes(append=(NewSegment(to_rows(facts, self.schema)),))
        runs: list[JsonValue] = [*sorted({fact.run_id for fact in facts if fact.run_id})]
        version = self._table.commit(
            self._version, changes, epoch=max(epoch, self._table.load().epoch), meta={"runs": runs}
        )
        if len(self._table.load().segments) > _FOLD_AT:
            self._table.compact()
        return version

    def _follow(self) -> None:
        """Take in what was committed since the last look, without reading again what did not change."""
        snapshot = self._table.load()
        if snapshot.version == self._version:
            return
        new = snapshot.since(self._version)
        if new is None:
            self._book, self._versions = {}, {}
        rows = snapshot.read(segments=new) if snapshot.segments else None
        more = from_rows(rows, self.schema) if rows is not None else {}
        for key, facts in more.items():
            self._book.setdefault(key, []).extend(facts)
            self._versions.pop(key, None)
        self._version = snapshot.version

    def _of(self, key: str, known_at: datetime | None) -> list[Version]:
        facts = self._book.get(key, ())
        if known_at is not None:
            return versions_of([fact for fact in facts if fact.known <= known_at], self.schema)
        if key not in self._versions:
            self._versions[key] = versions_of(facts, self.schema)
        return self._versions[key]

    def _all(self, symbol: str | None, known_at: Instant | None) -> list[Version]:
        self._follow()
        known = None if known_at is None else parse_instant(known_at, name="known_at")
        keys = sorted(self._book) if symbol is None else [symbol]
        return [version for key in keys for version in self._of(key, known)]


class ExchangeCatalog(MetadataCatalog):
    """The same for exchanges."""

    schema = EXCHANGES
    upsert_exchanges = MetadataCatalog.upsert_symbols
    get_exchange = MetadataCatalog.get_instrument


def _with_version(result: UpsertResult, version: int) -> UpsertResult:
    return UpsertResult(result.inserted, result.changed, result.unchanged, result.rejected, version)
