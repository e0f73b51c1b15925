"""Taking over an existing house: its `symbols.parquet` and `exchanges.parquet` become events of this catalog.

Each version becomes a full record effective from its `valid_from`; a last version that ends, a retire at its end. They
are known from now on: what another house knew earlier, this catalog did not. The same file again is a no-op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from services.catalog.adapters.catalog import ExchangeCatalog, MetadataCatalog
from services.catalog.domain.decide import Batch
from services.catalog.domain.schema import Schema
from services.catalog.domain.takeover import Takeover, take_over
from shared.clock import Clock, format_instant, system_clock
from shared.errors import ContractError, NotFoundError
from shared.files import sha256_file
from shared.paths import Home

_FILES = ("symbols.parquet", "exchanges.parquet")
_OWN = ("valid_from", "valid_until", "updated_at", "last_confirmed", "run_id", "source", "sources")


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file. `refused`: key or row number -> what is wrong; `ignored`: columns nobody reads here."""

    file: str
    rows: int
    keys: int
    versions: int
    retired: int
    repeated: int
    endless: int
    refused: Mapping[str, tuple[str, ...]]
    ignored: tuple[str, ...]
    catalog_version: int | None  # None after a dry run

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "rows": self.rows,
            "keys": self.keys,
            "versions": self.versions,
            "retired": self.retired,
            "repeated": self.repeated,
            "endless": self.endless,
            "refused": {key: list(flaws) for key, flaws in self.refused.items()},
            "ignored_columns": list(self.ignored),
            "catalog_version": self.catalog_version,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """One file, read and judged: what would be written to which catalog."""

    catalog: MetadataCatalog
    batches: list[Batch]
    report: FileReport

    def done(self) -> FileReport:
        return replace(self.report, catalog_version=self.catalog.version)


def import_house(
    folder: str | Path, home: Home, *, apply: bool = False, clock: Clock = system_clock
) -> list[FileReport]:
    """Look at an existing house's files, and with `apply` take over what is sound in them.

    For a house whose services do not run; while they do, the command `import` has the catalog do it. Raises
    NotFoundError when the folder has neither file, ContractError for one that is no Parquet file or lacks the key or
    valid_from.
    """
    symbols = MetadataCatalog.open(home.symbols_table, clock=clock)
    exchanges = ExchangeCatalog.open(home.exchanges_table, clock=clock)
    plans = plan_import(folder, symbols, exchanges, clock)
    if not apply:
        return [plan.report for plan in plans]
    for plan in plans:
        plan.catalog.apply(plan.batches)
    return [plan.done() for plan in plans]


def plan_import(folder: str | Path, symbols: MetadataCatalog, exchanges: ExchangeCatalog, clock: Clock) -> list[Plan]:
    """All files are read before any is written."""
    root = Path(folder)
    present = [name for name in _FILES if (root / name).is_file()]
    if not present:
        raise NotFoundError(f"{root} has neither {' nor '.join(_FILES)}", fix="asof import DIR, the folder with them")
    catalogs = dict(zip(_FILES, (symbols, exchanges), strict=True))
    return [_plan(root / name, catalogs[name], clock()) for name in present]


def _plan(path: Path, catalog: MetadataCatalog, known: datetime) -> Plan:
    found, rows, ignored = _read(path, catalog.schema)
    report = FileReport(
        path.name,
        rows,
        len(found.versions),
        found.count,
        len(found.ended),
        found.repeated,
        found.endless,
        {str(key): flaws for key, flaws in found.refused.items()},
        ignored,
        None,
    )
    return Plan(catalog, _batches(found, catalog.schema.key, f"import-{sha256_file(path)[:24]}", known), report)


def _read(path: Path, schema: Schema) -> tuple[Takeover, int, tuple[str, ...]]:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as fault:
        raise ContractError(f"{path.name} is no Parquet file", cause=str(fault), fix="repair or remove it") from fault
    if schema.key not in frame.columns and frame.index.name == schema.key:
        frame = frame.reset_index()
    for name in (schema.key, "valid_from"):
        if name not in frame.columns:
            raise ContractError(
                f"{path.name} has no column {name!r}",
                cause=f"it has {', '.join(map(str, frame.columns))}",
                fix="rename it",
            )
    if "valid_until" not in frame.columns:
        frame["valid_until"] = pd.NaT
    for name in ("valid_from", "valid_until"):
        frame[name] = _instants(frame[name], path.name)
    known = {schema.key, *schema.attributes, *_OWN}
    ignored = tuple(str(name) for name in frame.columns if name not in known)
    columns = {str(name): frame[name].tolist() for name in frame.columns if name in known}
    rows = ({name: values[place] for name, values in columns.items()} for place in range(len(frame)))
    return take_over(rows, schema), len(frame), ignored


def _instants(column: pd.Series, file: str) -> pd.Series:
    try:
        stamps = pd.to_datetime(column, utc=True, format="ISO8601")  # a house without zones meant UTC
    except (ValueError, TypeError) as fault:
        raise ContractError(f"{file}: {column.name} holds no instants", cause=str(fault), fix="convert it") from fault
    found: list[Any] = stamps.tolist()
    plain = [None if pd.isna(one) else one.to_pydatetime(warn=False).astimezone(UTC) for one in found]
    return pd.Series(plain, index=column.index, dtype=object)


def _batches(found: Takeover, name: str, event: str, known: datetime) -> list[Batch]:
    """One batch for each instant at which something begins or ends; its id says which file and which instant."""
    records: dict[datetime, list[dict[str, Any]]] = {}
    retired: dict[datetime, list[dict[str, Any]]] = {}
    for key, versions in found.versions.items():
        for one in versions:
            active = {} if one.fields.get("active") is not None else {"active": True}
            records.setdefault(one.valid_from, []).append({name: key, **one.fields, **active})
        if key in found.ended:
            retired.setdefault(found.ended[key], []).append({name: key})
    batches = [
        Batch("upsert", own, known, at, "set", f"{event}-{format_instant(at)}", source="import")
        for at, own in sorted(records.items())
    ]
    return batches + [
        Batch("retire", own, known, at, "keep", f"{event}-end-{format_instant(at)}", source="import")
        for at, own in sorted(retired.items())
    ]
