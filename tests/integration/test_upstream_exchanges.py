"""The exchanges' wire formats and published limits over real HTTP, from a made-up universe and from a folder."""

from __future__ import annotations

import csv
import itertools
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from asof.upstream import binance, bybit, okx
from asof.upstream.app import create_app, endpoints
from asof.upstream.folder import folder_source
from asof.upstream.made import made_source
from asof.upstream.server import serve
from shared.errors import ContractError, NotFoundError
from tests.fixtures_dir import FIXTURES, needs_fixtures

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAY_MS = 86_400_000
TODAY_MS = int(datetime(2026, 1, 10, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def source():
    return made_source(until=NOON, stocks=3, pairs=30, days=400)


@asynccontextmanager
async def replay(source, now=NOON, **options):
    async with serve(create_app(source, now=now, **options)) as base_url, httpx.AsyncClient(timeout=10) as client:
        yield endpoints(base_url) | {"replay": f"{base_url}/_replay"}, client


class Ticking:
    """A timer that moves when it is told to."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


async def test_binance_klines_are_twelve_items_ascending_and_end_with_the_forming_candle(source):
    async with replay(source) as (at, client):
        answer = await client.get(f"{at['binance_url']}/api/v3/klines?symbol=C0007USDT&interval=1d&limit=3")
        later = {"symbol": "C0007USDT", "interval": "1d", "startTime": TODAY_MS - 5 * DAY_MS, "limit": 2}
        since = await client.get(f"{at['binance_url']}/api/v3/klines", params=later)
    rows = answer.json()
    assert [row[0] for row in rows] == [TODAY_MS - 2 * DAY_MS, TODAY_MS - DAY_MS, TODAY_MS]
    assert all(len(row) == 12 and row[6] == row[0] + DAY_MS - 1 for row in rows)
    assert all(isinstance(value, str) for row in rows for value in row[1:6])
    forming = rows[-1]
    assert forming[1] == forming[2] == forming[3] == forming[4]  # only its open is known at noon
    assert [row[0] for row in since.json()] == [TODAY_MS - 5 * DAY_MS, TODAY_MS - 4 * DAY_MS]


async def test_binance_answers_for_the_symbols_asked_and_one_bad_one_fails_them_all(source):
    async with replay(source) as (at, client):
        url = f"{at['binance_url']}/api/v3/exchangeInfo"
        two = await client.get(url, params={"symbols": json.dumps(["C0003USDT", "C0001USDT"])})
        bad = await client.get(url, params={"symbols": json.dumps(["C0003USDT", "NOPE"])})
        errors = [
            (await client.get(f"{at['binance_url']}/api/v3/klines", params=query)).json()["code"]
            for query in ({}, {"symbol": "C0001USDT", "interval": "2d"}, {"symbol": "NOPE", "interval": "1d"})
        ]
    assert [item["symbol"] for item in two.json()["symbols"]] == ["C0003USDT", "C0001USDT"]
    assert two.json()["serverTime"] == TODAY_MS + DAY_MS // 2
    assert (bad.status_code, bad.json()) == (400, {"code": -1121, "msg": "Invalid symbol."})
    assert errors == [-1102, -1120, -1121]


async def test_spot_and_perpetual_of_one_name_have_bars_of_their_own(source):
    async with replay(source) as (at, client):
        query = "symbol=C0002USDT&interval=1d&limit=5"
        spot = (await client.get(f"{at['binance_url']}/api/v3/klines?{query}")).json()
        perpetual = (await client.get(f"{at['binance_usdm_url']}/fapi/v1/klines?{query}")).json()
    assert [row[0] for row in spot] == [row[0] for row in perpetual]
    assert [row[1:5] for row in spot] != [row[1:5] for row in perpetual]


async def test_binance_says_what_was_used_and_refuses_what_is_over_until_the_minute_is_over(source):
    timer = Ticking()
    async with replay(source, timer=timer) as (at, client):
        info, klines = f"{at['binance_url']}/api/v3/exchangeInfo?symbol=C0001USDT", f"{at['binance_url']}/api/v3/klines"
        timer.seconds += 40
        used = [(await client.get(info)).headers["x-mbx-used-weight-1m"] for _ in range(300)]
        over = await client.get(info)
        small = await client.get(klines, params={"symbol": "C0001USDT", "interval": "1d"})
        timer.seconds += 21
        again = await client.get(info)
        stats = (await client.get(f"{at['replay']}/stats")).json()["binance"]
    assert (used[0], used[-1]) == ("20", "6000")
    assert (over.status_code, over.headers["retry-after"]) == (429, "20")
    assert over.json()["code"] == -1003
    assert small.status_code == 429  # the host said to wait, whatever else would have fitted
    assert (again.status_code, again.headers["x-mbx-used-weight-1m"]) == (200, "20")
    assert stats["limit_crossed"] == 1


async def test_binance_bans_a_client_that_goes_on_after_being_told_to_wait(source):
    timer = Ticking()
    small = replace(binance.SPOT_RULE, allowance=20)
    app = create_app(source, now=NOON, timer=timer)
    app.state.replay.meters["binance"].rule = small
    async with serve(app) as base_url, httpx.AsyncClient() as client:
        url = f"{base_url}/binance/api/v3/exchangeInfo?symbol=C0001USDT"
        assert [(await client.get(url)).status_code for _ in range(2)] == [200, 429]
        timer.seconds += 1
        statuses = [(await client.get(url)).status_code for _ in range(12)]
        banned = await client.get(url)
        stats = (await client.get(f"{base_url}/_replay/stats")).json()["binance"]
        timer.seconds += 121
        after = await client.get(url)
    assert statuses == 10 * [429] + 2 * [418]
    assert banned.headers["retry-after"] == "120"
    assert f"IP banned until {int(NOON.timestamp() + 120) * 1000}" in banned.json()["msg"]
    assert stats["contacted_while_paused"] == 11
    assert after.status_code == 200


async def test_usdm_klines_weigh_more_the_more_they_hold(source):
    async with replay(source) as (at, client):
        used = [0]
        for limit in (99, 100, 499, 500, 1000, 1500):
            url = f"{at['binance_usdm_url']}/fapi/v1/klines?symbol=C0001USDT&interval=1d&limit={limit}"
            used.append(int((await client.get(url)).headers["x-mbx-used-weight-1m"]))
    assert [after - before for before, after in itertools.pairwise(used)] == [1, 2, 2, 5, 5, 10]


async def test_okx_candles_come_newest_first_with_confirm_and_page_backwards(source):
    async with replay(source, limits=False) as (at, client):
        url = f"{at['okx_url']}/api/v5/market/history-candles?instId=C0004-USDT-SWAP&bar=1Dutc&limit=300"
        first = (await client.get(url)).json()
        second = (await client.get(f"{url}&after={first['data'][-1][0]}")).json()
        last = (await client.get(f"{url}&after={second['data'][-1][0]}")).json()
        hong_kong = (await client.get(url.replace("1Dutc", "1D"))).json()
        unknown = (await client.get(url.replace("C0004", "NOPE"))).json()
    opens = [int(row[0]) for row in (*first["data"], *second["data"])]
    assert opens == sorted(set(opens), reverse=True)
    assert len(opens) == 400
    assert last == {"code": "0", "msg": "", "data": []}
    assert [row[8] for row in first["data"][:2]] == ["0", "1"]
    assert all(len(row) == 9 for row in first["data"])
    assert (hong_kong["code"], unknown["code"]) == ("51000", "51001")


async def test_okx_lists_instruments_by_type(source):
    async with replay(source) as (at, client):
        url = f"{at['okx_url']}/api/v5/public/instruments"
        swaps = (await client.get(f"{url}?instType=SWAP")).json()
        one = (await client.get(f"{url}?instType=SPOT&instId=C0001-USDT")).json()
        missing = await client.get(url)
    assert len(swaps["data"]) == 30
    assert [item["instId"] for item in one["data"]] == ["C0001-USDT"]
    assert (missing.status_code, missing.json()["code"]) == (400, "50014")


async def test_okx_allows_twenty_in_any_two_seconds_for_each_endpoint(source):
    timer = Ticking()
    async with replay(source, timer=timer) as (at, client):
        candles = f"{at['okx_url']}/api/v5/market/history-candles?instId=C0001-USDT&bar=1Dutc"
        for _ in range(20):
            assert (await client.get(candles)).status_code == 200
            timer.seconds += 0.05
        over = await client.get(candles)
        other = await client.get(f"{at['okx_url']}/api/v5/public/instruments?instType=SPOT")
        timer.seconds += 1.01  # two seconds after the first
        again = await client.get(candles)
    assert (over.status_code, over.json()["code"]) == (429, "50011")
    assert "retry-after" not in over.headers
    assert (other.status_code, again.status_code) == (200, 200)


async def test_bybit_pages_its_linear_list_by_a_cursor_and_sends_spot_whole(source):
    async with replay(source) as (at, client):
        url = f"{at['bybit_url']}/v5/market/instruments-info"
        names, cursor, pages = [], "", 0
        while pages == 0 or cursor:
            result = (await client.get(url, params={"category": "linear", "limit": 12, "cursor": cursor})).json()[
                "result"
            ]
            names += [item["symbol"] for item in result["list"]]
            cursor, pages = result["nextPageCursor"], pages + 1
        spot = (await client.get(url, params={"category": "spot"})).json()["result"]
    assert (pages, len(names), len(set(names))) == (3, 30, 30)
    assert len(spot["list"]) == 30
    assert "nextPageCursor" not in spot


async def test_bybit_klines_come_newest_first_and_errors_come_with_200(source):
    async with replay(source) as (at, client):
        url = f"{at['bybit_url']}/v5/market/kline"
        rows = (await client.get(f"{url}?category=linear&symbol=C0001USDT&interval=D&limit=3")).json()["result"]["list"]
        unknown = await client.get(f"{url}?category=spot&symbol=NOPE&interval=D")
    assert [int(row[0]) for row in rows] == [TODAY_MS, TODAY_MS - DAY_MS, TODAY_MS - 2 * DAY_MS]
    assert all(len(row) == 7 for row in rows)
    assert (unknown.status_code, unknown.json()["retCode"]) == (200, 10001)


async def test_bybit_refuses_for_ten_minutes_what_is_over_its_five_seconds(source):
    timer = Ticking()
    app = create_app(source, now=NOON, timer=timer)
    app.state.replay.meters["bybit"].rule = replace(bybit.RULE, allowance=5)
    async with serve(app) as base_url, httpx.AsyncClient() as client:
        url = f"{base_url}/bybit/v5/market/kline?category=spot&symbol=C0001USDT&interval=D"
        statuses = [(await client.get(url)).status_code for _ in range(6)]
        timer.seconds += 599
        still = await client.get(url)
        timer.seconds += 2
        after = await client.get(url)
    assert statuses == 5 * [200] + [403]
    assert (still.status_code, still.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert after.status_code == 200


async def test_limits_can_be_halved_or_dropped_without_notice(source):
    timer = Ticking()
    async with replay(source, timer=timer) as (at, client):
        candles = f"{at['okx_url']}/api/v5/market/history-candles?instId=C0001-USDT&bar=1Dutc"
        await client.post(f"{at['replay']}/limits", json={"factor": 0.5})
        halved = [(await client.get(candles)).status_code for _ in range(11)]
        await client.post(f"{at['replay']}/limits", json={"enforced": False})
        dropped = [(await client.get(candles)).status_code for _ in range(30)]
        wrong = await client.post(f"{at['replay']}/limits", json={"factor": 0})
    assert halved == 10 * [200] + [429]
    assert set(dropped) == {200}
    assert wrong.status_code == 400


async def test_the_scanner_knows_what_the_exchanges_list_with_the_tick_as_a_price_scale(source):
    async with replay(source) as (at, client):
        body = {
            "symbols": {"tickers": ["OKX:C0001USDT.P", "BYBIT:C0002USDT"]},
            "columns": ["type", "pricescale", "minmov"],
        }
        rows = (await client.post(f"{at['scanner_url']}/crypto/scan", json=body)).json()["data"]
    assert rows == [{"s": "OKX:C0001USDT.P", "d": ["swap", 100, 1]}, {"s": "BYBIT:C0002USDT", "d": ["spot", 1000, 1]}]


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def okx_list(*names):
    return {
        "code": "0",
        "data": [{"instId": name, "instType": "SPOT", "tickSz": "0.1", "lotSz": "1"} for name in names],
    }


async def test_a_folder_is_served_as_it_was_recorded_and_a_list_not_before_its_day(tmp_path):
    write(tmp_path, "okx/instruments_SPOT_20250101.json", okx_list("AAA-USDT", "BBB-USDT"))
    write(tmp_path, "okx/instruments_SPOT_20250201.json", okx_list("AAA-USDT"))
    write(
        tmp_path, "bars/okx_1d/AAA-USDT.csv", "open_time_ms,open,high,low,close,volume\n1735689600000,1.10,2,1,1.5,7\n"
    )
    write(
        tmp_path,
        "scanner/crypto.json",
        [{"s": "OKX:AAAUSDT", "columns": {"description": "Triple A", "Recommend.All": 0.5}}],
    )
    source = folder_source(tmp_path)
    async with replay(source, datetime(2024, 12, 31, tzinfo=UTC)) as (at, client):

        async def seen(instant):
            await client.post(f"{at['replay']}/clock", json={"now": instant})
            listed = await client.get(f"{at['okx_url']}/api/v5/public/instruments?instType=SPOT")
            body = {"columns": ["description", "Recommend.All", "close", "pricescale"]}
            rows = (await client.post(f"{at['scanner_url']}/crypto/scan", json=body)).json()["data"]
            return listed.status_code, [item["instId"] for item in listed.json().get("data", ())], rows

        assert await seen("2025-01-01T12:00:00Z") == (503, [], [])
        status, names, rows = await seen("2025-01-02T00:00:00Z")
        assert (status, names) == (200, ["AAA-USDT", "BBB-USDT"])
        assert rows == [
            {"s": "OKX:AAAUSDT", "d": ["Triple A", 0.5, 1.5, 10]},
            {"s": "OKX:BBBUSDT", "d": [None, None, None, 10]},
        ]
        status, names, rows = await seen("2025-02-02T00:00:00Z")
        assert (status, names, [row["s"] for row in rows]) == (200, ["AAA-USDT"], ["OKX:AAAUSDT"])
        candles = await client.get(f"{at['okx_url']}/api/v5/market/history-candles?instId=AAA-USDT&bar=1Dutc")
    assert candles.json()["data"] == [["1735689600000", "1.10", "2", "1", "1.5", "7", "0", "0", "1"]]


def test_a_folder_that_cannot_be_served_says_why(tmp_path):
    with pytest.raises(NotFoundError, match="holds nothing to serve"):
        folder_source(tmp_path)
    write(tmp_path, "bars/okx_1d/AAA-USDT.csv", "date,close\n")
    with pytest.raises(ContractError, match="no table of bars"):
        folder_source(tmp_path)
    write(tmp_path, "okx/instruments_SPOT_20251399.json", "{}")
    with pytest.raises(ContractError, match="names no day"):
        folder_source(tmp_path)
    write(tmp_path, "okx/instruments_SPOT_20251399.json", "{")
    with pytest.raises(ContractError, match="is no JSON"):
        folder_source(tmp_path)


def test_two_sources_that_state_the_same_thing_are_refused(source):
    with pytest.raises(ContractError, match="two sources both serve"):
        _ = source | source


def test_instrument_names_of_the_exchanges_map_to_scanner_symbols_and_never_mix_spot_and_perpetual():
    assert okx.scanner_symbol("BTC-USDT") == "OKX:BTCUSDT"
    assert okx.scanner_symbol("BTC-USDT-SWAP") == "OKX:BTCUSDT.P"
    assert okx.scanner_symbol("BTC-USD-220624") == "OKX:BTCUSD220624"
    assert bybit.scanner_symbol("spot", "BTCUSDT") == "BYBIT:BTCUSDT"
    assert bybit.scanner_symbol("linear", "BTCUSDT") == "BYBIT:BTCUSDT.P"


@needs_fixtures
async def test_the_recorded_payloads_and_bars_are_served_value_for_value():
    async with replay(folder_source(FIXTURES), datetime(2026, 8, 10, 12, tzinfo=UTC), limits=False) as (at, client):
        spot = (await client.get(f"{at['binance_url']}/api/v3/exchangeInfo")).json()
        linear = (await client.get(f"{at['bybit_url']}/v5/market/instruments-info?category=linear&limit=1000")).json()
        query = {"symbol": "BTCUSDT", "interval": "1d", "startTime": 0, "limit": 1000}
        klines = (await client.get(f"{at['binance_url']}/api/v3/klines", params=query)).json()
    recorded = json.loads((FIXTURES / "binance/spot_exchangeInfo_20211012.json").read_bytes())
    assert spot["symbols"] == recorded["symbols"]
    assert len(linear["result"]["list"]) == 400
    with (FIXTURES / "bars/binance_spot_1d/BTCUSDT.csv").open() as file:
        expected = list(csv.reader(file))[1:1001]
    assert [[str(row[0]), *row[1:6]] for row in klines] == expected
