"""What is the Delta backend's own: other readers of the folder, and commits that are not ours."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from shared.errors import IntegrityError
from shared.tables import Changes, NewSegment, Table, open_table

deltalake = pytest.importorskip("deltalake")


def row(symbol: str, **columns: object) -> Changes:
    values = {"symbol": pa.array([symbol]).dictionary_encode(), **{name: [value] for name, value in columns.items()}}
    return Changes((NewSegment(pa.table(values)),))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = open_table(tmp_path / "table", backend="delta")
    table.commit(0, row("A", value=1.0))
    return table


def test_a_delta_reader_sees_the_same_rows(table: Table) -> None:
    table.commit(1, row("B", value=2.0))
    table.commit(2, Changes(drop=(table.load().segments[0].file,), append=row("C", value=3.0).append))
    theirs = deltalake.DeltaTable(table.root).to_pyarrow_table().sort_by("symbol")
    assert theirs.to_pydict() == {"symbol": ["B", "C"], "value": [2.0, 3.0]}


def test_a_new_column_reaches_delta_readers_and_makes_one_version_of_ours(table: Table) -> None:
    table.commit(1, row("B", value=2.0, sector="Food"))
    table.commit(2, row("C", value=3.0, sector=None))
    assert table.versions() == [0, 1, 2, 3]
    theirs = deltalake.DeltaTable(table.root)
    assert theirs.version() == 3  # 0, 1 (the schema), 2, 3
    assert theirs.to_pyarrow_table().sort_by("symbol")["sector"].to_pylist() == [None, "Food", None]
    assert table.load(1).read()["symbol"].to_pylist() == ["A"]
    assert table.load(2).read()["symbol"].to_pylist() == ["A", "B"]


def test_another_engines_rows_are_refused_by_name_and_older_versions_stay_readable(table: Table) -> None:
    deltalake.write_deltalake(table.root, pa.table({"symbol": ["X"], "value": [0.0]}), mode="append")
    with pytest.raises(IntegrityError, match=r"_delta_log/0+1\.json changed the table's files"):
        open_table(table.root, backend="delta").load()
    assert open_table(table.root, backend="delta").load(1).read()["symbol"].to_pylist() == ["A"]


def test_another_engines_vacuum_makes_no_version(table: Table) -> None:
    table.commit(1, Changes(drop=(table.load().segments[0].file,), append=row("B", value=2.0).append))
    theirs = deltalake.DeltaTable(table.root)
    theirs.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert deltalake.DeltaTable(table.root).version() > 1
    assert table.versions() == [0, 1, 2]
    assert table.commit(2, row("C", value=3.0)) == 3
    assert table.load().read()["symbol"].to_pylist() == ["B", "C"]
    with pytest.raises(IntegrityError, match="missing"):  # vacuumed, not collected by us
        table.load(1).read()


def test_a_commit_torn_in_the_delta_log_is_named(table: Table) -> None:
    path = table.root / "_delta_log" / f"{0:020d}.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IntegrityError, match=path.name):
        open_table(table.root, backend="delta").load()


def test_a_manifest_changed_inside_a_delta_commit_is_noticed(table: Table) -> None:
    path = table.root / "_delta_log" / f"{0:020d}.json"
    data = path.read_bytes()
    assert b'\\"rows\\":1' in data
    path.write_bytes(data.replace(b'\\"rows\\":1', b'\\"rows\\":2'))
    with pytest.raises(IntegrityError, match="torn or was changed"):
        open_table(table.root, backend="delta").load()
