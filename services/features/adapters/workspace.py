"""A run's workspace: `runs/<run>/staged/`, and what the run put into quarantine.

staged/run.json         what the run's batches are rated by
staged/<batch>.parquet  the rows of one batch that may be stored
staged/<batch>.json     what became of the batch, refused symbols and parity included
features.parquet        all rows, put together when the run is decided
quarantine/<run>/<batch>/<SYMBOL>.parquet, set-aside.parquet
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from services.features.adapters.rows import (
    ADJUSTMENTS,
    PARQUET,
    SCHEMA,
    current_rows,
    describe_adjustments,
    describe_rules,
    refused_rows,
    set_aside_rows,
    staged_rows,
    to_parquet,
)
from services.features.adapters.whole import CONTINUES, Continues, whole_rows
from services.features.domain.rating import RatedBatch
from services.features.domain.runs import SCREENER, RunRecord
from services.features.ports import Receipt
from shared.errors import ContractError, IntegrityError, TransientError
from shared.events import FileRef, explain
from shared.files import create_if_absent, make_dirs, sha256_bytes, sha256_file, sync_dir, write_atomic, write_new
from shared.paths import Home
from shared.symbols import encode_symbol
from shared.tables import open_table

_RECEIPT = TypeAdapter(Receipt)


class RunWorkspace:
    def __init__(self, home: Home) -> None:
        self._home = home

    def open(self, record: RunRecord) -> RunRecord:
        path = self._staged(record.run_id) / "run.json"
        make_dirs(path.parent)
        if not path.exists() and _write_first(path, record.model_dump_json(indent=1).encode()):
            return record
        known = _read_record(path)
        if known.content_sha256 != record.content_sha256:
            raise ContractError(f"run {record.run_id} exists with other content", fix="start it under another run id")
        return known

    def record(self, run_id: str) -> RunRecord:
        path = self._staged(run_id) / "run.json"
        if not path.exists():
            raise TransientError(
                f"run {run_id} is not open yet", cause="its run-candidates event was not read here", fix="wait"
            )
        return _read_record(path)

    def stage(
        self, record: RunRecord, batch: int, rated: RatedBatch, continued: RatedBatch, continues: Mapping[str, int]
    ) -> FileRef | None:
        if not rated.staged and not continued.staged:
            return None
        table = staged_rows(record, rated, continued)
        metadata = {"asof.run": record.run_id, "asof.batch": str(batch), **describe_rules(record.rules)}
        if adjustments := describe_adjustments(rated):
            metadata[ADJUSTMENTS.decode()] = adjustments
        if continues:
            metadata[CONTINUES.decode()] = Continues(version=record.continues, rows=dict(continues)).model_dump_json()
        return self._write(self._staged(record.run_id) / f"{batch}.parquet", table, metadata)

    def quarantine(self, record: RunRecord, batch: int, rated: RatedBatch) -> dict[str, FileRef]:
        folder = self._home.quarantine / record.run_id / str(batch)
        files = {}
        for symbol, refusal in rated.refused.items():
            table = refused_rows(rated, symbol)
            if table.num_rows:
                reason = {"asof.reason": f"{refusal.finding.code}: {refusal.finding.message}"}
                files[symbol] = self._write(folder / f"{encode_symbol(symbol)}.parquet", table, reason)
        aside = set_aside_rows(rated)
        if aside.num_rows:
            self._write(folder / "set-aside.parquet", aside, {"asof.reason": "bars that no rating was computed of"})
        return files

    def keep(self, run_id: str, batch: int, receipt: Receipt) -> None:
        folder = self._staged(run_id)
        make_dirs(folder)
        write_atomic(folder / f"{batch}.json", _RECEIPT.dump_json(receipt, indent=1))

    def receipt(self, run_id: str, batch: int) -> Receipt | None:
        path = self._staged(run_id) / f"{batch}.json"
        if not path.exists():
            return None
        receipt = _read_receipt(path)
        file = receipt.said.file
        if file is None:
            return receipt
        staged = self._home.resolve(file.path)
        return receipt if staged.exists() and sha256_file(staged) == file.sha256 else None

    def receipts(self, run_id: str) -> list[Receipt]:
        return [_read_receipt(path) for path in _numbered(self._staged(run_id), ".json")]

    def assemble(self, run_id: str) -> FileRef | None:
        """Rows before those that were staged come from their feature version: the file says all by itself.

        A symbol that was staged more than once has the rows of its last batch: a retry's batches come later.
        """
        record = self.record(run_id)
        target = self._home.run(run_id).features
        parts = _numbered(self._staged(run_id), ".parquet")
        last: dict[str, Path] = {}
        for path in parts:
            last.update(dict.fromkeys(symbols_of(path), path))
        with_current = set(last) if record.rules.name == SCREENER else set()
        current = current_rows(record, (symbol for symbol in record.current if symbol not in with_current))
        if not parts and not current.num_rows:
            return None
        features = open_table(self._home.features_table(record.interval, record.rules.name))
        aside = pa.BufferOutputStream()
        rows = 0
        with pq.ParquetWriter(aside, SCHEMA, **PARQUET) as writer:
            for path in parts:
                table = whole_rows(features, path.read_bytes(), path.name)
                own = [symbol for symbol, part in last.items() if part == path]
                table = table.filter(pc.is_in(table["symbol"].cast(pa.string()), pa.array(own, pa.string())))
                writer.write_table(table)
                rows += table.num_rows
            writer.write_table(current)
        data = memoryview(aside.getvalue())
        write_atomic(target, data)
        return FileRef(path=self._home.relative(target), sha256=sha256_bytes(data), rows=rows + current.num_rows)

    def _staged(self, run_id: str) -> Path:
        return self._home.run(run_id).staged_parts

    def _write(self, path: Path, table: pa.Table, metadata: dict[str, str]) -> FileRef:
        data = to_parquet(table, metadata)
        make_dirs(path.parent)
        write_atomic(path, data)
        return FileRef(path=self._home.relative(path), sha256=sha256_bytes(data), rows=table.num_rows)


def _write_first(path: Path, data: bytes) -> bool:
    """A durable new file, whole from its first moment; False when another replica was faster."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    write_new(aside, data)
    try:
        create_if_absent(path, aside)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    sync_dir(path.parent)
    return True


def symbols_of(path: Path) -> list[str]:
    """Raises IntegrityError for a file that is not as it was staged."""
    try:
        column = pq.read_table(path, columns=["symbol"])["symbol"]
    except (pa.ArrowException, OSError, KeyError) as fault:
        raise IntegrityError(f"{path.name} holds no feature rows", cause=str(fault), fix="asof retry RUN") from fault
    return [str(symbol) for symbol in pc.unique(column.cast(pa.string())).to_pylist()]


def _numbered(folder: Path, suffix: str) -> list[Path]:
    found = [path for path in folder.glob(f"*{suffix}") if path.stem.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.stem))


def _read_record(path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as fault:
        raise IntegrityError(
            f"{path} is no record of a run", cause=explain(fault), fix="start the run again"
        ) from fault


def _read_receipt(path: Path) -> Receipt:
    try:
        return _RECEIPT.validate_json(path.read_bytes())
    except ValidationError as fault:
        raise IntegrityError(f"{path} is no record of a batch", cause=explain(fault), fix="asof retry RUN") from fault
