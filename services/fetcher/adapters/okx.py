"""OKX: spot and perpetual swaps. API: okx.com/docs-v5, public instruments and market history-candles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from services.fetcher.adapters.http import Answer, HttpUpstream
from services.fetcher.adapters.instruments import Instrument
from services.fetcher.adapters.text import printable
from services.fetcher.adapters.venue import (
    MAX_PAGES,
    PERPETUAL,
    Venue,
    Wiring,
    interval_name,
    kline,
    objects,
    perpetual,
    window_ms,
)
from services.fetcher.domain.faults import BadRequest, Garbled, NoBars, RateLimited, ServerFault, UnknownSymbol
from services.fetcher.domain.record import Limits
from services.fetcher.domain.series import make_rows
from services.fetcher.domain.sessions import interval_seconds
from services.fetcher.domain.ticks import decimal_or_none
from services.fetcher.ports import BarsSent, BarsWanted

SPOT, SWAP = "SPOT", "SWAP"
# `1D` follows Hong Kong's day; `1Dutc` is the UTC day.
INTERVALS = {
    "1m": "1m", "5m": "5m", "15m": "15m", "30m": "30m", "1h": "1H", "2h": "2H", "4h": "4H",
    "1d": "1Dutc", "1w": "1Wutc",
}  # fmt: skip
_PAGE = 300
_TOO_MANY = frozenset({"50011", "50061"})
_NOT_WELL = frozenset({"50001", "50004", "50013", "50026"})
_NO_INSTRUMENT = "51001"


def connect(wiring: Wiring, url: str) -> Venue:
    upstream = wiring.upstream("okx", url)

    async def load(market: str) -> tuple[Instrument, ...]:
        answer = await upstream.json("GET", "/api/v5/public/instruments", params={"instType": market})
        return read_instruments(_data(answer, None, upstream.host), market, upstream.host)

    return Venue(
        name="okx",
        exchanges=("OKX",),
        lists={
            market: wiring.instruments(f"okx-{market.lower()}", upstream, partial(load, market))
            for market in (SPOT, SWAP)
        },
        markets_of=lambda ticker: (SWAP,) if perpetual(ticker) else (SPOT,),
        series=partial(_series, upstream, wiring.overlap),
    )


def read_instruments(data: Any, market: str, host: str) -> tuple[Instrument, ...]:
    return tuple(
        _instrument(item, market)
        for item in objects(data, "instruments", host)
        if isinstance(item.get("instId"), str) and item.get("instType", market) == market
    )


def _instrument(item: Mapping[str, Any], market: str) -> Instrument:
    # BTC-USDT is BTCUSDT at the scanner, BTC-USDT-SWAP is BTCUSDT.P.
    base, quote = [*item["instId"].split("-"), "", ""][:2]
    value, multiplier = decimal_or_none(item.get("ctVal")), decimal_or_none(item.get("ctMult"))
    return Instrument(
        ticker=base + quote + (PERPETUAL if market == SWAP else ""),
        native=item["instId"],
        market=market,
        limits=Limits(
            source="okx",
            tick_size=decimal_or_none(item.get("tickSz")),
            lot_size=decimal_or_none(item.get("lotSz")),
            contract_size=value * multiplier if value is not None and multiplier is not None else None,
            base=base or None,
            quote=quote or None,
            active=item.get("state") == "live",
        ),
    )


async def _series(upstream: HttpUpstream, overlap: int, instrument: Instrument, want: BarsWanted) -> BarsSent:
    """Pages from the newest back to the start of the window; a cursor that repeats ends it."""
    bar = interval_name(INTERVALS, want, upstream.host)
    start, until = window_ms(want, overlap)
    after = until + interval_seconds(want.interval) * 1000
    rows: list[list[float]] = []
    for _ in range(MAX_PAGES):
        answer = await upstream.json(
            "GET",
            "/api/v5/market/history-candles",
            params={"instId": instrument.native, "bar": bar, "after": after, "limit": _PAGE},
            accept=(200, 400),
        )
        items = _data(answer, want.symbol, upstream.host)
        if not isinstance(items, list):
            raise Garbled("candles are no list", symbol=want.symbol, host=upstream.host)
        # `confirm` is the last value: 0 while the candle forms. A swap's volume in coins stands one place further.
        volume = 5 if instrument.market == SPOT else 6
        page = [kline(item, upstream.host, volume=volume) for item in items if _confirmed(item)]
        rows += [row for row in page if row[0] * 1000 >= start]
        oldest = min((int(item[0]) for item in items), default=after)
        if len(items) < _PAGE or oldest >= after or oldest <= start:
            break
        after = oldest
    if not rows:
        raise NoBars("the venue has no bar in the window", symbol=want.symbol, host=upstream.host)
    return BarsSent(make_rows(rows), upstream.host, answer.observed_at, "UTC", "24x7")


def _confirmed(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and item[-1] in ("1", 1)


def _data(answer: Answer, symbol: str | None, host: str) -> Any:
    body = answer.data
    if not isinstance(body, dict) or "code" not in body:
        raise Garbled("the answer has no code", symbol=symbol, host=host, status=answer.status)
    code, words = str(body["code"]), printable(f"{body['code']}: {body.get('msg', '')}")
    where: dict[str, Any] = {"symbol": symbol, "host": host, "status": answer.status}
    if code in _TOO_MANY:
        raise RateLimited(words, **where)
    if code in _NOT_WELL:
        raise ServerFault(words, **where)
    if code == _NO_INSTRUMENT:
        raise UnknownSymbol(words, **where)
    if code != "0":
        raise BadRequest(words, **where)
    return body.get("data")
