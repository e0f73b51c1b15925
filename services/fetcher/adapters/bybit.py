"""Bybit: spot, linear and inverse perpetuals. API: bybit-exchange.github.io/docs/v5, instruments-info and kline."""

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
from services.fetcher.domain.ticks import decimal_or_none
from services.fetcher.ports import BarsSent, BarsWanted

SPOT, LINEAR, INVERSE = "spot", "linear", "inverse"
INTERVALS = {
    "1m": "1", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120", "4h": "240", "1d": "D", "1w": "W",
}  # fmt: skip
_PERPETUALS = frozenset({"LinearPerpetual", "InversePerpetual"})
_PAGE = 1000
_BAN_S = 600.0
_TOO_MANY = frozenset({"10006", "10018"})
_NOT_WELL = frozenset({"10000", "10016"})
_BAD_PARAMETER = "10001"


def connect(wiring: Wiring, url: str) -> Venue:
    upstream = wiring.upstream("bybit", url, forbidden_pause_s=_BAN_S)
    markets = (SPOT, LINEAR, INVERSE)
    return Venue(
        name="bybit",
        exchanges=("BYBIT",),
        lists={
            market: wiring.instruments(f"bybit-{market}", upstream, partial(load_instruments, upstream, market))
            for market in markets
        },
        markets_of=lambda ticker: (LINEAR, INVERSE) if perpetual(ticker) else (SPOT,),
        series=partial(_series, upstream, wiring.overlap),
    )


async def load_instruments(upstream: HttpUpstream, market: str) -> tuple[Instrument, ...]:
    """Every page of one category; a cursor that was seen before ends it, and an instrument sent twice counts once."""
    found: dict[str, Instrument] = {}
    seen: set[str] = set()
    cursor = ""
    for _ in range(MAX_PAGES):
        params: dict[str, str | int] = {"category": market, "limit": _PAGE}
        answer = await upstream.json(
            "GET", "/v5/market/instruments-info", params={**params, "cursor": cursor} if cursor else params
        )
        result = _result(answer, None, upstream.host)
        found |= {one.native: one for one in read_instruments(result.get("list"), market, upstream.host)}
        cursor = str(result.get("nextPageCursor") or "")
        if not cursor or cursor in seen:
            break
        seen.add(cursor)
    return tuple(found.values())


def read_instruments(data: Any, market: str, host: str) -> tuple[Instrument, ...]:
    return tuple(
        _instrument(item, market)
        for item in objects(data, "instruments", host)
        if isinstance(item.get("symbol"), str) and (market == SPOT or item.get("contractType") in _PERPETUALS)
    )


def _instrument(item: Mapping[str, Any], market: str) -> Instrument:
    prices, lots = item.get("priceFilter") or {}, item.get("lotSizeFilter") or {}
    # A contract is named by symbol; the scanner writes a USDC perpetual `BTCPERP` as BTCUSDC.P.
    pair = f"{item.get('baseCoin', '')}{item.get('quoteCoin', '')}"
    return Instrument(
        ticker=item["symbol"] if market == SPOT else pair + PERPETUAL,
        native=item["symbol"],
        market=market,
        limits=Limits(
            source="bybit",
            tick_size=decimal_or_none(prices.get("tickSize")),
            lot_size=decimal_or_none(lots.get("basePrecision" if market == SPOT else "qtyStep")),
            min_notional=decimal_or_none(lots.get("minOrderAmt" if market == SPOT else "minNotionalValue")),
            base=item.get("baseCoin") or None,
            quote=item.get("quoteCoin") or None,
            active=item.get("status") == "Trading",
        ),
    )


async def _series(upstream: HttpUpstream, overlap: int, instrument: Instrument, want: BarsWanted) -> BarsSent:
    """Pages from the newest back to the start of the window; one that does not go back further ends it."""
    interval = interval_name(INTERVALS, want, upstream.host)
    start, end = window_ms(want, overlap)
    rows: list[list[float]] = []
    for _ in range(MAX_PAGES):
        answer = await upstream.json(
            "GET",
            "/v5/market/kline",
            params={
                "category": instrument.market,
                "symbol": instrument.native,
                "interval": interval,
                "start": start,
                "end": end,
                "limit": _PAGE,
            },
        )
        items = _result(answer, want.symbol, upstream.host).get("list")
        if not isinstance(items, list):
            raise Garbled("klines are no list", symbol=want.symbol, host=upstream.host)
        page = [kline(item, upstream.host) for item in items]
        rows += page
        oldest = min((int(row[0] * 1000) for row in page), default=end)
        if len(page) < _PAGE or oldest >= end or oldest <= start:
            break
        end = oldest - 1
    if not rows:
        raise NoBars("the venue has no bar in the window", symbol=want.symbol, host=upstream.host)
    return BarsSent(make_rows(rows), upstream.host, answer.observed_at, "UTC", "24x7")


def _result(answer: Answer, symbol: str | None, host: str) -> dict[str, Any]:
    body = answer.data
    if not isinstance(body, dict) or "retCode" not in body:
        raise Garbled("the answer has no retCode", symbol=symbol, host=host, status=answer.status)
    code, words = str(body["retCode"]), printable(f"{body['retCode']}: {body.get('retMsg', '')}")
    where: dict[str, Any] = {"symbol": symbol, "host": host, "status": answer.status}
    if code in _TOO_MANY:
        raise RateLimited(words, **where)
    if code in _NOT_WELL:
        raise ServerFault(words, **where)
    if code == _BAD_PARAMETER and "symbol" in words.lower():
        raise UnknownSymbol(words, **where)
    if code != "0":
        raise BadRequest(words, **where)
    result = body.get("result")
    if not isinstance(result, dict):
        raise Garbled("the answer has no result", **where)
    return result
