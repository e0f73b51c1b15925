"""The catalog beside what upstreams say: what is compared, what counts as the same, and what is structural."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asof.comparing import chosen, compare
from services.catalog import MetadataCatalog
from shared.errors import NotFoundError

NOW = datetime(2021, 12, 15, tzinfo=UTC)
STORED = {"symbol": "PSE:JFC", "exchange": "PSE", "currency": "PHP", "sector": "Food", "tick_size": 0.2}


@pytest.fixture
def catalog(tmp_path: Path) -> MetadataCatalog:
    catalog = MetadataCatalog.open(tmp_path / "symbols", clock=lambda: NOW)
    catalog.upsert_symbols([STORED])
    return catalog


def said(**record: Any) -> dict[str, Any]:
    return {"records": [{"symbol": "PSE:JFC", "record": record, "sources": {"sector": "scanner"}}], "failures": {}}


def test_values_that_the_catalog_would_take_for_the_same_match(catalog: MetadataCatalog):
    found = compare(catalog, ["PSE:JFC"], [said(currency="PHP", tick_size=0.2 * (1 + 1e-12))])
    assert found.as_dict()["matching_percent"] == 100.0
    assert found.differences == []


def test_what_upstream_does_not_state_is_not_compared_and_what_the_catalog_lacks_differs(catalog: MetadataCatalog):
    found = compare(catalog, ["PSE:JFC"], [said(currency=None, country="Philippines")])
    (difference,) = found.differences
    assert (difference["field"], difference["catalog"], difference["structural"]) == ("country", None, False)
    assert dict(found.compared) == {"country": 1}


@pytest.mark.parametrize(
    ("field", "value", "structural"), [("tick_size", 0.1, 1), ("currency", "USD", 1), ("sector", "Banks", 0)]
)
def test_a_field_that_says_how_it_trades_is_structural_and_a_describing_one_is_not(
    catalog: MetadataCatalog, field: str, value: object, structural: int
):
    assert compare(catalog, ["PSE:JFC"], [said(**{field: value})]).structural == structural


def test_a_symbol_that_upstream_no_longer_knows_is_structural_and_another_failure_is_not(catalog: MetadataCatalog):
    failure = {"code": "unknown_symbol", "message": "nobody lists it"}
    assert compare(catalog, ["PSE:JFC"], [{"records": [], "failures": {"PSE:JFC": failure}}]).structural == 1
    late = {"code": "timeout", "message": "silent"}
    found = compare(catalog, ["PSE:JFC"], [{"records": [], "failures": {"PSE:JFC": late}}])
    assert (found.structural, list(found.failures), found.as_dict()["matching_percent"]) == (0, ["PSE:JFC"], None)


def test_one_difference_among_many_is_never_a_hundred_percent(catalog: MetadataCatalog):
    answers = [said(currency="PHP") for _ in range(100_000)] + [said(currency="USD")]
    assert compare(catalog, ["PSE:JFC"], answers).as_dict()["matching_percent"] == 99.99


def test_a_sample_is_of_active_symbols_and_the_same_for_the_same_seed(catalog: MetadataCatalog):
    yesterday = NOW - timedelta(days=1)
    catalog.upsert_symbols([{"symbol": f"PSE:S{number}"} for number in range(20)], effective_at=yesterday)
    catalog.retire_symbols(["PSE:S3"])
    assert chosen(catalog, 5, 1) == chosen(catalog, 5, 1) != chosen(catalog, 5, 2)
    assert len(chosen(catalog, None, 0)) == 20
    assert "PSE:S3" not in chosen(catalog, 100, 0)


def test_a_catalog_without_an_active_symbol_says_what_to_do(tmp_path: Path):
    with pytest.raises(NotFoundError, match="asof run"):
        chosen(MetadataCatalog.open(tmp_path / "none"), None, 0)
