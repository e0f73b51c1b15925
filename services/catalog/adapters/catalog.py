"""The catalogs: bitemporal, order-free, each in one versioned table.

Every write follows the table, decides and commits; a conflict starts over, which is safe because a stored event is a
no-op.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from services.catalog.adapters.book import Book
from services.catalog.adapters.facts import to_rows
from services.catalog.adapters.reader import CatalogReader, Instant
from services.catalog.domain.decide import Batch, UpsertResult, decide
from services.catalog.domain.schema import EXCHANGES
from services.catalog.domain.versions import Fact, Timeline
from shared.clock import parse_instant
from shared.errors import CommitConflict, ContractError
from shared.tables import Changes, JsonValue, NewSegment, Snapshot

_ATTEMPTS = 50
_DELTAS = 32  # so many commits are merged into one segment

Records = Iterable[Mapping[str, Any]]


class MetadataCatalog(CatalogReader):
    """A symbol's versions. `root` is the folder of one table; it is created by the first write."""

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
        """A ticker changed: `old` is retired and `new` begins with its attributes and `renamed_from`, in one commit.

        Rejected under `old` when the catalog does not know it, it is retired, or `new` is another active symbol.
        """
        record = {self.schema.key: old, "renamed_to": new}
        return self.apply([self._batch("rename", [record], effective_at, known_at, run_id, event_id)])[0]

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

    # -- inside

    def _batch(
        self,
        kind: Literal["upsert", "retire", "snapshot", "rename"],
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
