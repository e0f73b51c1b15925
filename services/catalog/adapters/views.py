"""The files beside the catalog's tables: what each run saw, and the plain exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from services.catalog.adapters.catalog import ExchangeCatalog, MetadataCatalog
from services.catalog.adapters.frames import history_frame, write_frame
from services.catalog.domain.schema import SYMBOLS
from shared.errors import IntegrityError
from shared.events import FileRef
from shared.files import sha256_bytes, sha256_file
from shared.paths import Home

_OBSERVED = "observed_at"


class RunViewFiles:
    """`runs/<run>/metadata/<part>.parquet`, assembled into `runs/<run>/metadata.parquet`."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def keep(self, run_id: str, part: str, seen: Sequence[tuple[datetime, Mapping[str, Any]]]) -> FileRef:
        path = self._home.run(run_id).metadata_parts / f"{part}.parquet"
        template = history_frame([], SYMBOLS)
        frame = pd.DataFrame(
            {
                name: pd.Series([record[str(name)] for _, record in seen], dtype=template[name].dtype)
                for name in template
            }
        )
        frame[_OBSERVED] = pd.Series([at for at, _ in seen], dtype="datetime64[us, UTC]")
        write_frame(frame, path, metadata={"run_id": run_id})
        return FileRef(path=self._home.relative(path), sha256=sha256_file(path), rows=len(frame))

    def assemble(self, run_id: str) -> None:
        run = self._home.run(run_id)
        parts = [pq.read_table(path) for path in sorted(run.metadata_parts.glob("*.parquet"))]
        if not parts:
            return
        rows = pa.concat_tables(parts).to_pandas().sort_values(["symbol", _OBSERVED], kind="stable")
        whole = rows.drop_duplicates("symbol", keep="last").drop(columns=_OBSERVED)
        write_frame(whole, run.metadata, metadata={"run_id": run_id})


def read_universe(home: Home, ref: FileRef) -> list[dict[str, Any]]:
    """The records of a universe that was announced. Raises IntegrityError when the file is another one: whoever is
    absent from it would be retired."""
    path = home.resolve(ref.path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as fault:
        raise IntegrityError(f"{ref.path} is gone", cause=str(fault), fix="asof discover") from fault
    found = sha256_bytes(data)
    if found != ref.sha256:
        raise IntegrityError(
            f"{ref.path} is not the file that was announced",
            cause=f"sha256 {found[:12]}…, announced was {ref.sha256[:12]}…",
            fix="asof discover",
        )
    records: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return records


class ExportFiles:
    """`symbols.parquet` and `exchanges.parquet`."""

    def __init__(self, home: Home, symbols: MetadataCatalog, exchanges: ExchangeCatalog) -> None:
        self._exports = ((symbols, home.symbols_export), (exchanges, home.exchanges_export))

    def refresh(self) -> None:
        for catalog, path in self._exports:
            if catalog.version and catalog.version != _exported(path):
                catalog.export(path)


def _exported(path: Any) -> int | None:
    if not path.is_file():
        return None
    stated = (pq.read_schema(path).metadata or {}).get(b"catalog_version")
    return int(stated) if stated else None
