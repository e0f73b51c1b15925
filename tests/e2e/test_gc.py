"""`asof gc` in a house at work: whatever a run saw, computed or decided is there afterwards, and services go on."""

from __future__ import annotations

import os

import pytest

from asof import Lakehouse
from tests.e2e.conftest import House

pytestmark = pytest.mark.timeout(300)

SYMBOLS = ["PSE:JFC", "PSE:BDO", "PSE:SM"]
DAYS = {"first": "2021-12-13T08:00:00Z", "second": "2021-12-14T08:00:00Z", "third": "2021-12-15T08:00:00Z"}


def test_after_a_collection_every_run_is_reproduced_shown_read_and_rolled_back_as_before(house: House):
    house.services()
    for run_id, as_of in DAYS.items():
        house.publish(candidates=SYMBOLS, as_of=as_of, run_id=run_id)
        assert house.verdict(run_id)["decision"] == "granted"
        house.wait(lambda run_id=run_id: house.asof("show", run_id)["promoted_version"], "the promotion")
        # Versions that no run has anything to do with: they are what there is to collect.
        for symbol in SYMBOLS[:2]:
            house.asof("retire", symbol)
    litter = [house.home.runs / ".report.html.7-aa.tmp", house.home.lakehouse / ".symbols.parquet.7-bb.tmp"]
    tables = [house.home.symbols_table, house.home.features_table("1d", "screener")]
    late = [root / "segments" / "000000000001-0123456789.parquet" for root in tables]
    for path in (*litter, *late):
        path.write_bytes(b"half" * 1000)
    for path in litter:
        os.utime(path, (0, 0))
    told = {run_id: tell(house, run_id) for run_id in DAYS}

    would = house.asof("gc", "--older-than", "0")
    assert not would["applied"]
    assert would["next"] == "asof gc --apply --older-than 0"
    gone = house.asof("gc", "--older-than", "0", "--apply")
    assert (gone["bytes"], gone["versions"]) == (would["bytes"], would["versions"])
    assert gone["bytes"] > 16_000
    assert {group["where"] for group in gone["groups"]} >= {"symbols", "features/1d/screener", "everywhere"}
    assert not any(path.exists() for path in (*litter, *late))

    assert {run_id: tell(house, run_id) for run_id in DAYS} == told
    for what in ("pit", "features", "ledger"):
        assert house.asof("audit", what)["violations"] == []
    assert house.asof("gc", "--older-than", "0")["versions"] == 0
    house.publish(candidates=SYMBOLS, as_of=DAYS["third"], run_id="after")
    assert house.verdict("after")["decision"] == "granted"
    house.wait(lambda: house.asof("show", "after")["promoted_version"], "the promotion")
    before = told["second"]["version"]
    house.asof("rollback", "--to", str(before), "--reason", "a trial")
    assert house.asof("diff", str(before), "prod")["differing_cells"] == 0


def tell(house: House, run_id: str) -> dict[str, object]:
    """All that the house says of a run: what it computed, what was promoted, and whether it comes out again."""
    shown = house.asof("show", run_id)
    version, lake = shown["promoted_version"], Lakehouse(house.home.root)
    return {
        "show": shown,
        "version": version,
        "reproduced": house.asof("reproduce", run_id)["reproduced"],
        "rows of the run": lake.features.matrix(SYMBOLS[:1], run_id=run_id).to_csv(),
        "rows of the version": lake.features.matrix(SYMBOLS[:1], version=version).to_csv(),
        "ledger": lake.run(run_id).ledger,
    }
