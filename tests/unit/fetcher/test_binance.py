"""Binance: limits by filter name, perpetuals never from spot, klines paged and typed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal as D

import httpx
import pytest

from services.fetcher.adapters.binance import connect, read_spot, read_usdm
from services.fetcher.adapters.http import Caps
from services.fetcher.adapters.local_pace import LocalPace
from services.fetcher.adapters.venue import Wiring
from services.fetcher.domain.faults import BadRequest, Garbled, RateLimited, UnknownSymbol, Unsupported
from services.fetcher.domain.record import Described
from services.fetcher.ports import BarsSent, BarsWanted
from tests.unit.fetcher import upstreams as up

DAY = 86_400_000
T0 = 1_600_041_600_000  # 2020-09-14


def spot_symbol(symbol="BTCUSDT", filters=None, **fields):
    return {
        "symbol": symbol, "status": "TRADING", "baseAsset": symbol[:3], "quoteAsset": symbol[3:],
        "quantityPrecision": 8,
        "filters": filters if filters is not None else [
            {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
            {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
        ],
        **fields,
    }  # fmt: skip


def venue(answer, tmp_path):
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    wiring = Wiring(client, LocalPace(), lambda: up.NOW, Caps(), tmp_path, 3600, 10, {})
    return connect(wiring, "http://127.0.0.1:9/spot", "http://127.0.0.1:9/usdm")


def described(*symbols):
    return {symbol: Described(symbol, {}, None, up.NOW, "scanner") for symbol in symbols}


def wanted(symbol, since=None, until=datetime(2022, 1, 1, tzinfo=UTC), interval="1d"):
    return BarsWanted(symbol, interval, since, until)


async def fetch(source, *wants):
    got = {}

    async def sink(symbol, outcome):
        assert symbol not in got
        got[symbol] = outcome

    await source.fetch(list(wants), sink, workers=3)
    return got


def klines(request, *, first=T0, count=2500):
    """A server with `count` daily klines from `first`, that pages as Binance does."""
    query = request.url.params
    start, limit = int(query["startTime"]), int(query["limit"])
    opens = [first + index * DAY for index in range(count) if first + index * DAY >= start][:limit]
    return up.json_response([[ms, "1.5", "2", "1", "1.7", "10", ms + DAY - 1, "17", 3, "5", "8", "0"] for ms in opens])


def test_limits_are_read_by_filter_name_whatever_their_order():
    one = read_spot({"symbols": [spot_symbol()]}, "h")[0]
    assert (one.limits.tick_size, one.limits.lot_size, one.limits.min_notional) == (D("0.01"), D("0.00001"), D(5))
    assert one.limits.active is True
    assert one.limits.contract_size is None


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([{"filterType": "MIN_NOTIONAL", "minNotional": "10"}], D(10)),
        ([{"filterType": "MIN_NOTIONAL", "notional": "5"}], D(5)),
        ([{"filterType": "MIN_NOTIONAL", "minNotional": "10"}, {"filterType": "NOTIONAL", "minNotional": "5"}], D(5)),
        ([], None),
        ([{"filterType": "NOTIONAL", "minNotional": ""}], None),
    ],
)
def test_the_smallest_order_is_read_from_either_filter(filters, expected):
    assert read_spot({"symbols": [spot_symbol(filters=filters)]}, "h")[0].limits.min_notional == expected


def test_a_step_of_zero_is_unknown_and_quantity_precision_is_no_step():
    filters = [{"filterType": "LOT_SIZE", "stepSize": "0.00000000"}]
    assert read_spot({"symbols": [spot_symbol(filters=filters)]}, "h")[0].limits.lot_size is None


@pytest.mark.parametrize("status", ["BREAK", "HALT", "PENDING_TRADING", None])
def test_what_does_not_trade_is_inactive_with_its_limits_kept(status):
    one = read_spot({"symbols": [spot_symbol(status=status)]}, "h")[0]
    assert one.limits.active is False
    assert one.limits.tick_size == D("0.01")


def test_a_perpetual_gets_its_own_ticker_and_a_dated_contract_none():
    payload = {
        "symbols": [
            spot_symbol(contractType="PERPETUAL"),
            spot_symbol("BTCUSDT_210924", contractType="CURRENT_QUARTER"),
        ]
    }
    assert [one.ticker for one in read_usdm(payload, "h")] == ["BTCUSDT.P"]


@pytest.mark.parametrize("payload", [None, [], {}, {"symbols": None}, {"symbols": ["BTCUSDT"]}])
def test_a_list_of_another_shape_is_garbled(payload):
    with pytest.raises(Garbled):
        read_spot(payload, "h")


async def test_a_perpetual_is_never_answered_from_spot(tmp_path):
    asked = []

    def answer(request):
        asked.append(request.url.path)
        if request.url.path.startswith("/usdm"):
            return up.json_response({"symbols": []})
        return up.json_response({"symbols": [spot_symbol()]})

    stated = await venue(answer, tmp_path).limits(described("BINANCE:BTCUSDT.P", "BINANCE:BTCUSDT"))
    assert list(stated) == ["BINANCE:BTCUSDT"]
    assert sorted(asked) == ["/spot/api/v3/exchangeInfo", "/usdm/fapi/v1/exchangeInfo"]


async def test_one_list_that_fails_costs_only_its_own_symbols(tmp_path):
    def answer(request):
        if request.url.path.startswith("/usdm"):
            return up.json_response({"code": -1, "msg": "no"}, 503)
        return up.json_response({"symbols": [spot_symbol()]})

    stated = await venue(answer, tmp_path).limits(described("BINANCE:BTCUSDT.P", "BINANCE:BTCUSDT"))
    assert stated["BINANCE:BTCUSDT.P"].code == "server_error"
    assert stated["BINANCE:BTCUSDT"].tick_size == D("0.01")


async def test_klines_are_paged_to_the_end(tmp_path):
    starts = []

    def answer(request):
        if "exchangeInfo" in request.url.path:
            return up.json_response({"symbols": [spot_symbol()]})
        starts.append(int(request.url.params["startTime"]))
        return klines(request)

    got = await fetch(venue(answer, tmp_path), wanted("BINANCE:BTCUSDT", until=datetime(2030, 1, 1, tzinfo=UTC)))
    sent = got["BINANCE:BTCUSDT"]
    assert len(sent.rows) == 2500
    assert sent.rows[0].tolist() == [T0 / 1000, 1.5, 2, 1, 1.7, 10]
    assert len(starts) == 3
    assert (sent.timezone, sent.session) == ("UTC", "24x7")


async def test_only_the_overlap_and_what_is_newer_is_asked_for(tmp_path):
    queries = []

    def answer(request):
        if "exchangeInfo" in request.url.path:
            return up.json_response({"symbols": [spot_symbol()]})
        queries.append(dict(request.url.params))
        return klines(request)

    since, until = datetime(2021, 12, 1, tzinfo=UTC), datetime(2021, 12, 15, 8, tzinfo=UTC)
    await fetch(venue(answer, tmp_path), wanted("BINANCE:BTCUSDT", since, until))
    assert len(queries) == 1
    assert int(queries[0]["startTime"]) == int(datetime(2021, 11, 21, tzinfo=UTC).timestamp() * 1000)
    assert int(queries[0]["limit"]) < 30


async def test_a_page_that_repeats_ends_the_series(tmp_path):
    def answer(request):
        if "exchangeInfo" in request.url.path:
            return up.json_response({"symbols": [spot_symbol()]})
        return up.json_response([[T0 + i * DAY, "1", "1", "1", "1", "1"] for i in range(1000)])

    got = await fetch(venue(answer, tmp_path), wanted("BINANCE:BTCUSDT", until=datetime(2030, 1, 1, tzinfo=UTC)))
    assert len(got["BINANCE:BTCUSDT"].rows) == 1000


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        ({"code": -1121, "msg": "Invalid symbol."}, 400, UnknownSymbol),
        ({"code": "-1003", "msg": "Way too many requests."}, 200, RateLimited),
        ({"code": -1003, "msg": "Way too many requests."}, 400, RateLimited),
        ({"code": -1100, "msg": "Illegal characters."}, 400, BadRequest),
        ({"hello": 1}, 200, Garbled),
        ([[T0, "x", "1", "1", "1", "1"]], 200, Garbled),
        ([[T0, "1"]], 200, Garbled),
    ],
)
async def test_an_error_payload_becomes_a_typed_error_of_its_symbol(tmp_path, body, status, fault):
    def answer(request):
        if "exchangeInfo" in request.url.path:
            return up.json_response({"symbols": [spot_symbol(), spot_symbol("ETHUSDT")]})
        return up.json_response(body, status) if request.url.params["symbol"] == "BTCUSDT" else klines(request)

    got = await fetch(venue(answer, tmp_path), wanted("BINANCE:BTCUSDT"), wanted("BINANCE:ETHUSDT"))
    assert isinstance(got["BINANCE:BTCUSDT"], fault)
    assert isinstance(got["BINANCE:ETHUSDT"], BarsSent)


async def test_a_ban_carries_the_time_its_words_name(tmp_path):
    until = int(up.NOW.timestamp() * 1000) + 90_000

    def answer(request):
        words = {"code": -1003, "msg": f"Way too much request weight used; IP banned until {until}."}
        return up.json_response(words, 418)

    stated = await venue(answer, tmp_path).limits(described("BINANCE:BTCUSDT"))
    fault = stated["BINANCE:BTCUSDT"]
    assert fault.code == "banned"
    assert fault.retry_after == pytest.approx(90)
    assert "banned until" in fault.cause


async def test_what_the_venue_does_not_list_and_what_it_does_not_serve_is_named(tmp_path):
    def answer(request):
        return up.json_response({"symbols": [spot_symbol()]})

    source = venue(answer, tmp_path)
    assert isinstance((await fetch(source, wanted("BINANCE:NOPE")))["BINANCE:NOPE"], UnknownSymbol)
    odd = (await fetch(source, wanted("BINANCE:BTCUSDT", interval="3w")))["BINANCE:BTCUSDT"]
    assert isinstance(odd, Unsupported)
    assert "1d" in odd.fix
