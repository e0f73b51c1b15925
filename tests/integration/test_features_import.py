"""Another house's features_matrix.parquet: what is sound comes over, apart from what runs promote."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
import pytest

from asof import Lakehouse
from services.features import commands
from services.features.takeover import FILE, import_features
from shared.errors import ContractError, NotFoundError
from shared.events import Command, Event
from tests.integration.features_house import START, FeaturesHouse, good, holds


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


@pytest.fixture
def other(tmp_path):
    """Another house of this kind, with a matrix of its own making."""
    other = FeaturesHouse(tmp_path / "other")
    other.run("r1", good("X:A", "X:B"))
    return other


def spoil(other: FeaturesHouse, change) -> None:
    matrix = pd.read_parquet(other.home.features_export)
    changed = change(matrix)
    (matrix if changed is None else changed).to_parquet(other.home.features_export)


def taken(house, other, **asked):
    return import_features(other.home.lakehouse, house.home, clock=house.clock, **asked)


def test_a_dry_run_writes_nothing(house, other):
    report = taken(house, other)
    assert (report.symbols, report.rows, report.version, report.found.refused) == (2, 160, None, {})
    assert house.contents() == {}


def test_an_imported_matrix_is_read_apart_and_to_the_bit(house, other):
    assert taken(house, other, apply=True).version == 1
    lake = Lakehouse(house.home.root)
    pd.testing.assert_frame_equal(lake.features.matrix(rules="imported"), other.matrix(), check_exact=True)
    slice_ = lake.features.at("2021-03-01", rules="imported")
    pd.testing.assert_frame_equal(slice_, Lakehouse(other.home.root).features.at("2021-03-01"))


def test_what_is_imported_is_never_what_runs_promote(house, other):
    taken(house, other, apply=True)
    with pytest.raises(NotFoundError, match="no 1d features by the rules screener were promoted"):
        house.matrix()
    assert not house.home.features_export.exists()
    frames = good("X:A", shift=5)
    house.run("own", frames)
    assert holds(house.matrix(), frames)
    with pytest.raises(ContractError, match="imported"):
        house.open("r2", ["X:A"], rules="imported")


def test_the_same_file_again_changes_nothing_and_another_one_replaces_its_symbols(house, other):
    taken(house, other, apply=True)
    before = house.contents()
    assert taken(house, other, apply=True).version == 1
    assert house.contents() == before
    later = good("X:A", shift=3)
    other.run("r2", later)
    assert taken(house, other, apply=True).version == 2
    assert holds(house.matrix(rules="imported"), {**good("X:B"), **later})
    assert holds(house.matrix(rules="imported", version=1), good("X:A", "X:B"))


def _out_of_bounds(matrix):
    matrix.loc[matrix.index[70], ("X:A", "rsi")] = 100.5


def _infinite(matrix):
    matrix.loc[matrix.index[70], ("X:A", "recommend_all")] = np.inf


def _words(matrix):
    matrix[("X:A", "adx")] = "none"


def _empty(matrix):
    matrix[[("X:A", name) for name in ("recommend_ma", "recommend_other", "recommend_all", "rsi", "adx")]] = np.nan


def _without_all(matrix):
    return matrix.drop(columns=[("X:A", "recommend_all")])


def _renamed(matrix):
    return matrix.rename(columns={"X:A": "a/../b"})


def _known_before(matrix):
    matrix[("X:A", "available_at")] = pd.Timestamp("2020-01-01", tz="UTC")


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (_out_of_bounds, r"rsi is .*100.5.* on 2021-03-21, outside \[0, 100\]"),
        (_infinite, "recommend_all is .*inf"),
        (_words, "adx holds no numbers"),
        (_empty, "it has no values"),
        (_without_all, "no recommend_all"),
        (_known_before, "available_at is before its bar on 2021-01-"),
        (_renamed, "names no exchange|ticker|EXCHANGE"),
    ],
)
def test_a_broken_symbol_is_named_with_its_flaw_and_stops_no_other(house, other, change, flaw):
    spoil(other, change)
    report = taken(house, other, apply=True)
    ((_, flaws),) = report.found.refused.items()
    assert pd.Series(flaws).str.contains(flaw).any(), flaws
    assert report.symbols == 1
    assert list(house.matrix(rules="imported").columns.get_level_values(0).unique()) == ["X:B"]


def test_names_of_a_screener_and_an_index_without_a_zone_are_understood(house, other):
    spoil(
        other,
        lambda matrix: (
            matrix.drop(columns="available_at", level=1)
            .rename(columns={"recommend_all": "Recommend.All", "rsi": "RSI"})
            .assign()
            .tz_localize(None)
        ),
    )
    report = taken(house, other, apply=True)
    assert (report.symbols, report.found.refused) == (2, {})
    mine, theirs = house.matrix(rules="imported"), other.matrix()
    rated = theirs["X:A"]["recommend_all"].dropna()
    pd.testing.assert_series_equal(mine["X:A"]["recommend_all"], rated)
    # Nobody said when they were known: at the latest that it can have been.
    assert (mine["X:A"]["available_at"] == mine.index + pd.Timedelta(hours=38)).all()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda matrix: matrix.droplevel(1, axis=1), "no columns"),
        (lambda matrix: matrix.reset_index(drop=True), "no DatetimeIndex"),
        (lambda matrix: pd.concat([matrix, matrix.iloc[:1]]), "two rows of one stamp"),
        (lambda matrix: matrix.set_axis(matrix.index + pd.Timedelta(hours=1)), "not of 00:00 UTC"),
    ],
)
def test_a_file_of_another_shape_is_refused_as_a_whole(house, other, change, fault):
    matrix = change(pd.read_parquet(other.home.features_export))
    if not matrix.columns.is_unique:
        matrix.columns = [f"c{number}" for number in range(matrix.shape[1])]
    matrix.to_parquet(other.home.features_export)
    with pytest.raises(ContractError, match=fault):
        taken(house, other, apply=True)
    assert house.contents() == {}


def test_a_file_that_is_none_and_a_folder_without_one_are_refused(house, other, tmp_path):
    other.home.features_export.write_bytes(b"not parquet")
    with pytest.raises(ContractError, match="is no Parquet file"):
        taken(house, other)
    with pytest.raises(NotFoundError, match=FILE):
        import_features(tmp_path, house.home)


def ask(house, other, **arguments):
    command = Command(command_id="c1", kind="import-features", arguments=arguments, requested_by="ana")

    def take(folder, apply):
        return import_features(folder, house.home, apply=apply, clock=house.clock)

    event = Event.of(command, source="cli", time=START)
    (said,) = asyncio.run(
        commands.carry_out(event, book=house.adjustments, store=house.store, take=take, clock=house.clock)
    )
    return said.data


def test_the_command_says_what_it_did_and_refuses_what_it_cannot_read(house, other, tmp_path):
    folder = str(other.home.lakehouse)
    dry = ask(house, other, folder=folder)
    assert (dry.outcome, dry.references["files"][0]["applied"]) == ("done", False)
    assert "would be taken over" in dry.message
    done = ask(house, other, folder=folder, apply=True)
    assert done.references["files"][0]["feature_version"] == 1
    assert ask(house, other, folder=str(tmp_path / "nowhere")).outcome == "refused"
    assert ask(house, other, apply=True).outcome == "refused"
