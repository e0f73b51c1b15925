"""A made-up universe of any size, the same for the same seed, for benchmarks and fault campaigns.

Every symbol has prices and limits of its own, so that a value in the wrong row shows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from asof.upstream.listings import instruments_of
from asof.upstream.source import Bar, Instrument, Payload, Series, Source

_DAY_S = 86_400
_TICKS = ("0.1", "0.01", "0.001", "0.0001")
_LOTS = ("0.001", "0.01", "0.1", "1")


def made_source(*, until: datetime, stocks: int = 0, pairs: int = 0, days: int = 60, seed: int = 0) -> Source:
    """`stocks` symbols `MADE:S0000`…, which only the scanner and its websocket serve, and `pairs` like `C0000USDT`.

    Each is spot and perpetual on Binance, OKX and Bybit. All have `days` daily bars, the last on the day of `until`.
    """
    chance = random.Random(seed)  # noqa: S311  (made-up prices are no secret)
    shares = [_stock(number) for number in range(stocks)]
    payloads = _payloads(pairs) if pairs else {}
    coins = list(instruments_of(payloads))
    first = int(until.timestamp()) // _DAY_S * _DAY_S - (days - 1) * _DAY_S
    series = {(item.symbol, "1d"): _walk(chance, first, days) for item in (*shares, *coins)}
    return Source.of([*shares, *coins], series, payloads)


def _stock(number: int) -> Instrument:
    columns = {
        "name": f"S{number:04}",
        "description": f"Made-up company number {number}",
        "type": "stock",
        "typespecs": ["common"],
        "exchange": "MADE",
        "country": "Nowhere",
        "sector": f"Sector {number % 11}",
        "industry": f"Industry {number % 37}",
        "currency": "USD",
        "pricescale": 100,
        "minmov": number % 4 + 1,
        "minmove2": 0,
        "fractional": False,
        "timezone": "Etc/UTC",
        "session": "24x7",
    }
    return Instrument(f"MADE:S{number:04}", "america", columns, resolved={"timezone": "Etc/UTC", "session": "24x7"})


def _walk(chance: random.Random, first: int, days: int) -> Series:
    def bars() -> Iterator[Bar]:
        close = chance.randint(1_000, 900_000)
        for day in range(days):
            before, close = close, max(100, close + chance.randint(-close // 40, close // 40))
            high = max(before, close) + chance.randint(0, 50)
            low = max(1, min(before, close) - chance.randint(0, 50))
            prices = ",".join(f"{cents / 100:.2f}" for cents in (before, high, low, close))
            yield Bar(first + day * _DAY_S, f"{prices},{chance.randint(1, 10**7)}")

    return Series.of(bars(), span_s=_DAY_S)


def _payloads(pairs: int) -> dict[str, tuple[Payload, ...]]:
    numbers = range(pairs)
    return {
        "binance/spot": _one({"timezone": "UTC", "symbols": [_binance(number, spot=True) for number in numbers]}),
        "binance/usdm": _one({"timezone": "UTC", "symbols": [_binance(number, spot=False) for number in numbers]}),
        "okx/SPOT": _one({"code": "0", "msg": "", "data": [_okx(number, spot=True) for number in numbers]}),
        "okx/SWAP": _one({"code": "0", "msg": "", "data": [_okx(number, spot=False) for number in numbers]}),
        "okx/FUTURES": _one({"code": "0", "msg": "", "data": []}),
        "bybit/inverse": _one({"result": {"list": []}}),
        "bybit/spot": _one({"result": {"list": [_bybit(number, spot=True) for number in numbers]}}),
        "bybit/linear": _one({"result": {"list": [_bybit(number, spot=False) for number in numbers]}}),
    }


def _one(body: dict[str, Any]) -> tuple[Payload, ...]:
    return (Payload(body),)


def _tick(number: int) -> str:
    return _TICKS[number % len(_TICKS)]


def _lot(number: int) -> str:
    return _LOTS[number // len(_TICKS) % len(_LOTS)]


def _binance(number: int, *, spot: bool) -> dict[str, Any]:
    notional = (
        {"minNotional": str(5 + number % 7), "applyToMarket": True} if spot else {"notional": str(5 + number % 7)}
    )
    kind = {} if spot else {"pair": f"C{number:04}USDT", "contractType": "PERPETUAL", "quantityPrecision": 3}
    return {
        "symbol": f"C{number:04}USDT",
        "status": "TRADING",
        "baseAsset": f"C{number:04}",
        "quoteAsset": "USDT",
        **kind,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": _tick(number), "maxPrice": "1000000", "tickSize": _tick(number)},
            {"filterType": "LOT_SIZE", "minQty": _lot(number), "maxQty": "9000", "stepSize": _lot(number)},
            {"filterType": "MIN_NOTIONAL", **notional},
        ],
    }


def _okx(number: int, *, spot: bool) -> dict[str, Any]:
    name = f"C{number:04}"
    contract = (
        {"ctVal": "", "ctMult": "", "settleCcy": ""} if spot else {"ctVal": "0.01", "ctMult": "1", "settleCcy": "USDT"}
    )
    return {
        "instType": "SPOT" if spot else "SWAP",
        "instId": f"{name}-USDT" if spot else f"{name}-USDT-SWAP",
        "baseCcy": name if spot else "",
        "quoteCcy": "USDT" if spot else "",
        "uly": "" if spot else f"{name}-USDT",
        **contract,
        "ctType": "" if spot else "linear",
        "tickSz": _tick(number),
        "lotSz": _lot(number),
        "minSz": _lot(number),
        "listTime": "1548133413000",
        "state": "live",
    }


def _bybit(number: int, *, spot: bool) -> dict[str, Any]:
    least = {"minOrderQty": _lot(number), "maxOrderQty": "9000"}
    sizes = (
        {"basePrecision": _lot(number), "minOrderAmt": "5"}
        if spot
        else {"qtyStep": _lot(number), "minNotionalValue": "5"}
    )
    return {
        "symbol": f"C{number:04}USDT",
        **({} if spot else {"contractType": "LinearPerpetual", "settleCoin": "USDT"}),
        "status": "Trading",
        "baseCoin": f"C{number:04}",
        "quoteCoin": "USDT",
        "priceFilter": {"tickSize": _tick(number)},
        "lotSizeFilter": {**least, **sizes},
    }
