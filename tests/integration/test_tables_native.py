"""What is the native backend's own: its files, and the ways in which they can be damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shared.errors import CommitConflict, IntegrityError, TransientError
from shared.tables import Changes, NewSegment, Snapshot, Table, open_table
from shared.tables import segment as segments


def one_row(symbol: str) -> Changes:
    return Changes((NewSegment(pa.table({"symbol": [symbol]})),))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return open_table(tmp_path / "table")


def grown(table: Table, versions: int) -> Table:
    for version in range(table.load().version, versions):
        table.commit(version, one_row(f"S{version}"))
    return table


def manifest(table: Table, version: int) -> Path:
    return table.root / "manifests" / f"{version:020d}.json"


def symbols(snapshot: Snapshot) -> list[str]:
    return snapshot.read(columns=["symbol"])["symbol"].to_pylist()


def test_a_commit_writes_the_same_few_bytes_after_two_hundred_of_them(table: Table) -> None:
    grown(table, 200)
    written = [table.load(version).manifest.written for version in range(1, 201)]
    files = {path.stat().st_ino: path.stat().st_size for path in table.root.rglob("*") if path.is_file()}
    assert sum(files.values()) == sum(written), "the hint is another name of the newest manifest"
    assert np.median(written[-50:]) < 4000


def test_no_other_files_are_left_behind(table: Table) -> None:
    grown(table, 3)
    names = sorted(path.name for path in (table.root / "manifests").iterdir())
    assert names == [*(f"{version:020d}.json" for version in (1, 2, 3)), "newest"]
    assert len(list((table.root / "segments").iterdir())) == 3


@pytest.mark.parametrize("content", [None, b"", b"junk", 1])
def test_the_newest_version_is_found_without_the_hint(table: Table, content: bytes | int | None) -> None:
    grown(table, 11)
    hint = table.root / "manifests" / "newest"
    hint.unlink()
    if isinstance(content, int):
        hint.hardlink_to(manifest(table, content))
    elif content is not None:
        hint.write_bytes(content)
    assert open_table(table.root).load().version == 11


@pytest.mark.parametrize("damage", [b"", b"{}", b"half"])
def test_a_damaged_manifest_stops_everybody_with_its_name_and_the_way_back(table: Table, damage: bytes) -> None:
    grown(table, 3)
    path = manifest(table, 3)
    path.write_bytes(path.read_bytes()[:80] if damage == b"half" else damage)
    fresh = open_table(table.root)
    with pytest.raises(IntegrityError, match=rf"manifests/{path.name}.*--repair"):
        fresh.load()
    with pytest.raises(IntegrityError):
        fresh.commit(3, one_row("X"))
    assert [violation.version for violation in fresh.verify()] == [3]
    assert symbols(fresh.load(2)) == ["S0", "S1"]
    repaired = fresh.repair()
    assert repaired is not None
    assert (repaired.version, repaired.restored, repaired.lost) == (4, 2, (3,))
    assert symbols(open_table(table.root).load()) == ["S0", "S1"]


def test_a_newest_manifest_that_vanished_is_no_older_version(table: Table) -> None:
    grown(table, 3)
    manifest(table, 3).unlink()
    for reader in (table, open_table(table.root)):
        with pytest.raises(IntegrityError, match=manifest(table, 3).name):
            reader.load()


def test_a_damaged_checkpoint_is_named(table: Table) -> None:
    grown(table, 20)
    (checkpoint,) = (table.root / "manifests").glob("checkpoint-*")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match=checkpoint.name):
        open_table(table.root).load()
    checkpoint.unlink()
    with pytest.raises(IntegrityError, match=checkpoint.name):
        open_table(table.root).load()
    assert symbols(open_table(table.root).load(10)) == [f"S{version}" for version in range(10)]


def test_every_flipped_bit_of_a_large_segment_that_a_read_touches_is_noticed(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are not hashed whole at a read: their size, footer and pages are."""
    monkeypatch.setattr(segments, "HASHED_WHOLE", 0)
    rows = pa.table({"symbol": [f"S{n % 7}" for n in range(400)], "value": np.arange(400.0)})
    table.commit(0, Changes((NewSegment(rows),)))
    snapshot = table.load()
    assert snapshot.segments[0].footer is not None
    path = table.root / snapshot.segments[0].file
    sound = path.read_bytes()
    assert snapshot.read().equals(rows)
    filtered = snapshot.read(filter=pc.field("value") >= 0)
    unnoticed = []
    for position in range(4, len(sound)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 0x10]) + sound[position + 1 :])
        try:
            if snapshot.read().equals(rows) and snapshot.read(filter=pc.field("value") >= 0).equals(filtered):
                continue  # a byte that no reader looks at
            unnoticed.append(position)
        except IntegrityError:
            continue
    assert unnoticed == []
    assert table.verify() != []


@pytest.mark.parametrize("encoded", [False, True])
def test_a_large_keyed_segment_is_read_by_row_group(
    table: Table, monkeypatch: pytest.MonkeyPatch, encoded: bool
) -> None:
    monkeypatch.setattr(segments, "HASHED_WHOLE", 0)
    monkeypatch.setattr(segments, "ROW_GROUP", 1000)
    names = [f"S{number:02d}" for number in range(10)]
    rows = pa.table({"symbol": pa.array(np.repeat(names, 1000)), "value": np.arange(10_000.0)})
    if encoded:
        rows = rows.set_column(0, "symbol", rows["symbol"].dictionary_encode())
    table.commit(0, Changes((NewSegment(rows, tuple(names)),)))
    path = table.root / table.load().segments[0].file
    groups = pq.read_metadata(path)
    assert groups.num_row_groups == 10
    # Everything but the group of S03 is destroyed; a read of S03 alone does not notice.
    data = bytearray(path.read_bytes())
    wanted = groups.row_group(3)
    first = min(wanted.column(0).dictionary_page_offset, wanted.column(0).data_page_offset)
    end = groups.row_group(4).column(0).dictionary_page_offset
    data[4:first] = bytes(first - 4)
    last = len(data) - int.from_bytes(data[-8:-4], "little") - 8
    data[end:last] = bytes(last - end)
    path.write_bytes(bytes(data))
    assert table.load().read(keys=["S03"])["value"].to_pylist() == list(np.arange(3000.0, 4000.0))
    assert table.load().read(["value"], keys=["S03", "absent"]).num_rows == 1000
    with pytest.raises(IntegrityError):
        table.load().read(keys=["S03", "S04"])


def test_small_segments_open_in_plain_readers(table: Table) -> None:
    grown(table, 1)
    path = table.root / table.load().segments[0].file
    assert pq.read_table(path).to_pydict() == {"symbol": ["S0"]}


def test_an_unknown_outcome_deletes_nothing(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(table, 1)
    link = os.link

    def answer_lost(source: Path, target: Path) -> None:
        link(source, target)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", answer_lost)
    with pytest.raises(TransientError, match="unknown; nothing was deleted"):
        table.commit(1, one_row("B"))
    monkeypatch.undo()
    assert symbols(open_table(table.root).load()) == ["S0", "B"]
    assert table.verify() == []


def test_a_failure_before_the_manifest_leaves_no_file(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(table, 1)
    before = sorted(table.root.rglob("*"))

    def refused(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(TransientError, match="disk is full"):
        table.commit(1, one_row("B"))
    assert sorted(table.root.rglob("*")) == before


def test_a_commit_whose_folder_could_not_be_synced_is_unknown_and_deletes_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(table, 1)
    fsync = os.fsync

    def failing(handle: int) -> None:
        if manifest(table, 2).exists():
            raise OSError(5, "Input/output error")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(TransientError, match="unknown; nothing was deleted"):
        table.commit(1, one_row("B"))
    monkeypatch.undo()
    assert symbols(open_table(table.root).load()) == ["S0", "B"]
    assert table.verify() == []


def test_a_writer_whose_segment_was_collected_before_it_committed_has_a_conflict(table: Table) -> None:
    grown(table, 2)

    other = open_table(table.root)
    with pytest.MonkeyPatch.context() as patch:
        real = os.link

        def slept(source: Path, target: Path) -> None:
            if str(target).endswith(".json"):
                patch.undo()
                grown(other, 3)
                other.collect(apply=True)
            real(source, target)

        patch.setattr(os, "link", slept)
        with pytest.raises(CommitConflict):
            table.compact()
    assert symbols(table.load()) == ["S0", "S1", "S2"]


@pytest.mark.parametrize("asleep_before", ["open", "link"])
def test_a_writer_that_sleeps_in_its_commit_cannot_reuse_a_collected_number(
    table: Table, monkeypatch: pytest.MonkeyPatch, asleep_before: str
) -> None:
    grown(table, 2)
    table.tag("keep", 2)
    real = getattr(os, asleep_before)

    def slept(source: Path, *args: Any) -> Any:
        if str(source).endswith(".tmp"):
            monkeypatch.undo()
            other = grown(open_table(table.root), 6)
            other.compact()
            other.collect(apply=True)
            assert manifest(table, 3).read_bytes() == b"collected\n"
        return real(source, *args)

    monkeypatch.setattr(os, asleep_before, slept)
    with pytest.raises(CommitConflict, match="based on version 2, the newest is 7"):
        table.commit(2, one_row("LOST"))
    assert table.versions() == [0, 2, 7]
    assert symbols(table.load()) == [f"S{version}" for version in range(6)]


def test_a_collection_between_two_look_ups_makes_no_old_version_the_newest(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(table, 2)
    table.tag("keep", 2)
    table.load()
    exists = os.path.exists

    def slowly(path: str) -> bool:
        if path == str(manifest(table, 3)):
            monkeypatch.undo()
            other = grown(open_table(table.root), 6)
            other.collect(apply=True)
        return exists(path)

    monkeypatch.setattr(os.path, "exists", slowly)
    assert table.load().version == 6


def test_a_collected_version_takes_a_name_and_no_space(table: Table) -> None:
    grown(table, 30)
    table.compact()
    table.collect(apply=True)
    buried = {manifest(table, version).stat().st_ino for version in range(1, 31)}
    assert len(buried) == 1
    assert table.versions() == [0, 31]
    names = [path.name for path in (table.root / "manifests").iterdir() if not path.stem.isdigit()]
    assert sorted(names) == ["collected-0", "newest"]


def test_a_name_for_a_collected_version_is_found_when_a_file_can_have_no_more_of_them(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(table, 9)
    link = os.link

    def few(source: Path, target: Path) -> None:
        if source.stat().st_nlink >= 4:
            raise OSError(31, "Too many links")
        link(source, target)

    monkeypatch.setattr(os, "link", few)
    table.collect(apply=True)
    assert table.versions() == [0, 9]
    assert len(list((table.root / "manifests").glob("collected-*"))) == 3


def test_a_commit_that_was_built_upon_while_its_writer_slept_stays(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer sleeps between its link and its answer, through a collection of its own version."""
    grown(table, 2)
    link = os.link

    def slept(source: Path, target: Path) -> None:
        monkeypatch.undo()
        link(source, target)
        other = grown(open_table(table.root), 6)
        other.collect(apply=True)

    monkeypatch.setattr(os, "link", slept)
    assert table.commit(2, one_row("S2")) == 3
    assert symbols(table.load()) == [f"S{version}" for version in range(6)]
    assert table.verify() == []
