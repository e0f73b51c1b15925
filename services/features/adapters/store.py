"""The master feature store: one versioned table for each interval and rules.

The manifest of the commit that merges a run is the promotion record: it names the run, the catalog version that
belongs to it and the decision. A run's symbols come whole, in segments that hide their older rows; no other symbol's
rows are read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from services.features.adapters.histories import HISTORIES, index_after
from services.features.adapters.matrix import wide_table
from services.features.adapters.rows import LOCAL, SCHEMA, adjustments_in, by_symbol
from services.features.adapters.whole import whole_rows
from services.features.ports import Merged
from shared.clock import format_instant
from shared.errors import CommitConflict, IntegrityError
from shared.events import FileRef, PromotionDecided
from shared.files import sha256_bytes
from shared.paths import Home
from shared.tables import Changes, JsonValue, NewSegment, Snapshot, Table, open_table

PROD = "prod"
_EXPORTED = ("1d", "screener")
_ATTEMPTS = 50
# So many segments cost readers more than merging them does.
_SEGMENTS = 64


class LakehouseFeatures:
    def __init__(self, home: Home, clock: Callable[[], datetime]) -> None:
        self._home = home
        self._clock = clock

    def merge(
        self,
        decided: PromotionDecided,
        *,
        strict_scope: bool,
        parity: Mapping[str, object],
        ratings: Mapping[str, object],
    ) -> Merged:
        table = open_table(self._home.features_table(decided.interval, decided.rules.name))
        staged = None
        for _ in range(_ATTEMPTS):
            base = table.load()
            merged = _merged_before(table, base, decided)
            if merged is not None:
                break
            staged = staged if staged is not None else self._read_staged(decided, table)
            segments = [_with_earlier_observations(base, part) for part in staged.parts]
            rows = sum(part.num_rows for part in segments)
            meta: dict[str, JsonValue] = {
                "run_id": decided.run_id,
                "catalog_version": decided.catalog_version,
                "decision": decided.ledger_head,
                "coverage": decided.coverage.sha256,
                "waivers": list(decided.waivers),
                "interval": decided.interval,
                "rules": decided.rules.name,
                "rules_version": decided.rules.version,
                "promoted_at": format_instant(self._clock()),
                "parent": base.version,
                "symbols": len(decided.symbols),
                "rows": rows,
                "current_rows": sum(_current_count(part) for part in segments) + _kept_current(base, strict_scope),
                "strict_scope": strict_scope,
                "parity": dict(parity),  # type: ignore[arg-type]  # JSON by its maker
                "ratings": dict(ratings),  # type: ignore[arg-type]  # JSON by its maker
                "adjustments": dict(staged.adjustments),
                HISTORIES: index_after(self._home, base, decided.run_id, staged.symbols, alone=strict_scope),
            }
            changes = Changes(
                append=tuple(NewSegment(part, keys=_symbols(part)) for part in segments),
                drop=tuple(segment.file for segment in base.segments) if strict_scope else (),
            )
            try:
                version = table.commit(base.version, changes, epoch=base.epoch, meta=meta)
            except CommitConflict:
                continue
            merged = Merged(version, base.version, len(decided.symbols), rows)
            break
        else:
            raise CommitConflict(
                f"run {decided.run_id} could not be merged",
                cause=f"other runs were faster {_ATTEMPTS} times",
                fix="wait; it is tried again",
            )
        _tag_newest(table)
        if len(table.load().segments) > _SEGMENTS:
            table.compact(small_only=True)
        return merged

    def export(self, interval: str, rules: str) -> None:
        if (interval, rules) != _EXPORTED:
            return
        table = open_table(self._home.features_table(interval, rules))
        written = None
        # Again when another run was merged meanwhile: of two exports the older one may be written last.
        while written != (newest := table.load().version):
            table.export(self._home.features_export, newest, wide_table)
            written = newest

    def _read_staged(self, decided: PromotionDecided, table: Table) -> _Decided:
        """Of a symbol in two files the last batch counts: a retry comes later."""
        parts, adjustments = [], {}
        for ref in sorted(decided.staged, key=lambda ref: int(Path(ref.path).stem)):
            data = self._verified(ref)
            part = whole_rows(table, data, ref.path)
            parts.append((ref, part))
            stated = adjustments_in(data)
            adjustments.update({symbol: stated.get(symbol, []) for symbol in _symbols(part)})
        owner = {symbol: ref.path for ref, part in parts for symbol in _symbols(part)}
        wanted = set(decided.symbols)
        missing = sorted(wanted - owner.keys())
        if missing:
            raise IntegrityError(
                f"run {decided.run_id}: {missing[0]} is granted and stands in no staged file",
                cause=f"{len(missing)} of {len(wanted)} symbols are missing",
                fix=f"asof retry {decided.run_id}",
            )
        chosen, symbols = [], {}
        for ref, part in parts:
            own = [symbol for symbol in _symbols(part) if symbol in wanted and owner[symbol] == ref.path]
            symbols[ref] = own
            if own:
                chosen.append(part.filter(pc.is_in(part["symbol"].cast(pa.string()), pa.array(own, pa.string()))))
        used = {symbol: ones for symbol, ones in sorted(adjustments.items()) if ones and symbol in wanted}
        return _Decided(chosen, symbols, used)

    def _verified(self, ref: FileRef) -> bytes:
        path = self._home.resolve(ref.path)
        try:
            data = path.read_bytes()
        except FileNotFoundError as fault:
            raise IntegrityError(f"{ref.path} is gone", cause=str(fault), fix="asof retry RUN") from fault
        found = sha256_bytes(data)
        if found != ref.sha256:
            raise IntegrityError(
                f"{ref.path} is not the file that was decided on",
                cause=f"sha256 {found[:12]}…, decided on was {ref.sha256[:12]}…",
                fix="asof retry RUN",
            )
        return data


class _Decided(NamedTuple):
    """The decided rows, a table a file; the decided symbols of each file; and by symbol the recorded adjustments that
    its rows were computed with."""

    parts: list[pa.Table]
    symbols: dict[FileRef, list[str]]
    adjustments: dict[str, JsonValue]


def _merged_before(table: Table, newest: Snapshot, decided: PromotionDecided) -> Merged | None:
    """The version that this run made already. A rollback to it repeats its meta; its parent tells which it was."""
    for version in reversed(table.versions()):
        if version <= decided.base.features:
            return None
        meta = (newest if version == newest.version else table.load(version)).meta
        if meta.get("run_id") == decided.run_id:
            parent = _int(meta["parent"])
            return Merged(parent + 1, parent, _int(meta["symbols"]), _int(meta["rows"]))
    return None


def _with_earlier_observations(base: Snapshot, part: pa.Table) -> pa.Table:
    """The rows of a staged file, and what screeners said of its symbols in earlier runs: an observation stays."""
    if not _int(base.meta.get("current_rows", 0)):
        return part
    known = [symbol for symbol in _symbols(part) if symbol in base.keys]
    rows = base.read(SCHEMA.names, keys=known).cast(SCHEMA) if known else part.slice(0, 0)
    rows = rows.filter(pc.invert(pc.is_in(rows["source"].cast(pa.string()), pa.array([LOCAL]))))
    stated = {(row["symbol"], row["ts"]) for row in _current(part).select(["symbol", "ts"]).to_pylist()}
    fresh = [(row["symbol"], row["ts"]) not in stated for row in rows.select(["symbol", "ts"]).to_pylist()]
    rows = rows.filter(pa.array(fresh, pa.bool_()))
    return by_symbol([part, rows]) if rows.num_rows else part


def _current(part: pa.Table) -> pa.Table:
    return part.filter(pc.invert(pc.is_in(part["source"].cast(pa.string()), pa.array([LOCAL]))))


def _current_count(part: pa.Table) -> int:
    return int(_current(part).num_rows)


def _kept_current(base: Snapshot, strict_scope: bool) -> int:
    # An upper bound is enough: it only says whether there is anything to look for.
    return 0 if strict_scope else _int(base.meta.get("current_rows", 0))


def _symbols(part: pa.Table) -> tuple[str, ...]:
    return tuple(str(symbol) for symbol in pc.unique(part["symbol"].cast(pa.string())).to_pylist())


def _tag_newest(table: Table) -> None:
    """Moves the tag, also when another merge moved it meanwhile: it ends on the newest version."""
    while True:
        newest = table.load().version
        table.tag(PROD, newest)
        if table.load().version == newest:
            return


def _int(value: JsonValue) -> int:
    assert isinstance(value, int), "this adapter wrote it"
    return value
