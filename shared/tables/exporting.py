"""One plain Parquet file of one version, for readers that know nothing of manifests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shared import files
from shared.tables.snapshot import Snapshot

VERSION_KEY = b"asof.version"


def export(snapshot: Snapshot, path: Path, transform: Callable[[pa.Table], pa.Table] | None) -> Path:
    """Writes all live rows aside, then replaces `path`; the file's metadata names the version (`asof.version`)."""
    rows = snapshot.read()
    rows = transform(rows) if transform else rows
    metadata = {**(rows.schema.metadata or {}), VERSION_KEY: str(snapshot.version).encode()}
    words = [field.name for field in rows.schema if not _is_number(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        # Numbers hardly repeat: looking for a dictionary of them costs more than half of the time.
        use_dictionary=words,  # type: ignore[arg-type]  # the stub knows no list of columns
        write_page_checksum=True,
    )
    files.make_dirs(path.parent)
    files.write_atomic(path, memoryview(sink.getvalue()))
    return path


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_timestamp(kind)
