"""What is kept of symbols between runs: one file a batch, beside its staged rows, and one index a feature version.

runs/<run>/staged/<batch>.histories       what the batch keeps of each symbol; names the staged file that it belongs to
runs/<run>/staged/histories-<version>.json   which of these files has which symbol, for the feature version that the run
                                          became; the version's manifest names it with its sha256

A version's rows and what is kept of them are thus committed together, and a rollback goes back to both. All of it can
be lost without harm: what is missing or damaged is computed from the whole history, and the reason is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter

from services.features.domain.histories import History, Rows
from services.features.domain.rating import After
from services.features.domain.runs import RunRecord
from shared.errors import NotFoundError
from shared.events import FileRef
from shared.files import make_dirs, sha256_bytes, write_atomic
from shared.paths import Home
from shared.tables import JsonValue, Snapshot, open_table

HISTORIES = "histories"
_STAGED = b"asof.staged"
_ABOUT = ("basis", "bars_version", "bars_sha256", "rows", "known_at", "last_bar", "warnings")


class _Kept(BaseModel):
    """One file of histories, and the symbols that are to be taken from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    symbols: tuple[str, ...]


_INDEX = TypeAdapter(tuple[_Kept, ...])


class LakehouseHistories:
    def __init__(self, home: Home) -> None:
        self._home = home

    def newest(self, interval: str, rules: str) -> int:
        return open_table(self._home.features_table(interval, rules)).load().version

    def load(self, record: RunRecord, symbols: Iterable[str]) -> tuple[dict[str, History], dict[str, str]]:
        found: dict[str, History] = {}
        lost: dict[str, str] = {}
        try:
            snapshot = open_table(self._home.features_table(record.interval, record.rules.name)).load(record.continues)
        except NotFoundError:
            return {}, dict.fromkeys(symbols, f"feature version {record.continues} is gone")
        try:
            index = _index_of(self._home, snapshot)
        except (OSError, ValueError) as fault:
            return {}, dict.fromkeys(symbols, f"the index of what was kept cannot be read: {fault}")
        wanted = set(symbols)
        for kept in index:
            own = wanted.intersection(kept.symbols)
            if not own:
                continue
            try:
                found |= _read(_verified(self._home, kept.path, kept.sha256), own)
            except (OSError, ValueError, KeyError, pa.ArrowException) as fault:
                lost |= dict.fromkeys(own, f"what was kept cannot be read: {fault}")
        return found, lost

    @property
    def program(self) -> str:
        return program_sha256()

    def keep(self, staged: FileRef, histories: Mapping[str, History]) -> None:
        path = histories_path(self._home, staged)
        make_dirs(path.parent)
        write_atomic(path, _write(histories, staged))


def histories_path(home: Home, staged: FileRef) -> Path:
    return home.resolve(staged.path).with_suffix(".histories")


def index_after(
    home: Home, base: Snapshot, run_id: str, staged: Mapping[FileRef, Iterable[str]], *, alone: bool
) -> dict[str, JsonValue]:
    """What the version after `base` says of it: the symbols of the staged files have new histories, or none; all others
    keep theirs, unless `alone`. The file is written before the version is committed."""
    written = {symbol for symbols in staged.values() for symbol in symbols}
    index: list[_Kept] = []
    try:
        before = () if alone else _index_of(home, base)
    except (OSError, ValueError):
        before = ()  # each of them is computed from its whole history, and says why
    for kept in before:
        left = tuple(symbol for symbol in kept.symbols if symbol not in written)
        if left:
            index.append(_Kept(path=kept.path, sha256=kept.sha256, symbols=left))
    for ref, symbols in staged.items():
        path = histories_path(home, ref)
        if path.is_file():
            data = path.read_bytes()
            own = sorted(_symbols_for(data, ref).intersection(symbols))
            if own:
                index.append(_Kept(path=home.relative(path), sha256=sha256_bytes(data), symbols=tuple(own)))
    path = home.run(run_id).staged_parts / f"histories-{base.version + 1}.json"
    data = _INDEX.dump_json(tuple(index))
    write_atomic(path, data)
    return {"path": home.relative(path), "sha256": sha256_bytes(data)}


@cache
def program_sha256() -> str:
    """Over all code that decides what a row is: where one line differs, everything is computed anew, once."""
    digest = hashlib.sha256()
    domain = Path(__file__).resolve().parents[1] / "domain"
    for path in sorted(domain.rglob("*.py")):
        body = path.read_bytes()
        digest.update(f"{path.relative_to(domain)} {len(body)}\n".encode() + body)
    return digest.hexdigest()


def _index_of(home: Home, snapshot: Snapshot) -> tuple[_Kept, ...]:
    """Raises OSError or ValueError when it cannot be read."""
    said = snapshot.meta.get(HISTORIES)
    if not isinstance(said, dict):
        return ()
    return _INDEX.validate_json(_verified(home, str(said["path"]), str(said["sha256"])))


def _verified(home: Home, path: str, sha256: str) -> bytes:
    data = home.resolve(path).read_bytes()
    if sha256_bytes(data) != sha256:
        raise ValueError(f"{path} is not what was written")
    return data


def _write(histories: Mapping[str, History], staged: FileRef) -> memoryview:
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for symbol in sorted(histories):
        one = histories[symbol]
        columns["symbol"].append(symbol)
        columns["about"].append(json.dumps({name: getattr(one, name) for name in _ABOUT} | {"adx": one.after.adx_from}))
        columns["state"].append(one.after.state.astype("<f8").tobytes())
        columns["stamps"].append(one.tail.stamps.astype("<i8").tobytes())
        columns["known_at"].append(one.tail.known_at.astype("<i8").tobytes())
        columns["values"].append(one.tail.values.astype("<f8").tobytes())
        columns["usable"].append(one.tail.usable.tobytes())
        columns["late"].append(one.waiting[0].astype("<i8").tobytes())
        columns["late_bars"].append(one.waiting[1].astype("<f8").tobytes())
    table = pa.table(columns, schema=pa.schema(list(_COLUMNS.items()), metadata={_STAGED: staged.sha256}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    return memoryview(sink.getvalue())


_COLUMNS: dict[str, pa.DataType] = {
    "symbol": pa.string(),
    "about": pa.string(),
    **dict.fromkeys(("state", "stamps", "known_at", "values", "usable", "late", "late_bars"), pa.binary()),
}


def _symbols_for(data: bytes, staged: FileRef) -> set[str]:
    """The symbols in a file of histories, when it belongs to exactly this staged file."""
    try:
        table = pq.read_table(pa.BufferReader(data), columns=["symbol"])
    except (pa.ArrowException, OSError):
        return set()
    stated = (table.schema.metadata or {}).get(_STAGED, b"").decode()
    return set(map(str, table["symbol"].to_pylist())) if stated == staged.sha256 else set()


def _read(data: bytes, symbols: set[str]) -> dict[str, History]:
    table = pq.read_table(pa.BufferReader(data))
    return {row["symbol"]: _history(row) for row in table.to_pylist() if row["symbol"] in symbols}


def _history(row: Mapping[str, Any]) -> History:
    about = json.loads(row["about"])
    stamp, *prices = about["last_bar"]
    return History(
        symbol=row["symbol"],
        basis=about["basis"],
        bars_version=about["bars_version"],
        bars_sha256=about["bars_sha256"],
        rows=about["rows"],
        known_at=about["known_at"],
        last_bar=(stamp, *prices),
        warnings=tuple(about["warnings"]),
        tail=Rows(
            np.frombuffer(row["stamps"], "<i8"),
            np.frombuffer(row["known_at"], "<i8"),
            np.frombuffer(row["values"], "<f8").reshape(-1, 5),
            np.frombuffer(row["usable"], bool),
        ),
        waiting=(np.frombuffer(row["late"], "<i8"), np.frombuffer(row["late_bars"], "<f8").reshape(-1, 5)),
        after=After(np.frombuffer(row["state"], "<f8"), about["adx"]),
    )
