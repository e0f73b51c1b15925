"""What every backend of a versioned table must do, as tests: subclass `TableConformance` and give it `open_table`.

class TestMine(TableConformance):
    def open_table(self, root): return MyTable(root)

One file, though long: a backend subclasses one class.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shared.errors import (
    CommitConflict,
    ContractError,
    IntegrityError,
    NotFoundError,
    PipelineError,
    StaleEpochError,
)
from shared.tables.contract import Table
from shared.tables.model import Changes, NewSegment


def rows(*symbols: str, value: float = 1.0) -> pa.Table:
    return pa.table({"symbol": list(symbols), "value": [value] * len(symbols)})


def appending(*tables: pa.Table) -> Changes:
    return Changes(append=tuple(NewSegment(table) for table in tables))


def replacing(keys: Sequence[str], table: pa.Table) -> Changes:
    return Changes(append=(NewSegment(table, tuple(keys)),))


def symbols(table: pa.Table) -> list[str]:
    return [str(symbol) for symbol in table["symbol"].to_pylist()]


class TableConformance:
    """The behaviour of a table, whatever it is stored in."""

    def open_table(self, root: Path) -> Table:
        raise NotImplementedError

    @pytest.fixture
    def table(self, tmp_path: Path) -> Table:
        return self.open_table(tmp_path / "table")

    @pytest.fixture
    def other(self, table: Table) -> Table:
        """The same table as another writer sees it."""
        return self.open_table(table.root)

    # -- versions

    def test_opening_creates_nothing_and_version_0_is_empty(self, table: Table) -> None:
        empty = table.load()
        assert (empty.version, empty.epoch, empty.segments) == (0, 0, ())
        assert empty.read().num_rows == 0
        assert empty.read(columns=["symbol"]).column_names == ["symbol"]
        assert table.versions() == [0]
        assert not table.root.exists()

    def test_a_commit_makes_the_next_version_and_others_see_it(self, table: Table, other: Table) -> None:
        assert table.commit(0, appending(rows("A", "B")), epoch=3, meta={"run_id": "r1"}) == 1
        seen = other.load()
        assert (seen.version, seen.epoch, dict(seen.meta)) == (1, 3, {"run_id": "r1"})
        assert symbols(seen.read()) == ["A", "B"]
        assert other.versions() == [0, 1]

    def test_a_pinned_version_stays_what_it_was(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        pinned = table.load()
        table.commit(1, appending(rows("B")))
        table.compact(fold=lambda all_rows: all_rows.slice(0, 0))
        assert symbols(pinned.read()) == ["A"]
        assert symbols(table.load(2).read()) == ["A", "B"]
        assert table.load(0).read().num_rows == 0

    def test_a_version_that_never_was_is_not_found(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        for version in (2, -1):
            with pytest.raises(NotFoundError):
                table.load(version)

    def test_the_newest_version_is_found_among_many(self, table: Table, other: Table) -> None:
        for version in range(21):
            table.commit(version, appending(rows(f"S{version}")))
            if version in {0, 6, 17}:
                assert other.load().version == version + 1
        assert other.load().version == 21
        assert self.open_table(table.root).load().version == 21
        assert len(symbols(other.load().read())) == 21

    def test_meta_alone_makes_a_version(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        assert table.commit(1, Changes(), meta={"note": "ü", "n": [1, None, {"x": 0.5}]}) == 2
        assert dict(table.load().meta) == {"note": "ü", "n": [1, None, {"x": 0.5}]}
        assert symbols(table.load().read()) == ["A"]

    def test_meta_that_is_not_json_is_refused(self, table: Table) -> None:
        with pytest.raises(ContractError):
            table.commit(0, Changes(), meta={"x": float("nan")})
        assert table.load().version == 0

    # -- compare and set

    def test_an_old_base_is_a_conflict_and_changes_nothing(self, table: Table, other: Table) -> None:
        other.load()
        table.commit(0, appending(rows("A")))
        with pytest.raises(CommitConflict):
            other.commit(0, appending(rows("B")))
        assert symbols(other.load().read()) == ["A"]
        assert other.commit(1, appending(rows("B"))) == 2

    def test_a_base_that_does_not_exist_yet_is_a_conflict(self, table: Table) -> None:
        with pytest.raises(CommitConflict):
            table.commit(5, appending(rows("A")))

    def test_of_writers_at_the_same_moment_exactly_one_wins(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        outcomes: list[int | PipelineError] = []
        gate = threading.Barrier(4)

        def write(number: int) -> None:
            mine = self.open_table(table.root)
            mine.load()
            gate.wait()
            try:
                outcomes.append(mine.commit(1, appending(rows(f"W{number}"))))
            except PipelineError as fault:
                outcomes.append(fault)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [2]
        assert all(isinstance(outcome, CommitConflict) for outcome in outcomes if outcome != 2)
        assert len(symbols(table.load().read())) == 2

    def test_a_smaller_epoch_is_refused_for_good(self, table: Table, other: Table) -> None:
        table.commit(0, appending(rows("A")), epoch=7)
        with pytest.raises(StaleEpochError):
            other.commit(1, appending(rows("B")), epoch=6)
        assert other.commit(1, appending(rows("B")), epoch=7) == 2

    def test_compaction_keeps_the_epoch(self, table: Table) -> None:
        table.commit(0, appending(rows("A"), rows("B")), epoch=7)
        table.compact()
        assert table.load().epoch == 7

    # -- rows

    def test_rows_come_in_the_order_of_commits(self, table: Table) -> None:
        table.commit(0, appending(rows("B"), rows("A")))
        table.commit(1, appending(rows("C", "B")))
        assert symbols(table.load().read()) == ["B", "A", "C", "B"]

    def test_types_come_back_as_they_were(self, table: Table) -> None:
        given = pa.table(
            {
                "symbol": pa.array(["A", "B", "A"]).dictionary_encode(),
                "at": pa.array([1, None, 3], pa.timestamp("us", "UTC")),
                "n": pa.array([2**53 + 1, None, -1], pa.int64()),
                "x": pa.array([0.1, float("nan"), None], pa.float64()),
                "flag": pa.array([True, None, False]),
                "text": pa.array(["", None, "ü"]),
            }
        )
        table.commit(0, appending(given))
        back = table.load().read()
        assert back.schema.equals(given.schema)
        assert [c.to_pylist() for c in back.drop(["x"]).columns] == [c.to_pylist() for c in given.drop(["x"]).columns]
        assert pc.is_nan(back["x"]).to_pylist() == [False, True, None]

    def test_columns_and_filters_project_rows(self, table: Table) -> None:
        table.commit(0, appending(rows("A", value=1.0), rows("B", value=2.0)))
        snapshot = table.load()
        assert snapshot.read(columns=["value"]).to_pydict() == {"value": [1.0, 2.0]}
        assert snapshot.read(columns=["value", "symbol"]).column_names == ["value", "symbol"]
        assert symbols(snapshot.read(filter=pc.field("value") > 1.5)) == ["B"]
        assert snapshot.read(columns=["value"], filter=pc.field("symbol") == "A").to_pydict() == {"value": [1.0]}
        assert symbols(snapshot.read(keys=["B", "Z"])) == ["B"]

    def test_a_column_that_appears_later_is_null_in_older_rows(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        table.commit(1, appending(rows("B").append_column("sector", [["Food"]])))
        snapshot = table.load()
        assert snapshot.read()["sector"].to_pylist() == [None, "Food"]
        assert snapshot.read(columns=["sector"])["sector"].to_pylist() == [None, "Food"]
        assert snapshot.read(columns=["sector"], keys=["A"])["sector"].to_pylist() == [None]
        assert symbols(snapshot.read(filter=pc.field("sector") == "Food")) == ["B"]
        assert symbols(snapshot.read(keys=["A"], filter=pc.field("sector").is_null())) == ["A"]

    def test_a_column_that_nobody_has_is_refused_by_name(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        with pytest.raises(ContractError, match="sectr"):
            table.load().read(columns=["sectr"])

    def test_text_and_dictionary_encoded_text_are_one_column(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        encoded = pa.table({"symbol": pa.array(["B"]).dictionary_encode(), "value": [1.0]})
        table.commit(1, appending(encoded))
        assert symbols(table.load().read()) == ["A", "B"]

    # -- replacing

    def test_a_dropped_segment_takes_its_rows_along(self, table: Table) -> None:
        table.commit(0, appending(rows("A"), rows("B")))
        first = table.load().segments[0]
        table.commit(1, Changes(append=(NewSegment(rows("C")),), drop=(first.file,)))
        assert symbols(table.load().read()) == ["B", "C"]

    def test_a_segment_that_is_not_live_cannot_be_dropped(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        with pytest.raises(ContractError):
            table.commit(1, Changes(drop=("segments/000000000009-x.parquet",)))
        assert table.load().version == 1

    def test_a_keyed_segment_hides_its_keys_in_every_earlier_one(self, table: Table) -> None:
        table.commit(0, replacing(["A", "B"], rows("A", "B", "A", value=1.0)))
        table.commit(1, appending(rows("A", value=2.0)))
        table.commit(2, replacing(["A"], rows("A", value=3.0)))
        snapshot = table.load()
        assert snapshot.read().to_pydict() == {"symbol": ["B", "A"], "value": [1.0, 3.0]}
        assert set(snapshot.keys) == {"A", "B"}
        assert snapshot.keys["A"] != snapshot.keys["B"]
        assert snapshot.touched(["B"])[0].file == snapshot.keys["B"]
        assert table.load(2).read(keys=["A"])["value"].to_pylist() == [1.0, 1.0, 2.0]

    def test_a_key_without_rows_is_thereby_deleted(self, table: Table) -> None:
        table.commit(0, replacing(["A", "B"], rows("A", "B")))
        table.commit(1, replacing(["A"], rows("B").slice(0, 0)))
        assert symbols(table.load().read()) == ["B"]
        assert table.load().read(keys=["A"]).num_rows == 0

    def test_a_segment_whose_keys_are_all_newer_elsewhere_leaves_the_manifest(self, table: Table) -> None:
        table.commit(0, replacing(["A"], rows("A")))
        table.commit(1, replacing(["A", "B"], rows("A", "B")))
        assert len(table.load().segments) == 1

    def test_rows_of_an_undeclared_key_are_refused(self, table: Table) -> None:
        with pytest.raises(ContractError, match="'B'"):
            table.commit(0, replacing(["A"], rows("A", "B")))
        assert table.load().version == 0

    def test_a_read_by_key_opens_only_the_segments_that_may_have_it(self, table: Table) -> None:
        table.commit(0, Changes(append=(NewSegment(rows("A"), ("A",)), NewSegment(rows("B"), ("B",)))))
        snapshot = table.load()
        (table.root / snapshot.keys["B"]).unlink()
        assert symbols(snapshot.read(keys=["A"])) == ["A"]
        assert symbols(snapshot.read(keys=["A"], filter=pc.field("value") > 0)) == ["A"]

    # -- following, compaction

    def test_a_follower_reads_only_what_came_since(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        table.commit(1, appending(rows("B"), rows("C")))
        newest = table.load()
        new = newest.since(1)
        assert new is not None
        assert symbols(newest.read(segments=new)) == ["B", "C"]
        assert newest.since(2) == ()
        assert newest.since(0) == newest.segments

    def test_compaction_keeps_every_row_and_costs_a_follower_nothing(self, table: Table) -> None:
        for version, symbol in enumerate("ABCD"):
            table.commit(version, appending(rows(symbol)), meta={"n": version})
        before = table.load().read()
        assert table.compact() == 5
        after = table.load()
        assert after.read().equals(before)
        assert len(after.segments) == 1
        assert dict(after.meta) == {"n": 3}
        assert after.since(4) == ()
        assert after.since(2) is None

    def test_compaction_with_a_fold_makes_followers_start_anew(self, table: Table) -> None:
        table.commit(0, appending(rows("A"), rows("B")))
        table.compact(fold=lambda all_rows: all_rows.filter(pc.field("symbol") == "B"))
        assert symbols(table.load().read()) == ["B"]
        assert table.load().since(1) is None

    def test_dropping_makes_followers_start_anew(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        table.commit(1, Changes(drop=(table.load().segments[0].file,)))
        assert table.load().since(1) is None

    def test_nothing_to_gain_is_no_version(self, table: Table) -> None:
        assert table.compact() is None
        table.commit(0, appending(rows("A")))
        assert table.compact() is None
        assert table.versions() == [0, 1]

    def test_small_compaction_leaves_a_large_base_alone(self, table: Table) -> None:
        table.commit(0, appending(rows(*(f"S{n}" for n in range(5000)))))
        base = table.load().segments[0]
        for version in range(1, 6):
            table.commit(version, appending(rows(f"D{version}")))
        assert table.compact(small_only=True) == 7
        assert table.load().segments[0] == base
        assert len(table.load().segments) == 2
        assert symbols(table.load().read())[-5:] == ["D1", "D2", "D3", "D4", "D5"]
        assert table.load().since(6) == ()

    def test_small_compaction_never_unhides_older_rows(self, table: Table) -> None:
        table.commit(0, appending(rows(*["A"] * 5000, value=0.0)))
        table.commit(1, replacing(["A"], rows("A", value=1.0)))
        table.commit(2, appending(rows("A", value=2.0)))
        before = table.load().read()
        table.compact(small_only=True)
        assert table.load().read().equals(before)

    def test_compacted_keys_stay_whole_and_replaceable(self, table: Table) -> None:
        table.commit(0, replacing(["A"], rows("A")))
        table.commit(1, replacing(["B"], rows("B")))
        table.compact()
        assert set(table.load().keys) == {"A", "B"}
        table.commit(3, replacing(["A"], rows("A", value=9.0)))
        assert table.load().read().to_pydict() == {"symbol": ["B", "A"], "value": [1.0, 9.0]}

    def test_commits_that_arrive_during_compaction_stay(self, table: Table, other: Table) -> None:
        table.commit(0, appending(rows("A"), rows("B")))

        def slow(all_rows: pa.Table) -> pa.Table:
            if other.load().version == 1:
                other.commit(1, appending(rows("C")))
            return all_rows

        assert table.compact(fold=slow) == 3
        assert symbols(table.load().read()) == ["A", "B", "C"]
        assert table.verify() == []

    def test_compaction_gives_way_to_a_commit_that_dropped_its_rows(self, table: Table, other: Table) -> None:
        table.commit(0, appending(rows("A"), rows("B")))

        def slow(all_rows: pa.Table) -> pa.Table:
            other.commit(1, Changes(drop=(other.load().segments[0].file,)))
            return all_rows

        with pytest.raises(CommitConflict):
            table.compact(fold=slow)
        assert symbols(table.load().read()) == ["B"]

    def test_a_restored_version_equals_the_older_one(self, table: Table) -> None:
        table.commit(0, appending(rows("A")), meta={"run_id": "r1"})
        table.commit(1, Changes(append=(NewSegment(rows("B")),), drop=(table.load().segments[0].file,)))
        assert table.restore(1, base_version=2) == 3
        assert symbols(table.load().read()) == ["A"]
        assert dict(table.load().meta) == {"run_id": "r1"}
        assert symbols(table.load(2).read()) == ["B"]
        assert table.load().since(2) is None
        with pytest.raises(CommitConflict):
            table.restore(1, base_version=2)

    # -- export, tags, care

    def test_an_export_is_plain_parquet_that_names_its_version(self, table: Table, tmp_path: Path) -> None:
        table.commit(0, appending(rows("A", "B")))
        table.commit(1, appending(rows("C")))
        path = table.export(tmp_path / "new" / "symbols.parquet")
        assert symbols(pq.read_table(path)) == ["A", "B", "C"]
        metadata = pq.read_metadata(path).metadata
        assert metadata is not None
        assert metadata[b"asof.version"] == b"2"
        table.export(path, version=1, transform=lambda all_rows: all_rows.select(["symbol"]))
        assert pq.read_table(path).to_pydict() == {"symbol": ["A", "B"]}
        assert list(path.parent.iterdir()) == [path]

    def test_a_tag_names_a_version_and_can_be_moved(self, table: Table, other: Table) -> None:
        table.commit(0, appending(rows("A")))
        assert table.tags() == {}
        table.tag("prod", 1)
        table.tag("run-2024_01", 0)
        table.tag("prod", 0)
        assert other.tags() == {"prod": 0, "run-2024_01": 0}
        with pytest.raises(NotFoundError):
            table.tag("prod", 9)
        for name in ("", "../x", "a/b", ".hidden"):
            with pytest.raises(ContractError):
                table.tag(name, 1)

    def test_a_sound_table_verifies(self, table: Table) -> None:
        assert table.verify() == []
        table.commit(0, appending(rows("A")))
        assert table.verify() == []
        assert table.verify(1) == []
        assert table.repair() is None

    @pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "empty"])
    def test_a_damaged_segment_is_an_error_that_names_it_never_an_empty_read(self, table: Table, damage: str) -> None:
        table.commit(0, appending(rows("A")))
        table.commit(1, appending(rows("B")))
        bad = table.load().segments[1]
        _damage(table.root / bad.file, damage)
        with pytest.raises(IntegrityError, match=bad.file) as caught:
            self.open_table(table.root).load().read()
        assert caught.value.fix is not None
        assert [violation.file for violation in table.verify()] == [bad.file]
        assert symbols(table.load(1).read()) == ["A"]

    def test_repair_goes_back_to_the_newest_sound_version_and_says_what_is_lost(self, table: Table) -> None:
        for version, symbol in enumerate("ABC"):
            table.commit(version, appending(rows(symbol)))
        _damage(table.root / table.load().segments[1].file, "changed")
        repaired = self.open_table(table.root).repair()
        assert repaired is not None
        assert (repaired.version, repaired.restored, repaired.lost) == (4, 1, (2, 3))
        assert symbols(table.load().read()) == ["A"]
        assert table.verify() == []

    def test_repair_never_puts_an_empty_table_in_place_of_a_broken_one(self, table: Table) -> None:
        table.commit(0, appending(rows("A")))
        _damage(table.root / table.load().segments[0].file, "changed")
        with pytest.raises(IntegrityError, match="no version is sound"):
            table.repair()
        assert table.load().version == 1

    def test_collection_is_a_dry_run_until_told_otherwise(self, table: Table) -> None:
        self._with_history(table)
        before = sorted(path for path in table.root.rglob("*") if path.is_file())
        garbage = table.collect()
        assert not garbage.removed
        assert garbage.files
        assert garbage.bytes > 0
        assert sorted(path for path in table.root.rglob("*") if path.is_file()) == before

    def test_collection_keeps_what_is_newest_tagged_or_asked_for(self, table: Table) -> None:
        self._with_history(table)
        table.tag("prod", 2)
        garbage = table.collect(keep=[1], apply=True)
        assert garbage.removed
        assert table.versions() == [0, 1, 2, 6]
        assert symbols(table.load(2).read()) == ["A", "B"]
        assert symbols(table.load().read()) == ["A", "B", "C", "D", "E"]
        for version in (3, 4, 5):
            with pytest.raises(NotFoundError, match="collected"):
                table.load(version)
        assert table.verify() == []
        assert table.commit(6, appending(rows("F"))) == 7
        assert table.collect(keep=[1, 6], apply=True).files == ()

    def test_what_was_the_newest_since_an_instant_stays_for_who_pinned_it_then(self, table: Table) -> None:
        self._with_history(table)
        now = datetime.now(UTC)
        assert table.collect(newest_since=now - timedelta(hours=1)).versions == ()
        assert table.collect(newest_since=now + timedelta(hours=1)).versions == (1, 2, 3, 4, 5)

    def test_a_file_that_no_version_ever_named_is_told_apart(self, table: Table) -> None:
        self._with_history(table)
        stray = table.root / "segments" / "000000000003-stray.parquet"
        stray.write_bytes(b"a commit that came too late")
        garbage = table.collect(apply=True)
        assert garbage.left_over == {stray}
        assert stray in garbage.files
        assert len(garbage.files) == 6

    def test_a_reader_pinned_to_a_collected_version_is_told_so(self, table: Table) -> None:
        self._with_history(table)
        pinned = table.load(5)
        table.collect(apply=True)
        with pytest.raises(NotFoundError, match="version 5 was collected"):
            pinned.read()

    def test_a_writer_that_slept_through_a_collection_cannot_reuse_a_number(self, table: Table, other: Table) -> None:
        table.commit(0, appending(rows("A")))
        other.load()
        for version, symbol in enumerate("BCD", start=1):
            table.commit(version, appending(rows(symbol)))
        table.compact()
        table.collect(apply=True)
        with pytest.raises(CommitConflict):
            other.commit(1, appending(rows("X")))
        assert symbols(other.load().read()) == ["A", "B", "C", "D"]
        assert self.open_table(table.root).load().version == 5

    def _with_history(self, table: Table) -> None:
        """Versions 1–5 append A–E, 6 is all of them compacted."""
        for version, symbol in enumerate("ABCDE"):
            table.commit(version, appending(rows(symbol)))
        table.compact()


def _damage(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[:-7])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
