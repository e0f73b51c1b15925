"""Scanner rows derived from the exchanges' own instrument lists: what follows from a list, null for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from asof.upstream import bybit, okx
from asof.upstream.source import Instrument, Payload

MARKET = "crypto"


class _Listed(NamedTuple):
    symbol: str
    base: str
    quote: str
    tick: str
    kind: Literal["spot", "swap", "futures"]


def instruments_of(payloads: Mapping[str, Sequence[Payload]]) -> Iterator[Instrument]:
    """Each symbol of each list, in the universe from the first list with it until the first later one without it."""
    for name, versions in payloads.items():
        ordered = sorted(versions, key=_since)
        rows = [{item.symbol: item for item in _READERS[name](version.body)} for version in ordered]
        for symbol in dict.fromkeys(symbol for listed in rows for symbol in listed):
            first = next(index for index, listed in enumerate(rows) if symbol in listed)
            gone = next((index for index in range(first, len(rows)) if symbol not in rows[index]), None)
            yield _instrument(
                rows[first][symbol],
                listed=ordered[first].since,
                delisted=ordered[gone].since if gone is not None else None,
            )


def _since(payload: Payload) -> float:
    return payload.since if payload.since is not None else float("-inf")


def _instrument(item: _Listed, *, listed: float | None, delisted: float | None) -> Instrument:
    exchange, _, ticker = item.symbol.partition(":")
    kinds = ["crypto", "perpetual"] if item.kind == "swap" else ["crypto"]
    columns: dict[str, Any] = {
        "name": ticker,
        "type": item.kind,
        "typespecs": kinds,
        "exchange": exchange,
        "currency": item.quote,
        "base_currency": item.base,
        **_price_scale(item.tick),
    }
    return Instrument(
        item.symbol, MARKET, columns, listed, delisted, resolved={"timezone": "Etc/UTC", "session": "24x7"}
    )


def _price_scale(tick: str) -> dict[str, Any]:
    """The scanner writes a tick of 0.05 as 5 / 100: `minmov` / `pricescale`. Nothing for an empty or zero tick."""
    if not tick or not Decimal(tick):
        return {}
    step = Decimal(tick).normalize()
    scale = 10 ** max(0, -int(step.as_tuple().exponent))
    return {"pricescale": scale, "minmov": int(step * scale), "minmove2": 0, "fractional": False}


def _binance(kind: Literal["spot", "swap"]) -> Any:
    def read(body: Mapping[str, Any]) -> Iterator[_Listed]:
        for item in body["symbols"]:
            ticks = [rule["tickSize"] for rule in item["filters"] if rule["filterType"] == "PRICE_FILTER"]
            tick = ticks[0] if ticks else ""
            dated = kind == "swap" and "_" in item["symbol"]  # a delivery contract: BTCUSDT_210924
            symbol = f"BINANCE:{item['symbol']}{'.P' if kind == 'swap' and not dated else ''}"
            yield _Listed(symbol, item["baseAsset"], item["quoteAsset"], tick, "futures" if dated else kind)

    return read


def _okx(body: Mapping[str, Any]) -> Iterator[_Listed]:
    for item in body["data"]:
        base, quote = item["instId"].split("-")[:2]
        yield _Listed(okx.scanner_symbol(item["instId"]), base, quote, item["tickSz"], item["instType"].lower())


def _bybit(category: str) -> Any:
    def read(body: Mapping[str, Any]) -> Iterator[_Listed]:
        for item in body["result"]["list"]:
            symbol = bybit.scanner_symbol(category, item["symbol"])
            tick = item["priceFilter"]["tickSize"]
            kind: Any = "spot" if category == "spot" else "swap" if symbol.endswith(".P") else "futures"
            yield _Listed(symbol, item["baseCoin"], item["quoteCoin"], tick, kind)

    return read


_READERS: dict[str, Any] = {
    "binance/spot": _binance("spot"),
    "binance/usdm": _binance("swap"),
    "okx/SPOT": _okx,
    "okx/SWAP": _okx,
    "okx/FUTURES": _okx,
    "bybit/spot": _bybit("spot"),
    "bybit/linear": _bybit("linear"),
    "bybit/inverse": _bybit("inverse"),
}
