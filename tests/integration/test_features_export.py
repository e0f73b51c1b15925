"""The plain matrix follows what `@prod` is, also backwards."""

from __future__ import annotations

import asyncio

import pandas as pd
import pyarrow.parquet as pq
import pytest

from services.auditor.adapters.tables import LakehouseTables
from services.features import commands
from shared.events import Command, Event
from tests.integration.features_house import START, FeaturesHouse, good, holds


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def export(house: FeaturesHouse, **arguments):
    """The command that a rollback sends, through the service's handler; what it answered."""
    asked = {"interval": "1d", "rules": "screener", "version": 3, **arguments}
    command = Command(command_id="back-export", kind="export", arguments=asked, requested_by="ana")
    event = Event.of(command, source="auditor", time=START)
    said = asyncio.run(
        commands.carry_out(event, book=house.adjustments, store=house.store, take=None, clock=house.clock)
    )
    return said[0].data


def roll_back(house: FeaturesHouse, to: int) -> None:
    LakehouseTables(house.home).rollback("1d", "screener", to=to, command_id="back", at="2021-12-15T08:00:00Z")


def exported(house: FeaturesHouse) -> tuple[pd.DataFrame, int]:
    metadata = pq.read_schema(house.home.features_export).metadata
    return pd.read_parquet(house.home.features_export), int(metadata[b"asof.version"])


def test_after_a_rollback_the_plain_matrix_is_what_prod_is(house):
    frames = good("X:A", "X:B")
    house.run("first", frames)
    house.run("second", good("X:A", "X:B", shift=7))
    roll_back(house, to=1)
    assert exported(house)[1] == 2
    assert export(house).outcome == "done"
    matrix, version = exported(house)
    assert version == 3 == house.table().tags()["prod"]
    assert holds(matrix, frames)
    before = house.contents()
    assert export(house).outcome == "done"  # delivered again
    assert house.contents() == before


def test_a_rollback_to_before_the_first_promotion_leaves_a_matrix_without_rows(house):
    house.run("first", good("X:A"))
    roll_back(house, to=0)
    export(house, version=2)
    matrix, version = exported(house)
    assert (len(matrix), version) == (0, 2)


def test_an_export_that_comes_late_writes_the_newest_version(house):
    house.run("first", good("X:A"))
    house.run("second", good("X:A", shift=7))
    roll_back(house, to=1)
    frames = good("X:A", shift=9)
    house.run("third", frames)
    export(house)
    matrix, version = exported(house)
    assert version == 4
    assert holds(matrix, frames)


def test_what_asks_for_no_export_is_refused(house):
    assert export(house, interval="1d; rm").outcome == "refused"
