"""A venue's list of instruments: asked for once by all, shared between replicas, served stale where need be."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.fetcher.adapters.instruments import Instrument, InstrumentList
from services.fetcher.domain.faults import RegionBlocked, TimedOut
from services.fetcher.domain.record import Limits

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Venue:
    """A venue that counts how often it is asked; `fault` is what it answers with instead of its list."""

    def __init__(self):
        self.asked = 0
        self.now = NOW
        self.fault = None

    async def load(self):
        self.asked += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        limits = Limits("venue", tick_size=Decimal("0.01"), min_notional=Decimal(self.asked))
        return (Instrument("BTCUSDT", "BTC-USDT", "spot", limits),)

    def replica(self, folder):
        return InstrumentList(folder / "list.json", self.load, lambda: self.now, fresh_s=3600)


async def order(known):
    return known.instruments["BTCUSDT"].limits.min_notional, known.stale_s


async def test_all_who_ask_at_once_share_one_request(tmp_path):
    venue = Venue()
    one = venue.replica(tmp_path)
    await asyncio.gather(*(one.get() for _ in range(10)))
    assert venue.asked == 1


async def test_a_replica_uses_what_another_has_asked_for_at_its_start_and_an_hour_later(tmp_path):
    venue = Venue()
    one, other = venue.replica(tmp_path), venue.replica(tmp_path)
    assert await order(await one.get()) == await order(await other.get()) == (1, None)
    venue.now += timedelta(hours=1)
    assert await order(await other.get()) == await order(await one.get()) == (2, None)
    assert venue.asked == 2


async def test_a_list_outlives_its_venue_and_says_how_old_it_is(tmp_path):
    venue = Venue()
    await venue.replica(tmp_path).get()
    venue.now += timedelta(hours=5)
    venue.fault = TimedOut("silent")
    assert await order(await venue.replica(tmp_path).get()) == (1, 5 * 3600)


async def test_a_final_no_is_not_hidden_behind_an_old_list(tmp_path):
    venue = Venue()
    await venue.replica(tmp_path).get()
    venue.now += timedelta(hours=5)
    venue.fault = RegionBlocked("451")
    with pytest.raises(RegionBlocked):
        await venue.replica(tmp_path).get()


async def test_a_venue_that_never_answered_is_its_own_fault(tmp_path):
    venue = Venue()
    venue.fault = TimedOut("silent")
    with pytest.raises(TimedOut):
        await venue.replica(tmp_path).get()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"loaded_at": "2026-01-02T00:00:00Z", "instruments": [{"x": 1}]}'])
async def test_a_damaged_file_is_asked_for_anew(tmp_path, damage):
    venue = Venue()
    (tmp_path / "list.json").write_bytes(damage)
    assert await order(await venue.replica(tmp_path).get()) == (1, None)
