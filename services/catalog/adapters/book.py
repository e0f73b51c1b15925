"""All stored facts in memory, by column, and one key's facts without looking at another's.

A chunk for each segment that was read; small ones are merged as they gather. A fact that changed nothing takes 16
bytes: its key's code, its instant, and which origin (known instant, event, run, stated fields) it shares with others.
Timelines are made when they are asked for and kept for as many keys as a working set has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np

from services.catalog.adapters.arrow import Rows, pa, pc
from services.catalog.adapters.chunk import SMALL, Chunk, chunks_of, joined
from services.catalog.adapters.facts import instant_of, micros, plain
from services.catalog.adapters.keys import Keys
from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact, Timeline

_CHUNKS = 48
_WAITING = 32
_KEPT_TIMELINES = 50_000


class Book:
    """Every stored fact of one catalog. See `services.catalog.domain.decide.Book` for what decisions need."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._keys = Keys()
        self._chunks: list[Chunk] = []
        self._recent: dict[str, list[Fact]] = {}  # what this process wrote last, by key
        self._waiting: list[Rows] = []  # the same, as it was written
        self._newest: int | None = None
        self._snapshots: set[str] = set()
        self._timelines: dict[str, Timeline] = {}
        self._exchanges: tuple[int, dict[str, list[str]]] = (0, {})

    @property
    def names(self) -> list[str]:
        """The key of each code."""
        return self._keys.names

    @property
    def codes(self) -> dict[str, int]:
        return self._keys.codes

    # -- what decisions need

    @property
    def newest_known(self) -> datetime | None:
        return None if self._newest is None else instant_of(self._newest)

    def timelines(self, keys: Iterable[str]) -> dict[str, Timeline]:
        found: dict[str, Timeline] = {}
        missing: dict[str, int] = {}
        for key in keys:
            timeline = self._timelines.get(key)
            if timeline is not None:
                found[key] = timeline
            elif (code := self._keys.code(key)) is not None:
                missing[key] = code
        pairs = list(missing.items())
        for start in range(0, len(pairs), _KEPT_TIMELINES):
            part = pairs[start : start + _KEPT_TIMELINES]
            made = {key: Timeline.of(key, facts, self.schema) for key, facts in self._facts(dict(part)).items()}
            self.keep(made)
            found |= made
        return found

    def keys_of(self, exchange: str | None) -> Iterable[str]:
        if exchange is None:
            return list(self.names)
        seen, by_exchange = self._exchanges
        for name in self.names[seen:]:
            by_exchange.setdefault(name.partition(":")[0], []).append(name)
        self._exchanges = (len(self.names), by_exchange)
        return list(by_exchange.get(exchange, ()))

    def has_snapshot(self, event_id: str) -> bool:
        return event_id in self._snapshots

    # -- growing

    def note(self, facts: Sequence[Fact], rows: Rows) -> None:
        """Take in facts that were just written as `rows`; they become columns when there are some, or when needed."""
        for fact in facts:
            if fact.kind == "snapshot":
                if fact.event_id is not None:
                    self._snapshots.add(fact.event_id)
                continue
            self._keys.learn(fact.key)
            self._recent.setdefault(fact.key, []).append(fact)
            self._timelines.pop(fact.key, None)
        newest = micros(facts[-1].known)
        self._newest = newest if self._newest is None else max(self._newest, newest)
        self._waiting.append(rows)
        if len(self._recent) > SMALL or len(self._waiting) > _WAITING:
            self._settle()

    @property
    def chunks(self) -> list[Chunk]:
        self._settle()
        return self._chunks

    def _settle(self) -> None:
        if self._waiting:
            rows = pa.concat_tables(self._waiting, promote_options="default")
            self._waiting, self._recent = [], {}
            kept = self._timelines
            self._timelines = {}
            self.add(rows)
            self._timelines = kept  # they have these facts already

    def keep(self, timelines: Mapping[str, Timeline]) -> None:
        """Remember these timelines, which are up to date."""
        if len(self._timelines) + len(timelines) > _KEPT_TIMELINES:
            self._timelines.clear()
        if len(timelines) <= _KEPT_TIMELINES:
            self._timelines.update(timelines)

    def add(self, rows: Rows) -> list[str] | None:
        """Take in stored rows, in order of commit; the keys they are about, None when they are very many."""
        self._settle()
        rows = self._without_snapshots(rows.combine_chunks())
        if rows.num_rows == 0:
            return []
        codes = self._keys.coded(rows[self.schema.key])
        newest = int(pc.max(rows["known"]).cast(pa.int64()).as_py())
        self._newest = newest if self._newest is None else max(self._newest, newest)
        self._chunks.extend(chunks_of(codes, rows, self.schema))
        if len(self._chunks) > _CHUNKS:
            self._merge()
        if len(codes) > SMALL:
            self._timelines.clear()
            return None
        touched = [self._keys[code] for code in np.unique(codes).tolist()]
        for key in touched:
            self._timelines.pop(key, None)
        return touched

    @property
    def nbytes(self) -> int:
        """Of the columns; the names and their codes come on top."""
        return sum(chunk.nbytes for chunk in self.chunks)

    # -- inside

    def _without_snapshots(self, rows: Rows) -> Rows:
        marks = pc.equal(rows["kind"], "snapshot")
        if not pc.any(marks).as_py():
            return rows
        marked = rows.filter(marks)
        self._snapshots.update(plain(marked["event_id"]))
        newest = int(pc.max(marked["known"]).cast(pa.int64()).as_py())
        self._newest = newest if self._newest is None else max(self._newest, newest)
        return rows.filter(pc.invert(marks)).combine_chunks()

    def _facts(self, keys: Mapping[str, int]) -> dict[str, list[Fact]]:
        """Of keys and their codes."""
        found: dict[str, list[Fact]] = {key: [] for key in keys}
        codes = np.array(list(keys.values()), np.int32)
        for chunk in self._chunks:
            for fact in chunk.facts(codes, self._keys):
                found[fact.key].append(fact)
        for key in keys:
            found[key] += self._recent.get(key, ())
        return {key: _in_order(facts) for key, facts in found.items() if facts}

    def _merge(self) -> None:
        """Make one chunk of the newest small ones, each kind apart."""
        rows, start = 0, len(self._chunks)
        while start > 0 and len(self._chunks[start - 1].codes) <= 4 * max(rows, 256):
            start -= 1
            rows += len(self._chunks[start].codes)
        tail = self._chunks[start:]
        merged = [joined(part) for part in _by_kind(tail) if part]
        self._chunks = [*self._chunks[:start], *merged]


def _in_order(facts: list[Fact]) -> list[Fact]:
    """Commit order: by known instant; of those learned at one instant only the first may merely confirm."""
    return sorted(facts, key=lambda fact: (fact.known, not fact.confirms))


def _by_kind(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    chunks = list(chunks)
    yield [chunk for chunk in chunks if chunk.values is not None]
    yield [chunk for chunk in chunks if chunk.values is None]
