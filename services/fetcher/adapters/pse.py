"""The Philippine Stock Exchange: tick and lot follow the last price, by the exchange's published board lot table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from decimal import Decimal

from services.fetcher.domain.faults import UpstreamError
from services.fetcher.domain.record import Described, Limits

# Price from, tick, lot. Source: PSE Board Lot and Price Fluctuation table, in pesos and shares.
BANDS: tuple[tuple[Decimal, Decimal, Decimal], ...] = tuple(
    (Decimal(price), Decimal(tick), Decimal(lot))
    for price, tick, lot in (
        ("0.0001", "0.0001", "1000000"),
        ("0.01", "0.001", "100000"),
        ("0.05", "0.001", "10000"),
        ("0.25", "0.005", "10000"),
        ("0.50", "0.01", "1000"),
        ("5", "0.01", "100"),
        ("10", "0.02", "100"),
        ("20", "0.05", "100"),
        ("50", "0.05", "10"),
        ("100", "0.10", "10"),
        ("200", "0.20", "10"),
        ("500", "0.50", "10"),
        ("1000", "1", "5"),
        ("2000", "2", "5"),
        ("5000", "5", "5"),
    )
)
_FROM = [band[0] for band in BANDS]


def band_of(price: Decimal) -> tuple[Decimal, Decimal] | None:
    """Tick and lot at a price; None below the first band."""
    position = bisect_right(_FROM, price)
    if position == 0:
        return None
    _, tick, lot = BANDS[position - 1]
    return tick, lot


class PseRules:
    """A connector without a network: what it needs is the last price that the primary source stated."""

    name = "pse"
    exchanges = ("PSE",)

    async def limits(self, described: Mapping[str, Described]) -> Mapping[str, Limits | UpstreamError]:
        """Without a last price, tick and lot are unknown; the lot of a stock trades one share a unit."""
        stated: dict[str, Limits | UpstreamError] = {}
        for symbol, known in described.items():
            band = band_of(known.last_price) if known.last_price is not None else None
            if band is not None:
                stated[symbol] = Limits(source=self.name, tick_size=band[0], lot_size=band[1])
        return stated
