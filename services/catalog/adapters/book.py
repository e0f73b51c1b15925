"""All stored facts in memory, by column, and one key's facts without looking at another's.

A chunk for each segment that was read; small ones are merged as they gather. A fact that changed nothing takes 16
bytes: its key's code, its instant, and which origin (known instant, event, run, stated fields) it shares with others.
Timelines are made when they are asked for and kept for as many keys as a working set has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from services.catalog.adapters.arrow import Column, Rows, pa, pc
from services.catalog.adapters.facts import ORIGIN, SEEN, instant_of, plain, to_facts
from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact, Timeline

_SMALL = 4096
_CHUNKS = 48
_KEPT_TIMELINES = 50_000
Codes = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Facts in order of commit. `origin` has a row a fact, or where there are many alike, `shares` says which."""

    codes: Codes
    effective: npt.NDArray[np.int64]  # microseconds since 1970
    origin: Rows
    shares: npt.NDArray[np.int32] | None
    values: Rows | None  # the attributes that any fact of the chunk states; None when all only confirm

    @property
    def nbytes(self) -> int:
        own = self.codes.nbytes + self.effective.nbytes + self.origin.nbytes
        shares = 0 if self.shares is None else self.shares.nbytes
        return int(own + shares + (0 if self.values is None else self.values.nbytes))

    @cached_property
    def _by_code(self) -> tuple[Codes, Places | None]:
        if np.all(self.codes[1:] >= self.codes[:-1]):
            return self.codes, None
        order = np.argsort(self.codes, kind="stable")
        return self.codes[order], order

    def places(self, codes: Codes) -> Places:
        """Where the facts of these keys are, in order of commit."""
        if len(self.codes) <= _SMALL:
            return np.flatnonzero(np.isin(self.codes, codes)) if len(codes) > 1 else np.flatnonzero(self.codes == codes)
        ordered, order = self._by_code
        starts, ends = np.searchsorted(ordered, codes, "left"), np.searchsorted(ordered, codes, "right")
        found = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)] or [np.arange(0)])
        return np.sort(found if order is None else order[found])

    def origins(self, places: Places | None = None) -> Rows:
        """The origin of each fact, or of those at `places`."""
        if self.shares is None:
            return self.origin if places is None else self.origin.take(places)
        return self.origin.take(self.shares if places is None else self.shares[places])


class Book:
    """Every stored fact of one catalog. See `services.catalog.domain.decide.Book` for what decisions need."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.names: list[str] = []
        self.codes: dict[str, int] = {}
        self.chunks: list[Chunk] = []
        self._newest: int | None = None
        self._snapshots: set[str] = set()
        self._timelines: dict[str, Timeline] = {}
        self._exchanges: tuple[int, dict[str, list[str]]] = (0, {})

    # -- what decisions need

    @property
    def newest_known(self) -> datetime | None:
        return None if self._newest is None else instant_of(self._newest)

    def timelines(self, keys: Iterable[str]) -> dict[str, Timeline]:
        found: dict[str, Timeline] = {}
        missing: list[str] = []
        for key in keys:
            timeline = self._timelines.get(key)
            if timeline is not None:
                found[key] = timeline
            elif key in self.codes:
                missing.append(key)
        for start in range(0, len(missing), _KEPT_TIMELINES):
            part = missing[start : start + _KEPT_TIMELINES]
            made = {key: Timeline.of(key, facts, self.schema) for key, facts in self._facts(part).items()}
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

    def keep(self, timelines: Mapping[str, Timeline]) -> None:
        """Remember these timelines, which are up to date."""
        if len(self._timelines) + len(timelines) > _KEPT_TIMELINES:
            self._timelines.clear()
        if len(timelines) <= _KEPT_TIMELINES:
            self._timelines.update(timelines)

    def add(self, rows: Rows) -> list[str] | None:
        """Take in stored rows, in order of commit; the keys they are about, None when they are very many."""
        rows = self._without_snapshots(rows.combine_chunks())
        if rows.num_rows == 0:
            return []
        codes = self._coded(rows[self.schema.key])
        newest = int(pc.max(rows["known"]).cast(pa.int64()).as_py())
        self._newest = newest if self._newest is None else max(self._newest, newest)
        self.chunks.extend(_chunks(codes, rows, self.schema))
        if len(self.chunks) > _CHUNKS:
            self._merge()
        if len(codes) > _SMALL:
            self._timelines.clear()
            return None
        touched = [self.names[code] for code in np.unique(codes)]
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

    def _coded(self, column: Column) -> Codes:
        distinct = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        encoded = distinct if pa.types.is_dictionary(distinct.type) else None
        if not self.names and encoded is None:
            names = distinct.to_pylist()
            codes = dict(zip(names, range(len(names)), strict=True))
            if len(codes) == len(names):
                self.names, self.codes = names, codes
                return np.arange(len(names), dtype=np.int32)
        encoded = encoded if encoded is not None else distinct.dictionary_encode()
        mapped = np.empty(len(encoded.dictionary), np.int32)
        for place, name in enumerate(encoded.dictionary.to_pylist()):
            code = self.codes.setdefault(name, len(self.names))
            if code == len(self.names):
                self.names.append(name)
            mapped[place] = code
        coded: Codes = mapped[encoded.indices.to_numpy(zero_copy_only=False)]
        return coded

    def _facts(self, keys: list[str]) -> dict[str, list[Fact]]:
        found: dict[str, list[Fact]] = {key: [] for key in keys}
        codes = np.fromiter((self.codes[key] for key in keys), np.int32, len(keys))
        for chunk in self.chunks:
            places = chunk.places(codes)
            if len(places) == 0:
                continue
            origins = chunk.origins(places)
            columns: dict[str, list[Any]] = {name: plain(origins[name]) for name in ORIGIN}
            columns["effective"] = chunk.effective[places].tolist()
            if chunk.values is not None:
                values = chunk.values.take(places)
                columns |= {name: plain(values[name]) for name in values.column_names}
            own = [self.names[code] for code in chunk.codes[places]]
            for fact in to_facts(own, columns, self.schema):
                found[fact.key].append(fact)
        # Chunks keep facts that only confirm apart from the others; which was first matters.
        return {key: _in_order(facts) for key, facts in found.items() if facts}

    def _merge(self) -> None:
        """Make one chunk of the newest small ones, each kind apart."""
        rows, start = 0, len(self.chunks)
        while start > 0 and len(self.chunks[start - 1].codes) <= 4 * max(rows, 256):
            start -= 1
            rows += len(self.chunks[start].codes)
        tail = self.chunks[start:]
        merged = [_joined(part) for part in _by_kind(tail) if part]
        self.chunks = [*self.chunks[:start], *merged]


def _in_order(facts: list[Fact]) -> list[Fact]:
    """Commit order: by known instant; of those learned at one instant only the first may merely confirm."""
    return sorted(facts, key=lambda fact: (fact.known, not fact.confirms))


def _by_kind(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    chunks = list(chunks)
    yield [chunk for chunk in chunks if chunk.values is not None]
    yield [chunk for chunk in chunks if chunk.values is None]


def _chunks(codes: Codes, rows: Rows, schema: Schema) -> Iterator[Chunk]:
    seen = pc.equal(rows["kind"], SEEN).to_numpy()
    for confirms in (False, True):
        places = np.flatnonzero(seen == confirms)
        if len(places) == 0:
            continue
        part = rows if len(places) == len(codes) else rows.take(places)
        own = codes[places]
        effective = part["effective"].cast(pa.int64()).to_numpy()
        origin = _full(part, ORIGIN)
        shares = None
        if len(places) > _SMALL:
            origin, shares = _shared(origin)
        values = None
        if not confirms:
            # The attribute that every key has stands for the number of rows where nothing is stated.
            stated = [name for name in schema.attributes if name == "active" or _is_stated(part, name)]
            values = _compact(part.select(stated))
        yield Chunk(own, effective, origin, shares, values)


def _is_stated(rows: Rows, name: str) -> bool:
    return name in rows.column_names and rows[name].null_count < rows.num_rows


def _full(rows: Rows, names: Iterable[str]) -> Rows:
    """These columns, null where an older segment lacks one, instants as microseconds."""
    columns = {}
    for name in names:
        column = rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, pa.string())
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        elif name == "asked" and not pa.types.is_integer(column.type):
            column = pa.nulls(rows.num_rows, pa.int64())
        elif pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        columns[name] = column
    return pa.table(columns)


def _shared(origin: Rows) -> tuple[Rows, npt.NDArray[np.int32] | None]:
    """The distinct origins, and which of them each fact has; as they are when they are hardly shared."""
    combined = np.zeros(origin.num_rows, np.int64)
    size = 1
    for column in origin.columns:
        encoded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
        distinct = len(encoded.dictionary)
        if distinct > 1:
            size *= distinct
            if size > 1 << 62:
                return origin, None
            combined = combined * distinct + encoded.indices.to_numpy(zero_copy_only=False)
    if size == 1:
        return origin.slice(0, 1).take([0]), np.zeros(origin.num_rows, np.int32)
    _, first, shares = np.unique(combined, return_index=True, return_inverse=True)
    if len(first) > origin.num_rows // 2:
        return origin, None
    return origin.take(first), shares.astype(np.int32)


def _compact(values: Rows) -> Rows:
    """Text that repeats is kept once."""
    columns = []
    for column in values.columns:
        one = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if pa.types.is_string(one.type) and len(one) > _SMALL:
            encoded = one.dictionary_encode()
            one = encoded if len(encoded.dictionary) < len(one) // 4 else one
        columns.append(one)
    return pa.table(columns, names=values.column_names)


def _joined(chunks: list[Chunk]) -> Chunk:
    codes = np.concatenate([chunk.codes for chunk in chunks])
    effective = np.concatenate([chunk.effective for chunk in chunks])
    origin = pa.concat_tables([chunk.origins() for chunk in chunks]).combine_chunks()
    shares = None
    if len(codes) > _SMALL:
        origin, shares = _shared(origin)
    values = None
    if chunks[0].values is not None:
        parts = [_uniform(chunk.values) for chunk in chunks if chunk.values is not None]
        values = _compact(pa.concat_tables(parts, promote_options="default").combine_chunks())
    return Chunk(codes, effective, origin, shares, values)


def _uniform(values: Rows) -> Rows:
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in values.columns
    ]
    return pa.table(columns, names=values.column_names)
