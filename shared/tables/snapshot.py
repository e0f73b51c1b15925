"""A pinned version of a table: what it holds does not change, whatever writers do meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from shared.errors import ContractError, NotFoundError
from shared.tables.model import JsonValue, Manifest, Segment
from shared.tables.segment import OpenSegment, corrupt, open_segment


def _never(version: int) -> bool:
    return False


@dataclass(frozen=True)
class Snapshot:
    """One version. Loading it reads its manifest only; rows are read from the segments when asked for."""

    root: Path
    manifest: Manifest
    was_collected: Callable[[int], bool] = _never

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def epoch(self) -> int:
        return self.manifest.epoch

    @property
    def meta(self) -> Mapping[str, JsonValue]:
        """What the commit of this very version said about itself."""
        return self.manifest.meta

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.manifest.segments

    @property
    def bytes(self) -> int:
        """Bytes of all live segments."""
        return sum(segment.size for segment in self.segments)

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Live keys of keyed segments, each with the file of the newest segment that holds it whole."""
        return {key: segment.file for segment in self.segments for key in segment.keys or ()}

    def since(self, version: int) -> tuple[Segment, ...] | None:
        """The segments a follower that has read all of `version` still has to read, in order; None: start anew.

        A keyed segment among them replaces what the follower knows of its keys. Compaction that changed no row costs a
        follower nothing, unless it ran across the version the follower is at.
        """
        if version < self.manifest.rewritten or version > self.version:
            return None
        new = tuple(segment for segment in self.segments if segment.last > version)
        return None if any(segment.first <= version for segment in new) else new

    def read(
        self,
        columns: Sequence[str] | None = None,
        keys: Iterable[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002  the word pyarrow uses for it
        *,
        segments: Sequence[Segment] | None = None,
    ) -> pa.Table:
        """The live rows, in order of commit; only the files, row groups and columns that are needed are touched.

        keys      only rows of these keys (the values of each segment's key column)
        filter    a pyarrow expression over any column, by name; it sees the types of the segments that are read
        segments  only rows of these of this version's segments, for a follower (`since`)

        A column that appeared later is null in older rows. An empty table has no columns: asked-for ones come back
        as nulls. Raises ContractError for a column that no segment has, IntegrityError for a file that is not what
        was written, NotFoundError when this version was collected meanwhile.
        """
        wanted = None if keys is None else frozenset(keys)
        only = None if segments is None else {segment.file for segment in segments}
        plan = [(segment, live) for segment, live in self._plan(wanted) if only is None or segment.file in only]
        reads = [(self._open(segment), live) for segment, live in plan]
        schema = self._schema([opened for opened, _ in reads], columns, filter)
        names = schema.names if columns is None else list(columns)
        parts = [_rows(opened, schema, names, live, filter) for opened, live in reads]
        return pa.concat_tables(parts) if parts else pa.schema([schema.field(name) for name in names]).empty_table()

    def touched(self, keys: Iterable[str]) -> tuple[Segment, ...]:
        """The segments that a read of these keys opens."""
        return tuple(segment for segment, _ in self._plan(frozenset(keys)))

    def _plan(self, wanted: frozenset[str] | None) -> list[tuple[Segment, _Keys]]:
        """Which segments to read, and which of their keys: newer keyed segments hide keys of older ones."""
        hidden: set[str] = set()
        plan = []
        for segment in reversed(self.segments):
            keys = _live_keys(segment, hidden, wanted)
            if keys.only is None or keys.only:
                plan.append((segment, keys))
            hidden.update(segment.keys or ())
        return plan[::-1]

    def _open(self, segment: Segment) -> OpenSegment:
        try:
            return open_segment(self.root, segment)
        except FileNotFoundError as fault:
            if self.was_collected(self.version):
                raise NotFoundError(
                    f"version {self.version} was collected while it was read", cause=str(fault), fix="load the newest"
                ) from fault
            raise corrupt(segment.file, "the file is missing") from fault

    def _schema(
        self, opened: list[OpenSegment], columns: Sequence[str] | None, where: pc.Expression | None
    ) -> pa.Schema:
        """The columns of these segments; when others are asked for or the filter needs them, those of all segments."""
        found = _unify(opened)
        missing = [name for name in columns or () if name not in found.names]
        if missing or not _suffices(found, where):
            read = {each.segment.file for each in opened}
            found = _unify([*opened, *(self._open(other) for other in self.segments if other.file not in read)])
        unknown = [name for name in missing if name not in found.names]
        if unknown and self.segments:
            raise ContractError(
                f"the table has no column {unknown[0]!r}",
                cause=f"version {self.version} has {sorted(found.names)}",
                fix="check the name",
            )
        return pa.schema([*found, *(pa.field(name, pa.null()) for name in unknown)])


@dataclass(frozen=True, slots=True)
class _Keys:
    """Which keys of a segment to read: `only` these (None: all), `but` not those."""

    only: tuple[str, ...] | None = None
    but: tuple[str, ...] = ()

    def where(self, column: str) -> pc.Expression | None:
        if self.only is not None:
            return pc.field(column).isin(self.only)
        return ~pc.field(column).isin(self.but) if self.but else None


def _live_keys(segment: Segment, hidden: set[str], wanted: frozenset[str] | None) -> _Keys:
    if segment.keys is None:
        return _Keys(but=tuple(hidden)) if wanted is None else _Keys(only=tuple(wanted - hidden))
    live = tuple(key for key in segment.keys if key not in hidden and (wanted is None or key in wanted))
    return _Keys() if len(live) == len(segment.keys) else _Keys(only=live)


def _rows(
    opened: OpenSegment, schema: pa.Schema, names: list[str], keys: _Keys, where: pc.Expression | None
) -> pa.Table:
    of_keys = keys.where(opened.segment.key_column)
    if of_keys is not None:
        where = of_keys if where is None else of_keys & where
    part = opened.read(names) if where is None else opened.read_where(schema, names, where, keys.only)
    return _as(part, schema, names)


def _suffices(schema: pa.Schema, where: pc.Expression | None) -> bool:
    """Whether the filter can be evaluated on these columns: an expression does not tell which ones it names."""
    if where is None:
        return True
    try:
        ds.dataset(schema.empty_table()).scanner(filter=where)
    except pa.ArrowException:
        return False
    return True


def _unify(opened: list[OpenSegment]) -> pa.Schema:
    fields: dict[str, pa.DataType] = {}
    for each in opened:
        for field in each.schema:
            known = fields.get(field.name)
            fields[field.name] = (
                field.type if known is None else _wider(known, field.type, field.name, each.segment.file)
            )
    return pa.schema(list(fields.items()))


def _wider(known: pa.DataType, other: pa.DataType, name: str, file: str) -> pa.DataType:
    if known == other or pa.types.is_null(other):
        return known
    if pa.types.is_null(known):
        return other
    if isinstance(known, pa.DictionaryType) and known.value_type == other:
        return known
    if isinstance(other, pa.DictionaryType) and other.value_type == known:
        return other
    try:
        schemas = [pa.schema([(name, known)]), pa.schema([(name, other)])]
        merged: pa.DataType = pa.unify_schemas(schemas, promote_options="permissive").field(name).type
    except pa.ArrowException as fault:
        raise ContractError(
            f"column {name!r} changed its type", cause=f"{file} has {other}, older segments {known}", fix="cast it"
        ) from fault
    return merged


def _as(table: pa.Table, schema: pa.Schema, names: list[str]) -> pa.Table:
    if table.column_names == names and all(field.type == schema.field(field.name).type for field in table.schema):
        return table
    arrays = []
    for name in names:
        kind = schema.field(name).type
        if name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, kind))
        elif table.schema.field(name).type == kind:
            arrays.append(table[name])
        else:
            arrays.append(table[name].cast(kind))
    return pa.table(arrays, names=names)
