"""Looking after a house at work: the catalog beside live upstream answers, and the way back from damage."""

from __future__ import annotations

import pytest

from services.catalog import MetadataCatalog
from tests.e2e.conftest import AS_OF, House

pytestmark = pytest.mark.timeout(180)

SYMBOLS = ["PSE:JFC", "PSE:BDO", "PSE:SM"]


@pytest.fixture
def running(house: House) -> House:
    # The fetcher answers by a file in the house's cache, which other tests share by a link that leads out of it.
    house.home.cache.unlink()
    house.services()
    house.publish(candidates=SYMBOLS, as_of=AS_OF, run_id="first")
    assert house.verdict("first")["decision"] == "granted"
    return house


def test_the_catalog_is_compared_with_what_the_upstream_says_now_field_by_field(running: House):
    found = running.asof("audit", "metadata")
    assert (found["asked"], found["answered"], found["matching_percent"]) == (3, 3, 100.0)
    assert (found["differences"], found["failures"], found["next"]) == ([], {}, None)
    assert {"exchange", "currency", "tick_size", "lot_size", "sector"} <= found["fields"].keys()
    assert running.asof("audit", "metadata", "--sample", "2", "--seed", "7")["answered"] == 2

    catalog = MetadataCatalog.open(running.home.symbols_table)
    catalog.upsert_symbols([{"symbol": "PSE:JFC", "sector": "Elsewhere"}])
    found = running.asof("audit", "metadata")
    (difference,) = found["differences"]
    assert (difference["symbol"], difference["field"], difference["catalog"]) == ("PSE:JFC", "sector", "Elsewhere")
    assert (difference["structural"], found["fields"]["sector"]["matching_percent"]) == (False, 66.67)
    assert found["next"] == "asof refresh"

    catalog.upsert_symbols([{"symbol": "PSE:BDO", "tick_size": 0.5}, {"symbol": "PSE:NOBODY", "exchange": "PSE"}])
    version = catalog.version
    found = running.asof("audit", "metadata", code=5)
    structural = {(one["symbol"], one["field"]) for one in found["differences"] if one["structural"]}
    assert structural == {("PSE:BDO", "tick_size"), ("PSE:NOBODY", "active")}
    assert found["answered"] == 3
    assert catalog.version == version, "an audit changed what it measures"


def test_without_an_upstream_the_audit_says_so_and_ends_with_code_4(running: House):
    running.kill("upstream")
    assert running.asof("audit", "metadata", code=4)["outcome"] == "failed"


def test_after_a_repair_the_services_that_run_write_again(running: House):
    root = running.home.symbols_table
    running.asof("retire", SYMBOLS[0])
    newest = sorted((root / "segments").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    found = running.asof("audit", "pit", code=5)
    assert newest.name in found["violations"][0]
    assert found["repairable"][0]["next"] == "asof audit pit --repair"
    (did,) = running.asof("audit", "pit", "--repair")["repaired"]
    assert did["gives_up"] == found["repairable"][0]["gives_up"]
    assert running.asof("get", SYMBOLS[0])["active"]
    running.publish(candidates=SYMBOLS, as_of=AS_OF, run_id="second")
    assert running.verdict("second")["decision"] == "granted"
    assert running.asof("audit", "pit")["violations"] == []
    assert not running.asof("retire", SYMBOLS[0])["references"]["refused"]
    assert not running.asof("get", SYMBOLS[0])["active"]
