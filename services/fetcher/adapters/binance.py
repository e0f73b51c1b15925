"""Binance: spot and USD-M futures. API: developers.binance.com, spot REST and USDS-margined futures REST."""

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

SPOT, USDM = "spot", "usdm"
INTERVALS = {name: name for name in ("1m", "5m", "15m", "30m", "1h", "2h", "4h", "1d", "1w")}
_PAGE = 1000
_USED = "X-MBX-USED-WEIGHT-1M"
_INVALID_SYMBOL, _TOO_MANY = "-1121", "-1003"
_NOT_WELL = frozenset({"-1000", "-1001", "-1006", "-1007", "-1008", "-1016"})


def connect(wiring: Wiring, spot_url: str, usdm_url: str) -> Venue:
    spot = wiring.upstream("binance", spot_url, used_header=_USED)
    usdm = wiring.upstream("binance-usdm", usdm_url, used_header=_USED)

    async def load_spot() -> tuple[Instrument, ...]:
        return read_spot((await spot.json("GET", "/api/v3/exchangeInfo", weight=20)).data, spot.host)

    async def load_usdm() -> tuple[Instrument, ...]:
        return read_usdm((await usdm.json("GET", "/fapi/v1/exchangeInfo", weight=1)).data, usdm.host)

    return Venue(
        name="binance",
        exchanges=("BINANCE",),
        lists={
            SPOT: wiring.instruments("binance-spot", spot, load_spot),
            USDM: wiring.instruments("binance-usdm", usdm, load_usdm),
        },
        markets_of=lambda ticker: (USDM,) if perpetual(ticker) else (SPOT,),
        series=partial(_series, {SPOT: spot, USDM: usdm}, wiring.overlap),
    )


def read_spot(payload: Any, host: str) -> tuple[Instrument, ...]:
    return tuple(
        _instrument(item, item["symbol"], SPOT)
        for item in _symbols(payload, host)
        if isinstance(item.get("symbol"), str)
    )


def read_usdm(payload: Any, host: str) -> tuple[Instrument, ...]:
    """Perpetuals alone: a dated contract has another name at the scanner, and a name that is guessed is no match."""
    return tuple(
        _instrument(item, item["symbol"] + PERPETUAL, USDM)
        for item in _symbols(payload, host)
        if item.get("contractType") == "PERPETUAL" and isinstance(item.get("symbol"), str)
    )


def _symbols(payload: Any, host: str) -> list[dict[str, Any]]:
    return objects(payload.get("symbols") if isinstance(payload, dict) else None, "exchangeInfo.symbols", host)


def _instrument(item: Mapping[str, Any], ticker: str, market: str) -> Instrument:
    filters = {one.get("filterType"): one for one in item.get("filters") or () if isinstance(one, dict)}
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    return Instrument(
        ticker=ticker,
        native=item["symbol"],
        market=market,
        limits=Limits(
            source="binance",
            tick_size=decimal_or_none(filters.get("PRICE_FILTER", {}).get("tickSize")),
            lot_size=decimal_or_none(filters.get("LOT_SIZE", {}).get("stepSize")),
            min_notional=decimal_or_none(notional.get("minNotional", notional.get("notional"))),
            base=item.get("baseAsset") or None,
            quote=item.get("quoteAsset") or None,
            active=item.get("status") == "TRADING",
        ),
    )


async def _series(
    upstreams: Mapping[str, HttpUpstream], overlap: int, instrument: Instrument, want: BarsWanted
) -> BarsSent:
    """Ascending pages from the start of the window; a page that does not advance ends it."""
    upstream = upstreams[instrument.market]
    interval = interval_name(INTERVALS, want, upstream.host)
    start, until = window_ms(want, overlap)
    limit = min(_PAGE, (until - start) // (interval_seconds(want.interval) * 1000) + 2)
    rows: list[list[float]] = []
    for _ in range(MAX_PAGES):
        answer = await upstream.json(
            "GET",
            "/api/v3/klines" if instrument.market == SPOT else "/fapi/v1/klines",
            params={"symbol": instrument.native, "interval": interval, "startTime": start, "limit": limit},
            weight=2 if instrument.market == SPOT else _usdm_weight(limit),
            accept=(200, 400),
        )
        page = [kline(item, upstream.host) for item in _klines(answer, want.symbol, upstream.host)]
        fresh = [row for row in page if row[0] * 1000 >= start]
        rows += fresh
        if len(page) < limit or not fresh or fresh[-1][0] * 1000 > until:
            break
        start = int(fresh[-1][0] * 1000) + 1
    if not rows:
        raise NoBars("the venue has no bar in the window", symbol=want.symbol, host=upstream.host)
    return BarsSent(make_rows(rows), upstream.host, answer.observed_at, "UTC", "24x7")


def _usdm_weight(limit: int) -> int:
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def _klines(answer: Answer, symbol: str, host: str) -> list[Any]:
    data = answer.data
    if isinstance(data, list):
        return data
    if not isinstance(data, dict) or "code" not in data:
        raise Garbled("klines are no list", symbol=symbol, host=host, status=answer.status)
    # The code comes as a number and as text.
    code, words = str(data["code"]), printable(f"{data['code']}: {data.get('msg', '')}")
    where: dict[str, Any] = {"symbol": symbol, "host": host, "status": answer.status}
    if code == _INVALID_SYMBOL:
        raise UnknownSymbol(words, **where)
    if code == _TOO_MANY:
        raise RateLimited(words, **where)
    if code in _NOT_WELL:
        raise ServerFault(words, **where)
    raise BadRequest(words, **where)
