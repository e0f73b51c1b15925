"""The Philippine Stock Exchange's price bands."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal as D

import pytest

from services.fetcher.adapters.pse import BANDS, PseRules, band_of
from services.fetcher.domain.record import Described

T = datetime(2021, 12, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("price", "tick", "lot"),
    [
        ("0.0001", "0.0001", "1000000"),
        ("0.0099", "0.0001", "1000000"),
        ("0.01", "0.001", "100000"),
        ("0.2499", "0.001", "10000"),
        ("0.25", "0.005", "10000"),
        ("4.99", "0.01", "1000"),
        ("5", "0.01", "100"),
        ("19.98", "0.02", "100"),
        ("199.9", "0.10", "10"),
        ("200", "0.20", "10"),
        ("999.5", "0.50", "10"),
        ("1000", "1", "5"),
        ("12345", "5", "5"),
    ],
)
def test_a_price_on_the_edge_belongs_to_the_higher_band(price, tick, lot):
    assert band_of(D(price)) == (D(tick), D(lot))


def test_below_the_first_band_nothing_is_known():
    assert band_of(D("0.00009")) is None


def test_bands_ascend_and_every_edge_is_a_multiple_of_its_tick():
    prices = [price for price, _, _ in BANDS]
    assert prices == sorted(set(prices))
    assert all(price % tick == 0 for price, tick, _ in BANDS)


async def test_without_a_last_price_the_limits_are_unknown():
    described = {
        "PSE:JFC": Described("PSE:JFC", {}, D("215.4"), T, "scanner"),
        "PSE:XXX": Described("PSE:XXX", {}, None, T, "scanner"),
    }
    stated = await PseRules().limits(described)
    assert list(stated) == ["PSE:JFC"]
    assert (stated["PSE:JFC"].tick_size, stated["PSE:JFC"].lot_size) == (D("0.20"), D(10))
    assert stated["PSE:JFC"].min_notional is None
