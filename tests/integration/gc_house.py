"""A house with history, without services: tables as their own writers make them, a ledger, and a run's files."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from services.auditor.adapters.ledger_file import LedgerFile
from services.catalog import MetadataCatalog
from shared.bars import BarsTable
from shared.paths import Home
from shared.tables import Changes, NewSegment, open_table

SYMBOL = "PSE:JFC"
# Read when the tests are collected: all that they write in the next three quarters of an hour is older.
NOW = datetime.now(UTC) + timedelta(minutes=45)


def bars(days: int) -> pd.DataFrame:
    index = pd.date_range("2021-01-04", periods=days, freq="D", tz="UTC")
    return pd.DataFrame({name: np.arange(1.0, days + 1) for name in ("open", "high", "low", "close", "volume")}, index)


def build(root: Path) -> Home:
    """Bars and catalog at version 5, of which run `r1` names 2 and 3; features at 4, of which 3 is a compaction."""
    home = Home.at(root)
    home.root.mkdir(parents=True)
    stored = BarsTable.open(home.bars_table("1d", SYMBOL))
    catalog = MetadataCatalog.open(home.symbols_table)
    for version in range(1, 6):
        stored.append(bars(version), run_id=f"r{version}")
        catalog.upsert_symbols([{"symbol": SYMBOL, "sector": f"sector {version}"}], run_id=f"r{version}")
    features = open_table(home.features_table("1d", "screener"))
    for parent, run_id in ((0, "r1"), (1, "r2")):
        promote(home, parent, run_id)
    features.compact()
    promote(home, 3, "r4")
    folder = home.run("r1").root
    (folder / "staged").mkdir(parents=True)
    input_ = {"path": home.relative(stored.table.root), "table_version": 2, "sha256": "…"}
    write(folder / "feature_ingest_coverage.json", {"catalog_version": 3, "inputs": {SYMBOL: input_}})
    write(folder / "staged" / "run.json", {"interval": "1d", "pins": {SYMBOL: 3}})
    ledger = LedgerFile(home)
    ledger.append("opened", key="r1-opened", data={"base": {"catalog": 2, "features": 0}}, time=NOW, run_id="r1")
    ledger.append("decided", key="r1-decided", data={"catalog_version": 3}, time=NOW - timedelta(days=2), run_id="r1")
    return home


def promote(home: Home, parent: int, run_id: str) -> int:
    rows = pa.table({"symbol": [f"PSE:{run_id.upper()}"], "run": [run_id]})
    segment = NewSegment(rows, keys=(f"PSE:{run_id.upper()}",))
    meta = {"run_id": run_id, "parent": parent, "promoted_at": "2021-12-15T08:00:00Z"}
    return open_table(home.features_table("1d", "screener")).commit(parent, Changes((segment,)), meta=meta)


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content) + "\n")


def litter(home: Home) -> list[Path]:
    """A commit's segment that came too late, and two files that were being written when the machine died."""
    late = home.symbols_table / "segments" / "000000000002-0000000000.parquet"
    late.write_bytes(b"late")
    asides = [home.runs / ".report.html.7-aa.tmp", home.lakehouse / ".symbols.parquet.7-bb.tmp"]
    for path in asides:
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    return [late, *asides]


def versions(home: Home) -> dict[str, list[int]]:
    tables = {
        "bars": home.bars_table("1d", SYMBOL),
        "catalog": home.symbols_table,
        "features": home.features_table("1d", "screener"),
    }
    return {name: open_table(root).versions()[1:] for name, root in tables.items()}
