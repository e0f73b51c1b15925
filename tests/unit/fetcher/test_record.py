"""The hybrid record and its steps."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal as D

import pytest

from services.fetcher.domain.record import Described, Limits, merge
from services.fetcher.domain.ticks import decimal_or_none, tick_from_structure

T = datetime(2021, 12, 15, tzinfo=UTC)


def described(**fields):
    return Described("BINANCE:BTCUSDT", fields, None, T, "scanner")


@pytest.mark.parametrize(
    ("minmov", "pricescale", "tick"),
    [(1, 100, "0.01"), (5, 1000, "0.005"), (1, 128, "0.0078125"), (1, 32, "0.03125"), (25, 100, "0.25"), (1, 1, "1")],
)
def test_the_tick_is_minmov_over_pricescale(minmov, pricescale, tick):
    assert tick_from_structure(minmov, pricescale) == D(tick)


@pytest.mark.parametrize(("minmov", "pricescale"), [(None, 100), (1, None), (0, 100), (1, 0), (1, -5), ("x", 100)])
def test_without_a_price_structure_the_tick_is_unknown(minmov, pricescale):
    assert tick_from_structure(minmov, pricescale) is None


@pytest.mark.parametrize("value", [None, "", " ", "0", "0.00000000", 0, -1, "NaN", "Infinity", "abc", True])
def test_what_an_upstream_writes_for_unknown_is_none(value):
    assert decimal_or_none(value) is None


def test_a_step_is_read_exactly():
    assert decimal_or_none("0.10000000") == D("0.1")
    assert decimal_or_none(0.1) == D("0.1")


def test_execution_limits_come_from_the_venue_and_each_field_names_its_source():
    hybrid = merge(
        described(description="Bitcoin", minmov=1, pricescale=100),
        Limits("binance", tick_size=D("0.01"), lot_size=D("0.00001"), active=True),
    )
    assert hybrid.record["tick_size"] == 0.01
    assert hybrid.record["lot_size"] == 0.00001
    assert hybrid.sources["tick_size"] == "binance"
    assert hybrid.sources["description"] == "scanner"
    assert hybrid.disagreements == {}


def test_a_disagreement_is_reported_with_both_statements():
    hybrid = merge(described(minmov=1, pricescale=100), Limits("binance", tick_size=D("0.1")))
    assert hybrid.record["tick_size"] == 0.1
    assert hybrid.disagreements == {"tick_size": "binance says 0.1, scanner says 0.01"}
    assert hybrid.sources["tick_size"] == "binance (scanner: 0.01)"


def test_what_nobody_states_is_absent():
    hybrid = merge(described(description=None), None)
    assert hybrid.record == {"exchange": "BINANCE"}


def test_a_cached_answer_says_how_old_it_is():
    hybrid = merge(described(), Limits("binance", tick_size=D("0.1"), stale_s=90))
    assert hybrid.sources["tick_size"] == "binance, cached 90 s ago"
