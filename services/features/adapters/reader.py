"""`FeatureReader`: the feature store as a backtest reads it. Files only; every read is of one committed version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.features.adapters.matrix import MATRIX_FEATURES, closed_rows, to_matrix
from services.features.adapters.rows import LOCAL, SCHEMA, from_parquet
from services.features.domain.ratings.rules import rules_named
from services.features.domain.sessions import interval_length, to_stamp
from services.features.domain.takeover import IMPORTED
from services.features.domain.validation_features import FEATURES
from shared.clock import parse_instant
from shared.errors import ContractError, NotFoundError
from shared.paths import Home
from shared.symbols import nearest
from shared.tables import Snapshot, Table, open_table

if TYPE_CHECKING:  # a reader of rows needs no compiler
    from services.features.adapters.explaining import StoredExplanation

Instant = str | date | datetime
_Version = tuple[str, str, int]  # interval, rules, version
_ROWS = ["symbol", "ts", *MATRIX_FEATURES, "source"]


class FeatureReader:
    """`matrix` for a history, `at` for the slice of one instant, `current` for what screeners showed last; `explain`
    for the votes behind one rating.

    Without `version` the newest promoted version is read, with `known_at` the one that was the newest by then. A date
    or a text without a zone is UTC; a datetime without one is refused.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._tables: dict[tuple[str, str], Table] = {}
        self._kept: _Kept | None = None

    def matrix(
        self,
        symbols: Sequence[str] | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        version: int | None = None,
        run_id: str | None = None,
        known_at: Instant | None = None,
        interval: str = "1d",
        rules: str = "screener",
    ) -> pd.DataFrame:
        """Ratings `[ts, (symbol, feature)]` of the closed bars from `start` to `end`, both included.

        The features are recommend_ma, recommend_other and recommend_all in [−1, 1], rsi and adx in [0, 100], NaN where
        there is no value, and `available_at`, the instant from which a row is known. With `run_id` the rows that this
        run computed, promoted or not. Raises NotFoundError naming symbols that are not there.
        """
        where = _between(start, end)
        if run_id is not None:
            if version is not None or known_at is not None:
                raise ContractError("a run's rows have no version", fix="leave version and known_at away")
            rows = self._rows_of_run(run_id)
            _refuse_unknown(symbols, _names(rows), f"run {run_id} computed nothing of")
            if symbols is not None:
                rows = rows.filter(pc.is_in(rows["symbol"].cast(pa.string()), pa.array(symbols, pa.string())))
            return to_matrix(closed_rows(rows if where is None else rows.filter(where)), symbols, MATRIX_FEATURES)
        snapshot = self._snapshot(interval, rules, version, known_at)
        _refuse_unknown(symbols, snapshot.keys, f"feature version {snapshot.version} holds nothing of")
        return to_matrix(closed_rows(snapshot.read(_ROWS, keys=symbols, filter=where)), symbols, MATRIX_FEATURES)

    def at(
        self,
        ts: Instant,
        symbols: Sequence[str] | None = None,
        *,
        version: int | None = None,
        known_at: Instant | None = None,
        interval: str = "1d",
        rules: str = "screener",
    ) -> pd.DataFrame:
        """What was known at `ts`: the newest row of each symbol whose `available_at` is not later.

        A row a symbol, in the order of `symbols`: the features, the bar they are of (`ts`) and `available_at`. NaN and
        NaT where nothing was known yet. Raises NotFoundError naming symbols that the store does not have.
        """
        instant = to_stamp(_aware(ts, "ts"))
        snapshot = self._snapshot(interval, rules, version, known_at)
        _refuse_unknown(symbols, snapshot.keys, f"feature version {snapshot.version} holds nothing of")
        return self._slices_of((interval, rules, snapshot.version), snapshot, symbols).at(instant, symbols)

    def current(
        self, symbols: Sequence[str] | None = None, *, known_at: Instant | None = None, interval: str = "1d"
    ) -> pd.DataFrame:
        """The last values that a screener showed of each symbol that has any; `ts` is when it showed them."""
        snapshot = self._snapshot(interval, "screener", None, known_at)
        rows = snapshot.read(_ROWS, keys=symbols, filter=pc.field("source") != LOCAL)
        slices = _Slices.of(rows)
        latest = np.iinfo(np.int64).max if known_at is None else to_stamp(_aware(known_at, "known_at"))
        shown = slices.at(latest, None)
        return shown[shown["ts"].notna()]

    def explain(
        self, symbol: str, at: Instant | None = None, *, interval: str = "1d", rules: str = "screener"
    ) -> StoredExplanation:
        """The 26 votes of the newest bar of the symbol that was known at `at` (now, when None), with their inputs.

        Computed from the newest stored bars and every recorded split, and compared with the newest promoted version.
        Raises NotFoundError where no bar is stored or none was known yet, ContractError for bars that may not be rated.
        """
        from services.features.adapters.explaining import explain_stored

        instant = None if at is None else to_stamp(_aware(at, "at"))
        explained = explain_stored(self._home, symbol, instant, interval=interval, rules=rules)
        snapshot = self._table(interval, rules).load()
        if snapshot.version == 0 or symbol not in snapshot.keys:
            return explained
        here = pc.field("ts") == pa.scalar(explained.at.to_pydatetime(), SCHEMA.field("ts").type)
        rows = closed_rows(snapshot.read(_ROWS, keys=[symbol], filter=here)).select(FEATURES).to_pylist()
        return explained.beside(snapshot.version, rows[0]) if rows else explained

    def version(self, *, known_at: Instant | None = None, interval: str = "1d", rules: str = "screener") -> int:
        """The newest promoted version, or the one that was the newest by `known_at`."""
        return self._snapshot(interval, rules, None, known_at).version

    def _snapshot(self, interval: str, rules: str, version: int | None, known_at: Instant | None) -> Snapshot:
        if version is not None and known_at is not None:
            raise ContractError("version and known_at both name a version", fix="give one of them")
        table = self._table(interval, rules)
        if version is not None:
            return table.load(version)
        snapshot = table.load() if known_at is None else _known_by(table, _aware(known_at, "known_at"))
        if snapshot.version == 0:
            when = "" if known_at is None else f" by {known_at}"
            raise NotFoundError(
                f"no {interval} features by the rules {rules} were promoted{when}",
                fix="asof run FILE, then asof show RUN",
            )
        return snapshot

    def _slices_of(self, version: _Version, snapshot: Snapshot, symbols: Sequence[str] | None) -> _Slices:
        """The rows of these symbols at least, kept for the next instant.

        First only theirs. Who then asks the same version for others gets all of it, so that a version is read twice
        at most, whatever the caller's universe becomes.
        """
        asked = None if symbols is None else frozenset(symbols)
        kept = self._kept if self._kept is not None and self._kept.version == version else None
        if kept is None or not kept.holds(asked):
            keys = asked if kept is None else None
            kept = self._kept = _Kept(version, keys, _Slices.of(closed_rows(snapshot.read(_ROWS, keys=keys))))
        return kept.slices

    def _table(self, interval: str, rules: str) -> Table:
        if (interval, rules) not in self._tables:
            interval_length(interval)
            if rules != IMPORTED:
                rules_named(rules)
            self._tables[interval, rules] = open_table(self._home.features_table(interval, rules))
        return self._tables[interval, rules]

    def _rows_of_run(self, run_id: str) -> pa.Table:
        path = self._home.run(run_id).features
        if not path.is_file():
            raise NotFoundError(f"run {run_id} has no features", fix=f"asof show {run_id}")
        return from_parquet(path.read_bytes(), path.name)


@dataclass(frozen=True)
class _Kept:
    """What `at` has read of one version: the rows of `symbols`, or of all (None)."""

    version: _Version
    symbols: frozenset[str] | None
    slices: _Slices

    def holds(self, asked: frozenset[str] | None) -> bool:
        return self.symbols is None or (asked is not None and asked <= self.symbols)


@dataclass(frozen=True)
class _Slices:
    """Rows by symbol, and within a symbol by when they were known: a slice is one search a symbol."""

    names: list[str]
    starts: NDArray[np.int64]
    known: NDArray[np.int64]
    stamps: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, rows: pa.Table) -> _Slices:
        encoded = rows["symbol"].cast(pa.string()).combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        words = [str(word) for word in encoded.dictionary.to_pylist()]
        rank = np.empty(len(words), dtype=np.int64)
        rank[np.argsort(np.array(words, dtype=object))] = np.arange(len(words))
        codes = rank[encoded.indices.to_numpy(zero_copy_only=False)]
        known, stamps = (rows[name].cast(pa.int64()).to_numpy() for name in ("available_at", "ts"))
        order = np.lexsort((stamps, known, codes))
        values = np.column_stack([rows[name].to_numpy() for name in FEATURES]) if len(order) else np.empty((0, 5))
        starts = np.searchsorted(codes[order], np.arange(len(words) + 1))
        return cls(sorted(words), starts, known[order], stamps[order], values[order])

    @cached_property
    def places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def at(self, instant: int, symbols: Sequence[str] | None) -> pd.DataFrame:
        names = self.names if symbols is None else list(symbols)
        rows = np.array([self._row(name, instant) for name in names], dtype=np.int64)
        here = rows >= 0
        columns: dict[str, Any] = {}
        for column, name in enumerate(FEATURES):
            columns[name] = np.full(len(names), np.nan)
            columns[name][here] = self.values[rows[here], column]
        for name, stamps in (("ts", self.stamps), ("available_at", self.known)):
            instants = np.full(len(names), np.iinfo(np.int64).min)
            instants[here] = stamps[rows[here]]
            columns[name] = pd.DatetimeIndex(instants.view("datetime64[us]"), tz="UTC")
        return pd.DataFrame(columns, index=pd.Index(names, name="symbol", dtype="str"))

    def _row(self, name: str, instant: int) -> int:
        """The newest row known by `instant`; −1 where there is none."""
        place = self.places.get(name)
        if place is None:
            return -1
        start, end = int(self.starts[place]), int(self.starts[place + 1])
        found = start + int(np.searchsorted(self.known[start:end], instant, side="right")) - 1
        return found if found >= start else -1


def _known_by(table: Table, instant: datetime) -> Snapshot:
    """The newest version that had been promoted, or gone back to, by `instant`."""
    for version in reversed(table.versions()):
        snapshot = table.load(version)
        if version == 0 or _became_newest(snapshot) <= instant:
            return snapshot
    raise AssertionError("every table has a version 0")


def _became_newest(snapshot: Snapshot) -> datetime:
    back = snapshot.meta.get("rollback")
    stated = back["at"] if isinstance(back, dict) else snapshot.meta["promoted_at"]
    return parse_instant(str(stated), name="promoted_at")


def _between(start: Instant | None, end: Instant | None) -> pc.Expression | None:
    where = None
    if start is not None and end is not None and _aware(start, "start") > _aware(end, "end"):
        raise ContractError(f"start {start} is after end {end}", fix="exchange them")
    if start is not None:
        where = pc.field("ts") >= pa.scalar(_aware(start, "start"), SCHEMA.field("ts").type)
    if end is not None:
        until = pc.field("ts") <= pa.scalar(_aware(end, "end"), SCHEMA.field("ts").type)
        where = until if where is None else where & until
    return where


def _aware(value: Instant, name: str) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ContractError(
            f"{name} has no time zone", cause=f"it is {value.isoformat()}", fix=f"{name}.replace(tzinfo=timezone.utc)"
        )
    return parse_instant(value, name=name)


def _names(rows: pa.Table) -> set[str]:
    return {str(name) for name in pc.unique(rows["symbol"].cast(pa.string())).to_pylist()}


def _refuse_unknown(symbols: Sequence[str] | None, known: Any, what: str) -> None:
    if isinstance(symbols, str):
        raise ContractError("symbols is a text, not a list of them", symbol=symbols, fix=f"[{symbols!r}]")
    missing = [symbol for symbol in symbols or () if symbol not in known]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        meant = nearest(missing[0], known)
        fix = "leave them out, or asof run FILE" if meant is None else f"was {meant} meant?"
        raise NotFoundError(f"{what} {missing[0]}{more}", symbol=missing[0], fix=fix)
