"""What is generally known of an exchange: where it stands, when it trades, whose holidays it keeps.

Sources: each exchange's own trading hours page; `calendar` is the ISO 10383 name that exchange_calendars uses. An
upstream's own word for a symbol goes before this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    exchange: str
    country: str | None
    timezone: str
    session: str
    calendar: str | None
    description: str
    is_crypto: bool = False


def _crypto(exchange: str, description: str) -> Exchange:
    return Exchange(exchange, None, "UTC", "24x7", None, description, is_crypto=True)


def _us(exchange: str, description: str) -> Exchange:
    return Exchange(exchange, "US", "America/New_York", "0930-1600", "XNYS", description)


EXCHANGES: dict[str, Exchange] = {
    known.exchange: known
    for known in (
        Exchange("PSE", "PH", "Asia/Manila", "0930-1530", "XPHS", "Philippine Stock Exchange"),
        _us("NASDAQ", "Nasdaq"),
        _us("NYSE", "New York Stock Exchange"),
        _us("AMEX", "NYSE American and NYSE Arca"),
        Exchange("LSE", "GB", "Europe/London", "0800-1630", "XLON", "London Stock Exchange"),
        Exchange("XETR", "DE", "Europe/Berlin", "0900-1730", "XETR", "Xetra"),
        Exchange("TSE", "JP", "Asia/Tokyo", "0900-1130,1230-1530", "XTKS", "Tokyo Stock Exchange"),
        Exchange("HKEX", "HK", "Asia/Hong_Kong", "0930-1200,1300-1600", "XHKG", "Hong Kong Stock Exchange"),
        Exchange("ASX", "AU", "Australia/Sydney", "1000-1600", "XASX", "Australian Securities Exchange"),
        Exchange("SGX", "SG", "Asia/Singapore", "0900-1200,1300-1700", "XSES", "Singapore Exchange"),
        Exchange("TSX", "CA", "America/Toronto", "0930-1600", "XTSE", "Toronto Stock Exchange"),
        _crypto("BINANCE", "Binance"),
        _crypto("OKX", "OKX"),
        _crypto("BYBIT", "Bybit"),
        _crypto("COINBASE", "Coinbase Exchange"),
        _crypto("KRAKEN", "Kraken"),
    )
}
