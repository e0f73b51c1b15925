"""`asof gc` on files: what is named stays, what is in use stays, the rest goes when it is told to."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from asof.gc import ASIDE, LATE, MEMORY, OLD, Collected, collect_house
from services.auditor.adapters.ledger_file import LedgerFile
from services.catalog import MetadataCatalog
from shared.bars import BarsTable
from shared.errors import IntegrityError, NotFoundError
from shared.paths import Home
from shared.tables import open_table
from tests.integration.gc_house import NOW, SYMBOL, build, litter, promote, versions, write

ALL = {"bars": [1, 2, 3, 4, 5], "catalog": [1, 2, 3, 4, 5], "features": [1, 2, 3, 4]}
NAMED = {"bars": [2, 3, 5], "catalog": [2, 3, 5], "features": [1, 2, 4]}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return build(tmp_path / "data")


def gc(home: Home, *, spared: timedelta = timedelta(0), apply: bool = True) -> Collected:
    return collect_house(home, older_than=spared, now=NOW, apply=apply)


def files(home: Home) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_dry_run_removes_nothing_and_says_what_would_go_and_why(home: Home):
    litter(home)
    before = files(home)
    found = gc(home, apply=False)
    assert files(home) == before
    told = {(group.where, group.why): (group.versions, group.files) for group in found.groups}
    assert told[("bars/1d", OLD)][0] == 2
    assert told[("symbols", OLD)][0] == 2
    assert told[("symbols", LATE)] == (0, 1)
    assert told[("features/1d/screener", OLD)][0] == 1
    assert told[("everywhere", ASIDE)] == (0, 2)
    gone = gc(home)
    assert (gone.bytes, gone.groups) == (found.bytes, found.groups)


def test_what_a_run_a_promotion_or_the_ledger_names_stays_and_the_rest_goes(home: Home):
    stray = litter(home)
    assert versions(home) == ALL
    gc(home)
    assert versions(home) == NAMED
    assert not any(path.exists() for path in stray)
    assert gc(home).groups == []
    bars = BarsTable.open(home.bars_table("1d", SYMBOL))
    assert [len(bars.read(version)) for version in (2, 3, 5)] == [2, 3, 5]
    assert MetadataCatalog.open(home.symbols_table).audit() == []
    features = open_table(home.features_table("1d", "screener"))
    assert [features.load(version).read().num_rows for version in (1, 2, 4)] == [1, 2, 3]


def test_every_version_of_the_catalogs_history_is_still_known_after_its_files_were_merged_and_collected(home: Home):
    catalog = MetadataCatalog.open(home.symbols_table)
    before = catalog.history()
    catalog.compact()
    gc(home)
    assert MetadataCatalog.open(home.symbols_table).history().equals(before)


def test_a_tag_keeps_its_version(home: Home):
    open_table(home.bars_table("1d", SYMBOL)).tag("audit-2021", 4)
    gc(home)
    assert versions(home)["bars"] == [2, 3, 4, 5]


def test_what_was_the_newest_within_the_age_limit_stays_for_who_pinned_it(home: Home):
    assert gc(home, spared=timedelta(days=1)).groups == []
    assert versions(home) == ALL


def test_a_run_that_is_not_decided_keeps_all_that_was_the_newest_since_it_was_opened(home: Home):
    LedgerFile(home).append("opened", key="r9", data={}, time=NOW - timedelta(days=30), run_id="r9")
    found = gc(home)
    assert list(found.open_runs) == ["r9"]
    assert versions(home) == ALL
    LedgerFile(home).append("decided", key="r9-decided", data={}, time=NOW, run_id="r9")
    gc(home)
    assert versions(home) == NAMED


def test_a_run_that_the_auditor_has_not_heard_of_counts_as_not_decided(home: Home):
    (home.run("early").root / "staged").mkdir(parents=True)
    write(home.run("early").root / "staged" / "run.json", {"interval": "1d", "pins": {}})
    assert list(gc(home).open_runs) == ["early"]


def test_the_folder_of_a_run_that_is_removed_lets_go_of_its_inputs(home: Home):
    shutil.rmtree(home.run("r1").root)
    gc(home)
    assert versions(home) == {**NAMED, "bars": [5]}


def test_what_the_fetcher_remembers_of_a_run_decided_long_ago_goes(home: Home):
    for run_id in ("r1", "not-decided"):
        folder = home.state / "fetcher" / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text("{}")
    kept = home.relative(home.bars_table("1d", SYMBOL))
    line = {"bars": {"path": kept, "table_version": 4}}
    (home.state / "fetcher" / "runs" / "not-decided" / "bars-0-aa.jsonl").write_text(f"{json.dumps(line)}\n")
    (group,) = (group for group in gc(home, spared=timedelta(days=1)).groups if group.why == MEMORY)
    assert group.files == 1
    assert [path.name for path in (home.state / "fetcher" / "runs").iterdir()] == ["not-decided"]
    gc(home)
    assert 4 in versions(home)["bars"]


def test_a_file_that_is_being_written_stays_however_short_the_age_limit(home: Home):
    fresh = home.runs / ".report.html.7-cc.tmp"
    fresh.write_bytes(b"half")
    gc(home)
    assert fresh.exists()


def test_a_commit_under_way_is_left_alone(home: Home):
    table = open_table(home.features_table("1d", "screener"))
    under_way = table.root / "segments" / f"{5:012d}-abcdef0123.parquet"
    under_way.write_bytes(b"not committed yet")
    gc(home)
    assert under_way.exists()
    assert promote(home, 4, "r5") == 5


def test_a_reader_pinned_to_what_went_is_told_so(home: Home):
    pinned = open_table(home.bars_table("1d", SYMBOL)).load(4)
    BarsTable.open(home.bars_table("1d", SYMBOL)).table.compact()
    gc(home)
    with pytest.raises(NotFoundError, match="version 4 was collected"):
        pinned.read()


def test_a_damaged_table_is_left_as_it_is_and_the_others_are_collected(home: Home):
    newest = home.symbols_table / "manifests" / f"{5:020d}.json"
    newest.write_bytes(newest.read_bytes()[:50])
    found = gc(home)
    assert list(found.refused) == ["lakehouse/symbols"]
    assert versions(home) == {**NAMED, "catalog": ALL["catalog"]}


@pytest.mark.parametrize("torn", ["feature_ingest_coverage.json", "staged/run.json"])
def test_a_run_whose_files_cannot_be_read_stops_the_collection_before_anything_goes(home: Home, torn: str):
    path = home.run("r1").root / torn
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(IntegrityError, match="not known"):
        gc(home)
    assert versions(home) == ALL


def test_a_broken_ledger_stops_the_collection_before_anything_goes(home: Home):
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b'"catalog":2', b'"catalog":1'))
    with pytest.raises(IntegrityError, match="ledger is broken"):
        gc(home)
    assert versions(home) == ALL
