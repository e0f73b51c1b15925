"""Versions of the house's tables, by the manifests that shared/tables keeps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq

from services.auditor.ports import Promoted, RolledBack
from shared.errors import ContractError, NotFoundError
from shared.events import Versions
from shared.paths import Home
from shared.tables import JsonValue, Snapshot, Table, open_table


class LakehouseTables:
    def __init__(self, home: Home) -> None:
        self._home = home

    def current(self, interval: str, rules: str) -> Versions:
        return Versions(
            features=open_table(self._home.features_table(interval, rules)).load().version,
            catalog=open_table(self._home.symbols_table).load().version,
        )

    def promoted_since(self, interval: str, rules: str, version: int) -> list[Promoted]:
        table = open_table(self._home.features_table(interval, rules))
        # What was collected was no promotion: `asof gc` keeps those.
        return [_promoted(table.load(later)) for later in table.versions() if later > version]

    def rollback(self, interval: str, rules: str, *, to: int | None, command_id: str, at: str) -> RolledBack:
        table = open_table(self._home.features_table(interval, rules))
        newest = table.load()
        done = newest.meta.get("rollback")
        if isinstance(done, dict) and done["command_id"] == command_id:
            return RolledBack(newest.version, _int(done["to"]), _int(done["from"]), _catalog(newest))
        target = _before(table, newest) if to is None else table.load(to)
        if target.version >= newest.version:
            raise ContractError(
                f"version {target.version} is not older than the newest, {newest.version}",
                fix="asof rollback --to OLDER",
            )
        meta: dict[str, JsonValue] = {
            **target.meta,
            "rollback": {"command_id": command_id, "from": newest.version, "to": target.version, "at": at},
        }
        version = table.restore(target.version, base_version=newest.version, epoch=newest.epoch, meta=meta)
        table.tag("prod", version)
        return RolledBack(version, target.version, newest.version, _catalog(target))

    def active_symbols(self, at: datetime) -> list[str]:
        path = self._home.symbols_export
        if not path.exists():
            raise NotFoundError(
                "the catalog has no symbols to refresh",
                cause=f"{self._home.relative(path)} does not exist",
                fix="asof run FILE, with the candidates to begin with",
            )
        rows = pq.read_table(path, columns=["symbol", "active", "valid_from", "valid_until"]).to_pylist()
        return sorted(row["symbol"] for row in rows if row["active"] and _holds(row, at))


def _holds(row: Mapping[str, Any], at: datetime) -> bool:
    until = row["valid_until"]
    return bool(row["valid_from"] <= at and (until is None or at < until))


def _before(table: Table, newest: Snapshot) -> Snapshot:
    """The newest version that another run than the present one's made."""
    present = newest.meta.get("run_id")
    for version in reversed(table.versions()):
        snapshot = table.load(version)
        if version < newest.version and snapshot.meta.get("run_id") != present:
            return snapshot
    raise NotFoundError("there is nothing to go back to", cause="the feature table has no older version")


def _catalog(snapshot: Snapshot) -> int | None:
    version = snapshot.meta.get("catalog_version")
    return version if isinstance(version, int) else None


def _int(value: JsonValue) -> int:
    assert isinstance(value, int), "this adapter wrote it"
    return value


def _promoted(snapshot: Snapshot) -> Promoted:
    """What the commit of this very version brought. A compaction brings nothing: its rows span earlier versions."""
    run_id = snapshot.meta.get("run_id")
    symbols: set[str] = set()
    for segment in snapshot.segments:
        if segment.first == segment.last == snapshot.version:
            symbols.update(segment.keys or ())
    return Promoted(snapshot.version, run_id if isinstance(run_id, str) else None, frozenset(symbols))
