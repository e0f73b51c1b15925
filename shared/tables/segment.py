"""One segment: a Parquet file that pandas, DuckDB and polars open as it is.

Small deltas are most of the files, and most of a small Parquet file is footer. So they carry no statistics and no
serialised Arrow schema where plain Parquet types say the same; which columns were dictionary-encoded is a short note.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from shared.errors import ContractError, IntegrityError
from shared.files import sha256_bytes, sha256_file
from shared.tables.manifest import RESTORE
from shared.tables.model import NewSegment, Segment

SMALL_ROWS = 4096
ROW_GROUP = 1 << 15
# Up to here a file is hashed whole at every read (2.6 ms); above, its size, footer and the pages it touches are.
HASHED_WHOLE = 4 << 20

_NOTE = b"asof.dictionary"
_MAGIC = 8  # bytes at the end of a Parquet file: footer length, then "PAR1"


def encode(new: NewSegment) -> tuple[bytes, str | None]:
    """The file's bytes, and the checksum of its footer when it is too large to be hashed at every read."""
    table = new.table
    if new.keys is not None:
        _check_keys(table, new.keys, new.key_column)
    dictionary = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    small = table.num_rows <= SMALL_ROWS
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema.remove_metadata(),
        compression="snappy" if small else "zstd",  # zstd's workspace costs more than a few rows save
        use_dictionary=dictionary if small else True,  # type: ignore[arg-type]  # a list of columns is allowed
        write_statistics=not small,
        store_schema=not all(_survives(field.type) for field in table.schema),
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table.replace_schema_metadata(None), row_group_size=ROW_GROUP)
        if dictionary:
            writer.add_key_value_metadata({_NOTE.decode(): json.dumps(dictionary)})
    data = sink.getvalue().to_pybytes()
    return data, _footer_sha256(data) if len(data) > HASHED_WHOLE else None


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment's file, checked against its manifest entry and ready to be decoded."""

    segment: Segment
    source: pa.NativeFile
    parquet: pq.ParquetFile
    schema: pa.Schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows; of `columns`, those that the file has."""
        known = set(self.schema.names)
        present = [name for name in columns if name in known]
        try:
            # Threads cost more than they save on a delta.
            return self.parquet.read(present, use_threads=self.segment.rows > SMALL_ROWS)
        except (OSError, pa.ArrowException) as fault:
            raise corrupt(self.segment.file, str(fault)) from fault

    def read_where(
        self, schema: pa.Schema, columns: Sequence[str], where: pc.Expression, keys: Collection[str] | None
    ) -> pa.Table:
        """The rows that `where` selects, with `schema`'s types (columns the file lacks are null).

        Row groups whose statistics rule them out stay unread. `keys`: no other keys are selected by `where`; said
        apart because pyarrow does not prune by a dictionary-encoded column.
        """
        self.source.seek(0)
        file_format = ds.ParquetFileFormat(
            dictionary_columns=_dictionary(self.parquet.metadata),
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True),
        )
        try:
            fragment = file_format.make_fragment(self.source, row_groups=self._groups(keys))  # type: ignore[arg-type]  # no NativeFile in its stub
            return fragment.to_table(schema=schema, columns=list(columns), filter=where)
        except OSError as fault:
            raise corrupt(self.segment.file, str(fault)) from fault

    def _groups(self, keys: Collection[str] | None) -> list[int] | None:
        """The row groups that may hold one of `keys`; None for all."""
        metadata = self.parquet.metadata
        if keys is None or metadata.num_row_groups < 2:
            return None
        column = self.schema.names.index(self.segment.key_column)
        groups = []
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(column).statistics
            if statistics is None or not statistics.has_min_max:
                return None
            low, high = str(statistics.min), str(statistics.max)
            if any(low <= key <= high for key in keys):
                groups.append(group)
        return groups


def open_segment(root: Path, segment: Segment) -> OpenSegment:
    """Opens and checks a segment's file.

    A file up to HASHED_WHOLE is read and hashed; of a larger one the size and the footer are checked here and each
    page at the moment it is decoded. Raises FileNotFoundError when it is missing and IntegrityError, naming it, when
    it is not what was written.
    """
    path = root / segment.file
    if segment.size <= HASHED_WHOLE:
        data = path.read_bytes()
        _check_size(segment, len(data))
        if sha256_bytes(data) != segment.sha256:
            raise corrupt(segment.file, "checksum differs")
        source: pa.NativeFile = pa.BufferReader(data)
    else:
        source = pa.memory_map(str(path))
        _check_size(segment, source.size())
        if _footer_sha256(memoryview(source.read_buffer())) != segment.footer:
            raise corrupt(segment.file, "checksum of the footer differs")
        source.seek(0)
    metadata = pq.read_metadata(source)
    source.seek(0)
    parquet = pq.ParquetFile(
        source, metadata=metadata, read_dictionary=_dictionary(metadata), page_checksum_verification=True
    )
    return OpenSegment(segment, source, parquet, parquet.schema_arrow)


def verify(root: Path, segment: Segment) -> str | None:
    """What is wrong with the segment's file, by hashing all of it; None when it is sound."""
    path = root / segment.file
    if not path.exists():
        return "missing"
    size = path.stat().st_size
    if size != segment.size:
        return f"{size} bytes, written were {segment.size}"
    return None if sha256_file(path) == segment.sha256 else "the bytes are not those that were written (checksum)"


def corrupt(file: str, cause: str) -> IntegrityError:
    return IntegrityError(f"segment {file} is unreadable", cause=cause, fix=RESTORE)


def _check_size(segment: Segment, size: int) -> None:
    if size != segment.size:
        raise corrupt(segment.file, f"{size} bytes, written were {segment.size}")


def _footer_sha256(data: bytes | memoryview) -> str:
    length = int.from_bytes(data[-_MAGIC:-4], "little")
    return sha256_bytes(memoryview(data)[-_MAGIC - length :])


def _dictionary(metadata: pq.FileMetaData) -> list[str]:
    note = (metadata.metadata or {}).get(_NOTE)
    names: list[str] = [] if note is None else json.loads(note)
    return names


def _check_keys(table: pa.Table, keys: Collection[str], key_column: str) -> None:
    if key_column not in table.column_names:
        raise ContractError(
            f"a segment with keys has no column {key_column!r}", cause=f"it has {table.column_names}", fix="name it"
        )
    strays = set(pc.unique(table[key_column]).to_pylist()) - set(keys)
    if strays:
        raise ContractError(
            "a segment has rows of keys it does not declare",
            cause=f"{sorted(map(str, strays))[:5]}",
            fix="declare every key whose rows it holds",
        )


def _survives(kind: pa.DataType) -> bool:
    """True for types that plain Parquet gives back as they were; a dictionary of text does with the note."""
    if pa.types.is_dictionary(kind):
        return bool(kind.value_type == pa.string() and kind.index_type == pa.int32() and not kind.ordered)
    if pa.types.is_timestamp(kind):
        return kind.unit != "s" and kind.tz in {None, "UTC"}
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_float32(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_date32(kind)
    )
