"""Every exchange connector, in one place: a new venue is one file and one line here."""

from __future__ import annotations

from dataclasses import dataclass

from services.fetcher.adapters import binance, bybit, okx
from services.fetcher.adapters.venue import Venue, Wiring


@dataclass(frozen=True, slots=True)
class VenueUrls:
    """Where each exchange answers; Binance's futures have a host of their own."""

    binance: str
    binance_futures: str
    okx: str
    bybit: str


def connect_venues(wiring: Wiring, urls: VenueUrls) -> tuple[Venue, ...]:
    return (
        binance.connect(wiring, urls.binance, urls.binance_futures),
        okx.connect(wiring, urls.okx),
        bybit.connect(wiring, urls.bybit),
    )
