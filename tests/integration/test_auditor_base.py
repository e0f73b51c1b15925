"""What was promoted meanwhile: the gate looks again, and a rollback is a new version."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from shared.tables import Changes, NewSegment, open_table
from tests.integration.auditor_house import House, decisions

TWO = ["PSE:JFC", "PSE:BDO"]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


def promote(house: House, run_id: str, *symbols: str) -> int:
    """What the features service does with a granted run: one commit of the run's symbols."""
    table = open_table(house.home.features_table("1d", "screener"))
    rows = pa.table({"symbol": list(symbols), "run": [run_id] * len(symbols)})
    meta = {"run_id": run_id, "catalog_version": 1}
    return table.commit(table.load().version, Changes(append=(NewSegment(rows, symbols),)), meta=meta)


def test_a_symbol_promoted_meanwhile_from_a_later_as_of_blocks(house: House) -> None:
    house.start(TWO, run_id="old", as_of=house.now - timedelta(days=1))
    house.start(["PSE:BDO"], run_id="new", as_of=house.now)
    promote(house, "new", "PSE:BDO")
    (decided,) = decisions(house.note(*house.all_of(TWO, "old")))
    assert decided.decision == "blocked"
    assert decided.reason == (
        "PSE:BDO promoted since the run started from version 0, by version 1 (run new); "
        "from a later as_of than this run's"
    )


def test_a_symbol_promoted_meanwhile_from_no_later_as_of_is_checked_again_and_said(house: House) -> None:
    house.start(TWO, run_id="now")
    house.start(["PSE:BDO"], run_id="yesterday", as_of=house.now - timedelta(days=1))
    promote(house, "yesterday", "PSE:BDO")
    (decided,) = decisions(house.note(*house.all_of(TWO, "now")))
    assert decided.decision == "granted"
    assert "checked again: this run's rows are not older" in decided.reason


def test_a_promotion_by_an_unknown_run_blocks(house: House) -> None:
    house.start(TWO)
    promote(house, "imported", "PSE:JFC")
    (decided,) = decisions(house.note(*house.all_of(TWO)))
    assert decided.decision == "blocked"
    assert "run imported" in decided.reason


def test_other_symbols_and_the_runs_own_promotion_do_not_matter(house: House) -> None:
    house.start(TWO)
    promote(house, "other", "PSE:SM")
    promote(house, "r1", *TWO)
    (decided,) = decisions(house.note(*house.all_of(TWO)))
    assert decided.reason == "all 2 covered"


def test_a_run_starts_from_the_newest_versions(house: House) -> None:
    promote(house, "first", *TWO)
    house.start(TWO)
    (decided,) = decisions(house.note(*house.all_of(TWO)))
    assert decided.base.features == 1


def test_a_rollback_is_a_new_version_that_equals_an_older_one(house: House) -> None:
    promote(house, "first", *TWO)
    promote(house, "second", *TWO)
    table = open_table(house.home.features_table("1d", "screener"))
    result, told = house.command("rollback", None, command_id="back", reason="wrong rules")
    assert result.references == {"version": 3, "equals": 1}
    (export,) = told
    assert (export.data.kind, export.data.arguments["version"]) == ("export", 3)  # the plain file follows
    assert set(table.load().read()["run"].to_pylist()) == {"first"}
    assert table.tags() == {"prod": 3}
    (entry,) = house.desk.ledger.of_kind("rolled_back")
    assert (entry.data["from"], entry.data["to"], entry.data["catalog_version"]) == (2, 1, 1)
    again, told = house.command("rollback", None, command_id="back", reason="wrong rules")
    assert (again, [event.id for event in told]) == (result, [export.id])
    assert table.load().version == 3


def test_a_rollback_that_died_before_its_ledger_entry_is_not_done_twice(house: House) -> None:
    promote(house, "first", *TWO)
    promote(house, "second", *TWO)
    house.desk.tables.rollback("1d", "screener", to=None, command_id="back", at="2021-12-15T08:00:00Z")
    result, _ = house.command("rollback", None, command_id="back")
    assert result.references == {"version": 3, "equals": 1}


@pytest.mark.parametrize(("to", "reason"), [(7, "no version 7"), (None, "nothing to go back to")])
def test_a_rollback_to_nowhere_is_refused(house: House, to: int | None, reason: str) -> None:
    arguments = {} if to is None else {"to": to}
    result, _ = house.command("rollback", None, **arguments)
    assert result.outcome == "refused"
    assert reason in result.message
