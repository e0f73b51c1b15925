"""Part of a catalog's facts in memory, by column: what one segment brought, or several small ones together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from services.catalog.adapters.arrow import Column, Rows, pa, pc
from services.catalog.adapters.facts import ORIGIN, SEEN, Origin, origins_of, plain, to_facts
from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact

SMALL = 4096
_FEW = 256
Codes = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]


class Names(Protocol):
    """The key of a code."""

    def __getitem__(self, code: int, /) -> str: ...


@dataclass(frozen=True)
class Chunk:
    """Facts in order of commit. `origin` has a row a fact, or where there are many alike, `shares` says which."""

    schema: Schema
    codes: Codes
    effective: npt.NDArray[np.int64]  # microseconds since 1970
    origin: Rows
    shares: npt.NDArray[np.int32] | None
    values: Rows | None  # the attributes that any fact of the chunk states; None when all only confirm
    _few: list[Fact] | None = None

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

    @cached_property
    def _places_of(self) -> dict[int, list[int]]:
        places: dict[int, list[int]] = {}
        for place, code in enumerate(self.codes.tolist()):
            places.setdefault(code, []).append(place)
        return places

    def places(self, codes: Codes) -> Places:
        """Where the facts of these keys are; those of one key in order of commit."""
        if len(self.codes) <= SMALL:
            few = self._places_of
            return np.array([place for code in codes.tolist() for place in few.get(code, ())], np.int64)
        ordered, order = self._by_code
        starts, ends = np.searchsorted(ordered, codes, "left"), np.searchsorted(ordered, codes, "right")
        found = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)] or [np.arange(0)])
        return found if order is None else order[found]

    def origins(self, places: Places | None = None) -> Rows:
        """The origin of each fact, or of those at `places`."""
        if self.shares is None:
            return self.origin if places is None else self.origin.take(places)
        return self.origin.take(self.shares if places is None else self.shares[places])

    def facts(self, codes: Codes, names: Names) -> Iterator[Fact]:
        """The facts of these keys, those of one key in order of commit. `names`: the key of each code."""
        places = self.places(codes)
        if len(self.codes) > _FEW:
            yield from self._made(places, names)
        elif len(places):
            if self._few is None:  # a delta is asked for again and again
                object.__setattr__(self, "_few", self._made(np.arange(len(self.codes)), names))
            few = self._few
            assert few is not None
            yield from (few[place] for place in places.tolist())

    def _made(self, places: Places, names: Names) -> list[Fact]:
        if len(places) == 0:
            return []
        keys = [names[code] for code in self.codes[places].tolist()]
        values = {name: pick(places) for name, pick in self._pickers.items()}
        return to_facts(keys, self.effective[places].tolist(), self._origins_at(places), values)

    def _origins_at(self, places: Places) -> list[Origin]:
        if self.shares is None or self.origin.num_rows > SMALL:
            return origins_of(self.origins(places), self.schema)
        return [self._shared_origins[share] for share in self.shares[places].tolist()]

    @cached_property
    def _shared_origins(self) -> list[Origin]:
        return origins_of(self.origin, self.schema)

    @cached_property
    def _pickers(self) -> dict[str, Callable[[Places], list[Any]]]:
        values = self.values
        return {} if values is None else {name: _picker(values[name].chunk(0)) for name in values.column_names}


def _picker(column: Column) -> Callable[[Places], list[Any]]:
    """Reads a column at some places. Where numpy can index it, that takes a tenth of what Arrow takes for a few."""
    kind = column.type
    if pa.types.is_dictionary(kind) and len(column.dictionary) <= SMALL:
        words, indices = column.dictionary.to_pylist(), _picker(column.indices)
        return lambda places: [None if code is None else words[code] for code in indices(places)]
    if column.null_count == 0 and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        numbers = column.to_numpy()
        return lambda places: list(numbers[places].tolist())
    return lambda places: plain(column.take(places))


def chunks_of(codes: Codes, rows: Rows, schema: Schema) -> Iterator[Chunk]:
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
        if len(places) > SMALL:
            origin, shares = _shared(origin)
        values = None
        if not confirms:
            # The attribute that every key has stands for the number of rows where nothing is stated.
            stated = [name for name in schema.attributes if name != "active" and _is_stated(part, name)]
            active = part["active"] if "active" in part.column_names else pa.nulls(len(places), pa.bool_())
            values = _compact(part.select(stated).append_column("active", active))
        yield Chunk(schema, own, effective, origin, shares, values)


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
        if pa.types.is_string(one.type) and len(one) > SMALL and len(one[:SMALL].unique()) < SMALL // 2:
            encoded = one.dictionary_encode()
            one = encoded if len(encoded.dictionary) < len(one) // 4 else one
        columns.append(one)
    return pa.table(columns, names=values.column_names)


def joined(chunks: list[Chunk]) -> Chunk:
    codes = np.concatenate([chunk.codes for chunk in chunks])
    effective = np.concatenate([chunk.effective for chunk in chunks])
    origin = pa.concat_tables([chunk.origins() for chunk in chunks]).combine_chunks()
    shares = None
    if len(codes) > SMALL:
        origin, shares = _shared(origin)
    values = None
    if chunks[0].values is not None:
        parts = [_uniform(chunk.values) for chunk in chunks if chunk.values is not None]
        values = _compact(pa.concat_tables(parts, promote_options="default").combine_chunks())
    return Chunk(chunks[0].schema, codes, effective, origin, shares, values)


def _uniform(values: Rows) -> Rows:
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in values.columns
    ]
    return pa.table(columns, names=values.column_names)
