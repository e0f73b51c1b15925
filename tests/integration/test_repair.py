"""`asof audit … --repair`: it says what it would give up, gives it up only when asked, and keeps it aside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asof.audits import AuditResult, run_audit, run_repair
from services.catalog import ExchangeCatalog, MetadataCatalog
from shared.bars import BarsTable
from shared.errors import ContractError, IntegrityError, NotFoundError
from shared.paths import Home
from shared.tables import open_table
from tests.integration.auditor_house import House
from tests.integration.gc_house import SYMBOL, bars, build, promote

NOW = datetime(2021, 12, 15, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return build(tmp_path / "data")


def repair(home: Home, what: str = "pit") -> AuditResult:
    return run_repair(what, home, now=NOW, by="a test")


def segment_of(root: Path, version: int) -> Path:
    """The segment that this version's commit brought."""
    return next((root / "segments").glob(f"{version:012d}-*"))


def manifest_of(root: Path, version: int) -> Path:
    return root / "manifests" / f"{version:020d}.json"


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if how == "truncated" else data[:30] + bytes([data[30] ^ 1]) + data[31:])


def sectors(home: Home) -> list[Any]:
    return list(MetadataCatalog.open(home.symbols_table).history(SYMBOL)["sector"])


@pytest.mark.parametrize("how", ["changed", "truncated", "missing"])
@pytest.mark.parametrize("what", ["segment", "manifest"])
def test_a_damaged_newest_version_gives_way_to_the_one_before_and_writing_goes_on(home: Home, what: str, how: str):
    root = home.symbols_table
    bad = segment_of(root, 5) if what == "segment" else manifest_of(root, 5)
    damage(bad, how)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    audited = run_audit("pit", home, None)
    assert len(audited.violations) == 1
    assert (str(bad.name) in audited.violations[0]) or ("manifest of version 5" in audited.violations[0])
    (would,) = audited.as_dict()["repairable"]
    assert (would["table"], would["gives_up"], would["goes_back_to"]) == ("lakehouse/symbols", [5], 4)
    assert (would["rows_lost"], would["runs"]) == ((1, ["r5"]) if what == "segment" else (None, []))
    assert would["next"] == "asof audit pit --repair"
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before

    repaired = repair(home)
    assert repaired.violations == ()
    (did,) = repaired.as_dict()["repaired"]
    assert (did["version"], did["gives_up"], did["next"]) == (6, [5], "asof refresh")
    aside = home.resolve(did["kept_aside"])
    told = json.loads((aside / "repair.json").read_text())
    assert (told["given_up"], told["restored"], told["at"], told["by"]) == ([5], 4, "2021-12-15T00:00:00Z", "a test")
    kept = {path.name for path in aside.rglob("*")}
    assert how == "missing" or bad.name in kept
    assert open_table(root).load().meta["repair"] == {
        "before": 5,
        "restored": 4,
        "lost": [5],
        "at": "2021-12-15T00:00:00Z",
        "by": "a test",
    }

    assert sectors(home) == ["sector 1", "sector 2", "sector 3", "sector 4"]
    catalog = MetadataCatalog.open(root)
    assert catalog.upsert_symbols([{"symbol": SYMBOL, "sector": "sector 7"}]).version == 7
    assert sectors(home)[-1] == "sector 7"
    assert run_audit("pit", home, None).violations == ()
    with pytest.raises(NotFoundError, match="given up in a repair"):
        open_table(root).load(5)


def test_a_writer_that_worked_when_the_damage_came_goes_on_after_the_repair_from_what_is_left(home: Home):
    catalog = MetadataCatalog.open(home.symbols_table)
    assert catalog.version == 5
    damage(segment_of(home.symbols_table, 5), "changed")
    repair(home)
    assert catalog.upsert_symbols([{"symbol": SYMBOL, "sector": "sector 5"}]).changed == (SYMBOL,)
    assert list(catalog.history(SYMBOL)["sector"])[-2:] == ["sector 4", "sector 5"]
    assert sectors(home) == list(catalog.history(SYMBOL)["sector"])


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_lost_manifest_in_the_middle_is_noticed_and_its_number_buried_with_nothing_else_lost(home: Home, how: str):
    damage(manifest_of(home.symbols_table, 3), how)
    before = sectors(home)
    assert any("manifest of version 3" in one for one in run_audit("pit", home, None).violations)
    (did,) = repair(home).as_dict()["repaired"]
    assert (did["version"], did["gives_up"], did["goes_back_to"], did["next"]) == (5, [3], None, None)
    assert sectors(home) == before
    assert run_audit("pit", home, None).violations == ()


def test_a_writer_before_a_lost_manifest_does_not_take_its_number(home: Home):
    slow = open_table(home.features_table("1d", "screener"))
    slow.load()
    promote(home, 4, "r5")
    promote(home, 5, "r6")
    manifest_of(slow.root, 5).unlink()
    with pytest.raises(IntegrityError, match=r"0005\.json is missing"):
        slow.load()
    repair(home, "features")
    assert slow.load().version == 6


def test_an_old_segment_that_is_in_every_version_since_cannot_be_repaired_and_nothing_is_touched(home: Home):
    damage(segment_of(home.symbols_table, 1), "changed")
    (would,) = run_audit("pit", home, None).as_dict()["repairable"]
    assert (would["goes_back_to"], would["next"]) == (0, "restore a backup")
    assert any("no version is sound" in one for one in repair(home).violations)
    assert open_table(home.symbols_table).versions() == [0, 1, 2, 3, 4, 5]


def test_several_broken_versions_are_given_up_together(home: Home):
    damage(segment_of(home.symbols_table, 4), "truncated")
    (did,) = repair(home).as_dict()["repaired"]
    assert (did["gives_up"], did["goes_back_to"], did["version"]) == ([4, 5], 3, 6)
    aside = home.resolve(did["kept_aside"])
    # The sound rows of version 5 are given up with it, so they are kept too.
    assert {path.name for path in (aside / "segments").iterdir()} == {
        segment_of(home.symbols_table, version).name for version in (4, 5)
    }


def test_exchanges_features_and_bars_are_repaired_alike_each_by_its_own_audit(home: Home):
    exchanges = ExchangeCatalog.open(home.exchanges_table)
    for country in ("PH", "Philippines"):
        exchanges.upsert_exchanges([{"exchange": "PSE", "country": country}])
    features = home.features_table("1d", "screener")
    open_table(features).tag("prod", 4)
    stored = home.bars_table("1d", SYMBOL)
    damage(segment_of(home.exchanges_table, 2), "changed")
    damage(segment_of(features, 4), "missing")
    damage(segment_of(stored, 5), "truncated")
    assert len(run_audit("tables", home, None).violations) == 3
    for what, root, version in (("pit", home.exchanges_table, 3), ("features", features, 5), ("bars", stored, 6)):
        assert len(run_audit(what, home, None).violations) == 1
        (did,) = repair(home, what).as_dict()["repaired"]
        assert (did["table"], did["version"]) == (home.relative(root), version)
    assert run_audit("tables", home, None).violations == ()
    assert open_table(features).tags() == {"prod": 5}
    assert len(BarsTable.open(stored).read()) == 4
    assert BarsTable.open(stored).append(bars(5), run_id="r6").added == 1
    assert exchanges.upsert_exchanges([{"exchange": "PSE", "country": "Philippines"}]).changed == ("PSE",)
    assert promote(home, 5, "r6") == 6


def test_a_sound_house_is_left_as_it_is(home: Home):
    assert repair(home, "tables").as_dict()["repaired"] == []
    assert open_table(home.symbols_table).versions() == [0, 1, 2, 3, 4, 5]


def test_a_ledger_is_never_repaired(home: Home):
    with pytest.raises(ContractError, match="has no repair"):
        repair(home, "ledger")


@pytest.fixture
def auditor(tmp_path: Path) -> House:
    """An auditor in a house whose catalog has a version that cannot be read, and a repair that was made."""
    house = House(tmp_path / "data")
    catalog = MetadataCatalog.open(house.home.symbols_table)
    for sector in ("Food", "Retail"):
        catalog.upsert_symbols([{"symbol": SYMBOL, "sector": sector}], known_at=NOW, run_id=sector)
    damage(segment_of(house.home.symbols_table, 2), "changed")
    repair(house.home)
    return house


def test_a_repair_is_entered_into_the_ledger_once_by_whichever_auditor_runs_next(auditor: House):
    notes = {path: path.read_bytes() for path in auditor.home.repair_notes.iterdir()}
    assert auditor.desk.ledger.head() is None
    auditor.tick()
    (entry,) = auditor.desk.ledger.of_kind("repaired")
    assert (entry.data["table"], entry.data["gives_up"], entry.data["version"]) == ("lakehouse/symbols", [2], 3)
    assert (entry.data["by"], entry.data["at"], entry.data["runs"]) == ("a test", "2021-12-15T00:00:00Z", ["Retail"])
    assert not list(auditor.home.repair_notes.iterdir())
    for path, data in notes.items():  # as if it had been killed before it removed them
        path.write_bytes(data)
    auditor.again().tick()
    assert len(auditor.desk.ledger.of_kind("repaired")) == 1
    assert not list(auditor.home.repair_notes.iterdir())


def test_a_note_of_a_repair_that_cannot_be_read_is_kept_and_stops_nobody(auditor: House):
    (auditor.home.repair_notes / "0.json").write_text('{"table": 1}')
    auditor.tick()
    assert len(auditor.desk.ledger.of_kind("repaired")) == 1
    assert [path.name for path in auditor.home.repair_notes.iterdir()] == ["0.unreadable"]
