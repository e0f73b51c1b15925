"""The bars of one symbol and interval: a small versioned table, written by the fetcher and read by everybody.

A version's manifest says how many bars there are, from when to when, and the sha256 of their content, so that an
event or a run names exactly the bars it means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from shared.clock import format_instant
from shared.errors import CommitConflict, ContractError, IntegrityError, NotFoundError
from shared.files import sha256_bytes
from shared.tables import Changes, JsonValue, NewSegment, Snapshot, Table, open_table

PRICES = ("open", "high", "low", "close", "volume")

# Bars are few: at this many segments an append writes them all again as one.
_SEGMENTS = 16
_ATTEMPTS = 50
_STAMP = "ts"


@dataclass(frozen=True, slots=True)
class Trading:
    """When the symbol trades, as far as it is known: an IANA zone, the upstream's session text, a calendar's name.

    It is stored with the bars, because it says when each of them became known.
    """

    timezone: str | None = None
    session: str | None = None
    calendar: str | None = None

    def or_else(self, other: Trading) -> Trading:
        """This, with what it does not know taken from the other."""
        return Trading(self.timezone or other.timezone, self.session or other.session, self.calendar or other.calendar)


@dataclass(frozen=True, slots=True)
class BarsInfo:
    """What a version holds. `first_bar` and `last_bar` are None when it is empty."""

    version: int
    rows: int
    first_bar: pd.Timestamp | None
    last_bar: pd.Timestamp | None
    sha256: str
    trading: Trading = Trading()


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What an append did: bars that are new, stamps whose stored values differed, bars that were there already."""

    info: BarsInfo
    added: int
    revised: tuple[pd.Timestamp, ...]
    unchanged: int


class BarsTable:
    """Bars as a DataFrame: UTC DatetimeIndex `ts`, ascending and unique (the bar's opening instant); float64 open,
    high, low, close, volume; then flag columns such as `estimated` where the writer gave them."""

    def __init__(self, table: Table) -> None:
        self.table = table

    @classmethod
    def open(cls, root: Path) -> Self:
        """The table in `root`; nothing is created before the first append."""
        return cls(open_table(root))

    def read(self, version: int | None = None) -> pd.DataFrame:
        """All bars of a version (the newest when None).

        Raises NotFoundError for an unknown version, IntegrityError when the stored bytes are not those written.
        """
        snapshot = self.table.load(version)
        bars = _stored(snapshot)
        found, stated = bars.sha256(), _info(snapshot).sha256
        if found != stated:
            raise IntegrityError(
                f"bars of {self.table.root.name}, version {snapshot.version}, are not those that were written",
                cause=f"content {found[:12]}…, written was {stated[:12]}…",
                fix="asof audit bars --repair, or restore a backup",
            )
        return bars.to_frame()

    def info(self, version: int | None = None) -> BarsInfo:
        """What a version holds, from its manifest alone."""
        return _info(self.table.load(version))

    def added(self, version: int | None, *, since: int, sha256: str) -> pd.DataFrame | None:
        """The bars of a version (the newest when None) behind those of version `since`, when all before are the same.

        None when they are not, or when nobody can say: a bar was revised, came late or left, or version `since` is
        gone or its content has another hash than `sha256`. Only what was written after `since` is read, except where
        older bars were written again. Raises as `read` does.
        """
        snapshot = self.table.load(version)
        try:
            before = _info(self.table.load(since))
        except NotFoundError:
            return None
        if since > snapshot.version or before.sha256 != sha256 or before.last_bar is None:
            return None
        newer = snapshot.since(since)
        if newer is not None:
            found = _bars_in(snapshot.read(segments=newer) if newer else None).to_frame()
            if (found.index > before.last_bar).all() and before.rows + len(found) == _info(snapshot).rows:
                return found
        stored = self.read(snapshot.version)
        head = stored[stored.index <= before.last_bar]
        return stored[stored.index > before.last_bar] if content_sha256(head) == sha256 else None

    def append(self, bars: pd.DataFrame, *, run_id: str, trading: Trading = Trading()) -> AppendResult:
        """Adds bars and revises stored ones, by stamp; of one stamp given twice the last row wins.

        A column that `bars` lacks, and what `trading` does not know, keep their stored values. When nothing is new
        there is no new version. Appends of several processes at once all survive. Raises ContractError for an index
        that is not zoned or a missing price column.
        """
        given = _given(bars, self.table.root.name)
        for _ in range(_ATTEMPTS):
            snapshot = self.table.load()
            stored = _stored(snapshot)
            merged, known, same = _merge(stored, given)
            added, revised = int((~known).sum()), pd.DatetimeIndex(given.index[known & ~same])
            unchanged = len(given.index) - added - len(revised)
            trades = trading.or_else(_trading(snapshot))
            if not added and not len(revised) and trades == _trading(snapshot):
                return AppendResult(_info(snapshot), 0, (), unchanged)
            whole = len(snapshot.segments) >= _SEGMENTS
            fresh = merged if whole else merged.at(given.index[~(known & same)])
            changes = Changes(
                append=(NewSegment(fresh.to_arrow()),) if len(fresh.index) else (),
                drop=tuple(segment.file for segment in snapshot.segments) if whole else (),
            )
            try:
                self.table.commit(snapshot.version, changes, epoch=snapshot.epoch, meta=_meta(merged, run_id, trades))
            except CommitConflict:
                continue
            return AppendResult(_info(self.table.load(snapshot.version + 1)), added, tuple(revised), unchanged)
        raise CommitConflict(
            f"bars of {self.table.root.name} could not be appended",
            cause=f"other writers were faster {_ATTEMPTS} times",
            fix="retry",
        )


@dataclass(frozen=True, slots=True)
class _Bars:
    """Bars as plain arrays: the index in microseconds UTC, ascending and unique; prices as float64, flags as objects
    (None where there is none)."""

    index: pd.DatetimeIndex
    columns: dict[str, np.ndarray]

    def at(self, index: pd.DatetimeIndex) -> _Bars:
        rows = self.index.get_indexer(index)
        return _Bars(index, {name: values[rows] for name, values in self.columns.items()})

    def sha256(self) -> str:
        """Over column names, stamps in nanoseconds and values: the same for equal bars on every machine."""
        parts = ["\x1f".join(self.columns).encode(), self.index.as_unit("ns").asi8.astype("<i8").tobytes()]
        for name, values in self.columns.items():
            if name in PRICES:
                # Adding 0.0 makes -0.0 and 0.0 one value; every NaN is written as the same one.
                parts.append(np.where(np.isnan(values), np.nan, values + 0.0).astype("<f8").tobytes())
            else:
                parts.append("\x1f".join(map(str, values)).encode())
        return sha256_bytes(b"\x1e".join(parts))

    def to_arrow(self) -> pa.Table:
        arrays: dict[str, Any] = {_STAMP: pa.array(self.index.asi8, pa.timestamp("us", "UTC"))}
        for name, values in self.columns.items():
            nothing = name not in PRICES and all(value is None for value in values)
            arrays[name] = pa.array(values, pa.bool_() if nothing else None)
        return pa.table(arrays)

    def to_frame(self) -> pd.DataFrame:
        frame = pd.DataFrame({name: self.columns[name] for name in PRICES}, index=self.index)
        for name, values in self.columns.items():
            if name not in PRICES:
                is_flag = all(value is None or isinstance(value, bool) for value in values)
                frame[name] = pd.array(values, dtype="boolean") if is_flag else values
        return frame


def content_sha256(bars: pd.DataFrame) -> str:
    """The hash that `BarsInfo.sha256` gives for these bars."""
    return _given(bars, "these bars").sha256()


def _stored(snapshot: Snapshot) -> _Bars:
    return _bars_in(snapshot.read() if snapshot.segments else None)


def _bars_in(rows: pa.Table | None) -> _Bars:
    if rows is None or not rows.column_names:
        nothing = pd.DatetimeIndex([], dtype="datetime64[us, UTC]", name=_STAMP)
        return _Bars(nothing, {name: np.empty(0) for name in PRICES})
    stamps = rows[_STAMP].cast(pa.int64()).to_numpy()
    columns = {
        name: np.asarray(rows[name].to_numpy(), dtype="float64")
        if name in PRICES
        else np.array(rows[name].to_pylist(), dtype=object)
        for name in rows.column_names
        if name != _STAMP
    }
    return _sorted(pd.DatetimeIndex(stamps.view("datetime64[us]"), tz="UTC", name=_STAMP), columns)


def _given(bars: pd.DataFrame, name: str) -> _Bars:
    if not isinstance(bars.index, pd.DatetimeIndex) or bars.index.tz is None:
        raise ContractError(
            f"bars of {name} need a DatetimeIndex in UTC",
            cause=f"index is {bars.index.dtype}",
            fix="tz_localize('UTC')",
        )
    missing = [column for column in PRICES if column not in bars.columns]
    if missing:
        raise ContractError(f"bars of {name} lack {', '.join(missing)}", fix="give every price column; NaN is allowed")
    if bars.index.hasnans:
        raise ContractError(f"bars of {name} have a stamp that is no instant (NaT)", fix="drop that row")
    columns = {column: bars[column].to_numpy(dtype="float64", na_value=np.nan) for column in PRICES}
    for column in bars.columns:
        if column not in PRICES:
            columns[column] = _objects(bars[column])
    return _sorted(bars.index.tz_convert("UTC").as_unit("us").rename(_STAMP), columns)


def _objects(flag: pd.Series) -> np.ndarray:
    values = [None if missing else value for value, missing in zip(flag.tolist(), flag.isna(), strict=True)]
    return np.array(values, dtype=object)


def _sorted(index: pd.DatetimeIndex, columns: dict[str, np.ndarray]) -> _Bars:
    """Ascending; of equal stamps the last row."""
    if index.is_monotonic_increasing and index.is_unique:
        return _Bars(index, columns)
    order = np.argsort(index.asi8, kind="stable")
    stamps = index.asi8[order]
    rows = order[np.append(stamps[1:] != stamps[:-1], True)]
    return _Bars(index[rows], {name: values[rows] for name, values in columns.items()})


def _merge(stored: _Bars, given: _Bars) -> tuple[_Bars, np.ndarray, np.ndarray]:
    """All bars after the append; for each given bar whether its stamp was known, and whether all its values were."""
    index = pd.DatetimeIndex(stored.index.union(given.index), name=_STAMP)
    old, new = index.get_indexer(stored.index), index.get_indexer(given.index)
    known = given.index.isin(stored.index)
    same = known.copy()
    columns = {}
    for name in [*stored.columns, *(name for name in given.columns if name not in stored.columns)]:
        values = np.full(len(index), np.nan) if name in PRICES else np.full(len(index), None, dtype=object)
        if name in stored.columns:
            values[old] = stored.columns[name]
        if name in given.columns:
            before, after = values[new], given.columns[name]
            same &= (before == after) | (pd.isna(before) & pd.isna(after))
            values[new] = after
        columns[name] = values
    return _Bars(index, columns), known, same


def _meta(bars: _Bars, run_id: str, trading: Trading) -> dict[str, JsonValue]:
    return {
        "run_id": run_id,
        "rows": len(bars.index),
        "first_bar": format_instant(bars.index[0].to_pydatetime()),
        "last_bar": format_instant(bars.index[-1].to_pydatetime()),
        "content_sha256": bars.sha256(),
        "trading": {"timezone": trading.timezone, "session": trading.session, "calendar": trading.calendar},
    }


def _trading(snapshot: Snapshot) -> Trading:
    known = snapshot.meta.get("trading")
    return Trading(**known) if isinstance(known, dict) else Trading()  # type: ignore[arg-type]  # as _meta wrote it


def _info(snapshot: Snapshot) -> BarsInfo:
    if snapshot.version == 0:
        return BarsInfo(version=0, rows=0, first_bar=None, last_bar=None, sha256=_stored(snapshot).sha256())
    meta = snapshot.meta
    return BarsInfo(
        version=snapshot.version,
        rows=int(str(meta["rows"])),
        first_bar=pd.Timestamp(str(meta["first_bar"])),
        last_bar=pd.Timestamp(str(meta["last_bar"])),
        sha256=str(meta["content_sha256"]),
        trading=_trading(snapshot),
    )
