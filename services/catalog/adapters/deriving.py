"""A panel of the stored facts: derived at once where that is exact.

Most keys have facts that arrived in the order in which they hold; for those, versions are each column filled forward
and compared with the row before. A key with a late event, two events at one instant or a float that moved by less than
the tolerance goes through its timeline instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.catalog.adapters.arrow import Column, Rows, pa, pc
from services.catalog.adapters.book import Book
from services.catalog.adapters.chunk import Chunk
from services.catalog.adapters.facts import SEEN, TYPES, instant_of, micros
from services.catalog.adapters.panel import Bools, Ints, Panel
from services.catalog.domain.schema import Schema, default_hours

_REL = 1e-9
_DEFAULTED = ("timezone", "session")  # compared as they are shown
_BOOKKEEPING = ("run_id", "source", "sources")


def derive(book: Book, known: int | None = None) -> Panel:
    """All versions, as they are, or as they stood at `known`."""
    facts = _gather(book, known)
    odd = _odd_keys(facts)
    panel, more = _filled(facts.without(odd), book)
    odd = np.union1d(odd, more)
    if len(more):
        panel, _ = _filled(facts.without(odd), book)
    return _with_timelines(panel, odd, book, known) if len(odd) else panel


@dataclass(frozen=True)
class _Facts:
    """Facts ordered by code, effective and known instant; `values` has a row for each, null where none is stated."""

    codes: npt.NDArray[np.int32]
    effective: Ints
    known: Ints
    stated: Ints
    first: Bools
    retires: Bools
    order: Ints | None
    values: Rows

    def without(self, codes: npt.NDArray[np.int32]) -> _Facts:
        if len(codes) == 0:
            return self
        kept = np.flatnonzero(~np.isin(self.codes, codes))
        order = kept if self.order is None else self.order[kept]
        return _Facts(
            self.codes[kept],
            self.effective[kept],
            self.known[kept],
            self.stated[kept],
            self.first[kept],
            self.retires[kept],
            order,
            self.values,
        )


def _gather(book: Book, known: int | None) -> _Facts:
    schema = book.schema
    parts = [_part(chunk, schema, known) for chunk in book.chunks]
    codes = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int32)])
    effective, learned, stated, retires = (
        np.concatenate([part[place] for part in parts] or [np.zeros(0, np.int64)]) for place in (1, 2, 3, 4)
    )
    values = pa.concat_tables([part[5] for part in parts]) if parts else _empty(schema)
    order = None
    if not np.all(codes[1:] > codes[:-1]):
        order = np.lexsort((learned, effective, codes))
        codes, effective, learned, stated, retires = (
            array[order] for array in (codes, effective, learned, stated, retires)
        )
    first = np.append(True, codes[1:] != codes[:-1])[: len(codes)]
    return _Facts(codes, effective, learned, stated, first, retires.astype(bool), order, values)


def _part(chunk: Chunk, schema: Schema, known: int | None) -> tuple[Any, Any, Any, Any, Any, Rows]:
    own = chunk.origin
    kept = None
    learned, kinds = own["known"].to_numpy(), own["kind"]
    seen = pc.equal(kinds, SEEN).to_numpy()
    stated = np.where(seen, 0, own["stated"].to_numpy())
    retires = pc.equal(kinds, "retire").to_numpy()
    if chunk.shares is not None:
        learned, stated, retires = learned[chunk.shares], stated[chunk.shares], retires[chunk.shares]
    bookkeeping = chunk.origins().select(_BOOKKEEPING)
    values = _wide(chunk.values, bookkeeping, schema)
    codes: Any = chunk.codes
    effective: Any = chunk.effective
    if known is not None and np.any(learned > known):
        kept = np.flatnonzero(learned <= known)
        codes, effective, learned, stated, retires = (a[kept] for a in (codes, effective, learned, stated, retires))
        values = values.take(kept)
    return codes, effective, learned, stated, retires, values


def _wide(values: Rows | None, bookkeeping: Rows, schema: Schema) -> Rows:
    columns = []
    for name, kind in schema.attributes.items():
        column = values[name] if values is not None and name in values.column_names else None
        if column is None:
            column = pa.nulls(bookkeeping.num_rows, TYPES[kind])
        columns.append(_dictionary(column) if kind is str else column)
    columns += [_dictionary(bookkeeping[name]) for name in _BOOKKEEPING]
    return pa.table(columns, names=[*schema.attributes, *_BOOKKEEPING])


def _dictionary(column: Column) -> Any:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _empty(schema: Schema) -> Rows:
    return _wide(None, pa.table({name: pa.nulls(0, pa.string()) for name in _BOOKKEEPING}), schema)


def _odd_keys(facts: _Facts) -> npt.NDArray[np.int32]:
    """The codes of keys whose facts did not simply arrive one after another."""
    follows = ~facts.first[1:]
    tied = facts.effective[1:] == facts.effective[:-1]
    late = facts.known[1:] < facts.known[:-1]
    # What only confirms was learned before all else that was learned at its instant: the value may have changed since.
    late |= (facts.known[1:] == facts.known[:-1]) & (facts.stated[1:] == 0)
    odd = facts.codes[1:][follows & (tied | late)]
    return np.union1d(odd, facts.codes[facts.first & facts.retires])


def _filled(facts: _Facts, book: Book) -> tuple[Panel, npt.NDArray[np.int32]]:
    """The versions of these keys, and the codes of those that need their timeline after all."""
    schema, count = book.schema, len(facts.codes)
    values = facts.values if facts.order is None else facts.values.take(pa.array(facts.order))
    values = values.unify_dictionaries().combine_chunks()
    here = np.arange(count)
    single = bool(np.all(facts.first))
    starts = facts.first.copy()
    odd = np.zeros(0, np.int32)
    sources: dict[str, Ints] = {}
    for bit, (name, kind) in enumerate(schema.attributes.items()):
        column = values[name].chunk(0) if values[name].num_chunks else values[name].combine_chunks()
        if name == "active":
            filled = pc.if_else(pc.and_(pa.array(facts.first), pc.is_null(column)), True, column)
            values = values.set_column(bit, name, filled)
            column = filled
        if single:
            continue
        stated = (facts.stated >> bit & 1).astype(bool) | facts.first
        source = sources[name] = np.maximum.accumulate(np.where(stated, here, 0))
        if name in _DEFAULTED:
            continue
        differs, near = _compared(column, kind, source)
        starts[1:] |= differs & ~facts.first[1:]
        odd = np.union1d(odd, facts.codes[1:][near & ~facts.first[1:]])
    defaulted = _hours(values, facts, sources, book)
    for name in () if single else _DEFAULTED:
        if name in defaulted:
            differs, _ = _compared(defaulted[name], str, here)
        elif name in sources:
            differs, _ = _compared(values[name].combine_chunks(), str, sources[name])
        else:
            continue
        starts[1:] |= differs & ~facts.first[1:]
    chosen = np.flatnonzero(starts)
    columns = {}
    for name in values.column_names:
        if name in defaulted:
            columns[name] = defaulted[name] if single else defaulted[name].take(pa.array(chosen))
        else:
            place = sources.get(name, here)[chosen]
            columns[name] = values[name] if single else values[name].take(pa.array(place))
    ends = np.append(chosen[1:], count) - 1 if count else chosen
    panel = Panel(
        list(book.names),
        facts.codes[chosen],
        facts.effective[chosen],
        facts.known[chosen],
        facts.effective[ends],
        pa.table(columns),
    )
    return panel, odd


def _compared(column: Any, kind: type, source: Ints) -> tuple[Bools, Bools]:
    """Whether each row's value differs from the one before, and whether it moved by less than what counts."""
    if kind is float:
        values = column.to_numpy(zero_copy_only=False)[source]
        old, new = values[:-1], values[1:]
        moved = ~((old == new) | (np.isnan(old) & np.isnan(new)))
        near = moved & (np.abs(new - old) <= _REL * np.maximum(np.abs(new), np.abs(old)))
        return moved & ~near, near
    if pa.types.is_dictionary(column.type):
        column = column.indices
    null = pc.is_null(column).to_numpy(zero_copy_only=False)[source]
    values = pc.fill_null(column, False if kind is bool else 0).to_numpy(zero_copy_only=False)[source]
    differs = (values[1:] != values[:-1]) | (null[1:] != null[:-1])
    return differs, np.zeros(len(differs), bool)


def _hours(values: Rows, facts: _Facts, sources: dict[str, Ints], book: Book) -> dict[str, Column]:
    """Timezone and session with their defaults, a value for each fact; empty where none is null."""
    if book.schema.key != "symbol" or len(facts.codes) == 0:
        return {}
    stated = {name: _at(values, sources, name) for name in ("timezone", "session", "type", "subtype")}
    if not any(stated[name].null_count for name in ("timezone", "session")):
        return {}
    missing = np.flatnonzero(
        pc.or_(pc.is_null(stated["timezone"]), pc.is_null(stated["session"])).to_numpy(zero_copy_only=False)
    )
    exchange = pa.array(book.names).take(pa.array(facts.codes[missing]))
    exchange = pc.list_element(pc.split_pattern(exchange, ":", max_splits=1), 0)
    asked = pa.table([exchange, *(stated[name].take(pa.array(missing)) for name in ("type", "subtype"))], names="etu")
    kinds = asked.group_by(["e", "t", "u"], use_threads=False).aggregate([]).to_pylist()
    hours = [default_hours(kind["e"], kind["t"], kind["u"]) for kind in kinds]
    place = {(kind["e"], kind["t"], kind["u"]): which for which, kind in enumerate(kinds)}
    if len(kinds) == 1:
        which = np.zeros(len(missing), np.int64)
    else:
        which = np.fromiter(map(place.__getitem__, zip(*(c.to_pylist() for c in asked.columns), strict=True)), np.int64)
    every = np.zeros(len(facts.codes), np.int64)
    every[missing] = which
    filled = {}
    for side, name in enumerate(("timezone", "session")):
        default = pa.array([hour[side] for hour in hours]).take(pa.array(every))
        filled[name] = pc.coalesce(stated[name], default).dictionary_encode()
    return filled


def _at(values: Rows, sources: dict[str, Ints], name: str) -> Column:
    column = values[name].combine_chunks().cast(pa.string())
    return column.take(pa.array(sources[name])) if name in sources else column


def _with_timelines(panel: Panel, odd: npt.NDArray[np.int32], book: Book, known: int | None) -> Panel:
    """The panel with the versions of these keys put between those of the others."""
    timelines = book.timelines([book.names[code] for code in odd])
    if known is not None:
        timelines = {key: timeline.known_by(instant_of(known)) for key, timeline in timelines.items()}
    made = [(book.codes[key], row) for key, timeline in timelines.items() for row in timeline.rows]
    attributes = book.schema.attributes
    columns: dict[str, Any] = {
        name: pa.array([row.shown[name] for _, row in made], TYPES[kind]) for name, kind in attributes.items()
    }
    columns |= {name: pa.array([getattr(row.maker, name) for _, row in made], pa.string()) for name in _BOOKKEEPING}
    codes = np.append(panel.codes, np.array([code for code, _ in made], np.int32))
    start = np.append(panel.start, np.array([micros(row.start) for _, row in made], np.int64))
    updated = np.append(panel.updated, np.array([micros(row.updated) for _, row in made], np.int64))
    confirmed = np.append(panel.confirmed, np.array([micros(row.confirmed) for _, row in made], np.int64))
    order = np.lexsort((start, codes))
    mixed = {}
    for name in panel.columns.column_names:
        column = columns[name]
        if pa.types.is_dictionary(panel.columns[name].type):
            column = column.dictionary_encode()
        both = pa.chunked_array([*panel.columns[name].chunks, column])
        if pa.types.is_dictionary(both.type):
            both = both.unify_dictionaries()
        mixed[name] = both.take(pa.array(order))
    return Panel(panel.names, codes[order], start[order], updated[order], confirmed[order], pa.table(mixed))
