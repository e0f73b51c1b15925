"""Files that answer a command: written whole, named by the command, below the house's cache."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.events import FileRef
from shared.files import make_dirs, sha256_bytes, write_atomic
from shared.paths import Home
from shared.symbols import encode_symbol


class CachedDocuments:
    def __init__(self, home: Home) -> None:
        self._home = home

    def write_json(self, name: str, content: Any) -> FileRef:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return self._write(f"{encode_symbol(name)}.json", text.encode(), None)

    def write_records(self, name: str, records: Sequence[Mapping[str, Any]]) -> FileRef:
        """Parquet with a column for every field that any record states; null where a record does not state it."""
        columns = sorted({column for record in records for column in record})
        table = pa.table({column: [record.get(column) for record in records] for column in columns})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return self._write(f"{encode_symbol(name)}.parquet", sink.getvalue().to_pybytes(), len(records))

    def _write(self, name: str, content: bytes, rows: int | None) -> FileRef:
        path = self._home.cache / "fetcher" / "documents" / name
        make_dirs(path.parent)
        write_atomic(path, content)
        return FileRef(path=self._home.relative(path), sha256=sha256_bytes(content), rows=rows)
