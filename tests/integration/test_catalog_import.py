"""An existing house is taken over with a report: what contradicts itself is named and stays out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from services.catalog import ExchangeCatalog, MetadataCatalog, import_house
from shared.errors import ContractError, NotFoundError
from shared.paths import Home

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def house(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    folder.mkdir()
    columns = ["symbol", "sector", "tick_size", "valid_from", "valid_until"]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("valid_from", "valid_until"):
        frame[name] = pd.to_datetime(frame[name], format="ISO8601")  # without a zone, as old houses have it
    frame.assign(legacy_note="x").to_parquet(folder / "symbols.parquet")
    return folder


def test_sound_histories_come_over_whole_and_the_same_file_again_is_a_no_op(tmp_path: Path) -> None:
    old = house(
        tmp_path / "old",
        [
            ("PSE:JFC", "Food", 0.1, "2020-01-01", "2021-01-01"),
            ("PSE:JFC", "Banks", None, "2021-01-01", None),
            ("PSE:OLD", "Rail", 0.5, "2019-01-01", "2019-06-01"),
        ],
    )
    home = Home.at(tmp_path / "new")
    (dry,) = import_house(old, home, clock=lambda: NOW)
    assert (dry.versions, dry.retired, dry.refused, dry.catalog_version) == (3, 1, {}, None)
    assert dry.ignored == ("legacy_note",)
    assert MetadataCatalog.open(home.symbols_table).version == 0

    (report,) = import_house(old, home, apply=True, clock=lambda: NOW)
    assert report.catalog_version == 1
    cat = MetadataCatalog.open(home.symbols_table)
    assert cat.get_instrument("PSE:JFC", as_of="2020-06-01")["sector"] == "Food"
    found = cat.get_instrument("PSE:JFC", as_of="2021-01-01")
    assert (found["sector"], found["tick_size"], found["updated_at"]) == ("Banks", None, NOW)
    assert cat.get_instrument("PSE:OLD", as_of="2019-05-31")["active"] is True
    assert cat.get_instrument("PSE:OLD", as_of="2019-06-01")["active"] is False
    assert cat.get_instrument("PSE:JFC", as_of="2020-06-01", known_at="2025-12-31") is None
    assert cat.audit() == []

    (again,) = import_house(old, home, apply=True, clock=lambda: NOW)
    assert again.catalog_version == 1


@pytest.mark.parametrize("never", ["9999-12-31", "9999-12-31T23:59:59.999999", "2262-04-11", "2200-01-01"])
def test_an_end_in_a_far_century_is_none(tmp_path: Path, never: str) -> None:
    old = house(
        tmp_path / "old",
        [
            ("PSE:JFC", "Food", 0.1, "2020-01-01", "2021-01-01"),
            ("PSE:JFC", "Banks", 0.1, "2021-01-01", never),
            ("PSE:OLD", "Rail", 0.5, "2019-01-01", "2199-01-01"),
        ],
    )
    home = Home.at(tmp_path / "new")
    (report,) = import_house(old, home, apply=True, clock=lambda: NOW)
    assert (report.retired, report.endless, report.refused) == (1, 1, {})
    assert report.as_dict()["endless"] == 1
    cat = MetadataCatalog.open(home.symbols_table, clock=lambda: NOW)
    assert cat.active() == ["PSE:JFC", "PSE:OLD"]
    assert len(cat.history("PSE:JFC")) == 2


@pytest.mark.parametrize(
    ("flaw", "rows"),
    [
        ("overlap", [("2020-01-01", "2020-06-01"), ("2020-05-01", None)]),
        ("overlap", [("2020-01-01", None), ("2020-05-01", None)]),
        ("gap", [("2020-01-01", "2020-03-01"), ("2020-05-01", None)]),
        ("inverted", [("2020-05-01", "2020-01-01")]),
        ("inverted", [("2020-05-01", "2020-05-01")]),
        ("without valid_from", [(None, None)]),
    ],
)
def test_a_symbol_that_contradicts_itself_is_named_and_never_imported(
    tmp_path: Path, flaw: str, rows: list[tuple[str, str]]
) -> None:
    own = [("PSE:BAD", "x", 0.1, *interval) for interval in rows]
    old = house(tmp_path / "old", [*own, ("PSE:JFC", "Food", 0.1, "2020-01-01", None)])
    home = Home.at(tmp_path / "new")
    (report,) = import_house(old, home, apply=True, clock=lambda: NOW)
    assert list(report.refused) == ["PSE:BAD"]
    assert flaw in report.refused["PSE:BAD"][0]
    assert MetadataCatalog.open(home.symbols_table).history()["symbol"].tolist() == ["PSE:JFC"]


def test_rows_that_cannot_be_read_are_named_and_a_symbol_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    old = house(
        tmp_path / "old",
        [("JFC", "x", 0.1, "2020-01-01", None), ("PSE:JFC", "Food", float("inf"), "2020-01-01", "2021-01-01"),
         ("PSE:JFC", "Food", 0.1, "2021-01-01", None)],
    )  # fmt: skip
    (report,) = import_house(old, Home.at(tmp_path / "new"), apply=True, clock=lambda: NOW)
    assert set(report.refused) == {"0", "PSE:JFC"}
    assert report.versions == 0


def test_exchanges_come_over_too_and_both_files_are_read_before_either_is_written(tmp_path: Path) -> None:
    old = house(tmp_path / "old", [("PSE:JFC", "Food", 0.1, "2020-01-01", None)])
    (old / "exchanges.parquet").write_bytes(b"no parquet")
    home = Home.at(tmp_path / "new")
    with pytest.raises(ContractError, match=r"exchanges\.parquet"):
        import_house(old, home, apply=True, clock=lambda: NOW)
    assert MetadataCatalog.open(home.symbols_table).version == 0
    stamps = pd.to_datetime(["2020-01-01"], utc=True)
    pd.DataFrame({"exchange": ["PSE"], "country": ["PH"], "valid_from": stamps}).to_parquet(old / "exchanges.parquet")
    reports = import_house(old, home, apply=True, clock=lambda: NOW)
    assert [report.file for report in reports] == ["symbols.parquet", "exchanges.parquet"]
    assert ExchangeCatalog.open(home.exchanges_table).get_exchange("PSE", as_of="2020-01-01")["country"] == "PH"


def test_a_folder_without_a_house_and_a_file_without_valid_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"symbols\.parquet"):
        import_house(tmp_path, Home.at(tmp_path / "new"))
    pd.DataFrame({"symbol": ["PSE:JFC"]}).to_parquet(tmp_path / "symbols.parquet")
    with pytest.raises(ContractError, match="valid_from"):
        import_house(tmp_path, Home.at(tmp_path / "new"))


def test_this_catalogs_own_export_comes_over_as_the_same_history(tmp_path: Path) -> None:
    cat = MetadataCatalog.open(tmp_path / "symbols", clock=lambda: NOW)
    for day, sector in enumerate(("Food", "Banks", "Rail"), start=1):
        cat.upsert_symbols(
            [{"symbol": "PSE:JFC", "sector": sector, "pricescale": 2**53 + 1}], effective_at=f"2020-01-0{day}"
        )
    cat.retire_symbols(["PSE:JFC"], effective_at="2020-02-01")
    cat.export(tmp_path / "old" / "symbols.parquet")
    home = Home.at(tmp_path / "new")
    (report,) = import_house(tmp_path / "old", home, apply=True, clock=lambda: NOW)
    assert (report.refused, report.ignored) == ({}, ())
    left, right = (one.history().drop(columns=["source"]) for one in (cat, MetadataCatalog.open(home.symbols_table)))
    pd.testing.assert_frame_equal(left, right)
