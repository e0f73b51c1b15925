"""The replay of the Philippine Stock Exchange over real HTTP and a real websocket."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest
import websockets

from asof.upstream.app import create_app, endpoints
from asof.upstream.frames import command, frame, is_heartbeat, unframe
from asof.upstream.pse import locate, pse_source
from asof.upstream.server import serve
from shared.errors import ContractError

FOOD = "Food, Beverage & Tobacco"
AFTER_LAST_CLOSE = datetime(2021, 12, 15, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pse_source(tmp_path_factory.mktemp("cache"))


@asynccontextmanager
async def replay(source, now=AFTER_LAST_CLOSE, **options):
    app = create_app(source, now=now, **options)
    async with serve(app) as base_url, httpx.AsyncClient(timeout=10) as client:
        yield base_url, client


async def scan(client, base_url, columns, tickers=None, **more):
    body = {
        "columns": columns,
        **({"symbols": {"tickers": tickers, "query": {"types": []}}} if tickers else {}),
        **more,
    }
    return await client.post(f"{endpoints(base_url)['scanner_url']}/philippines/scan", json=body)


async def bars(base_url, *symbols, count=5000, period="", resolution="1D"):
    """Rows by symbol, or the text of the error, asked for as a chart does: one connection, one series after another."""
    rows = {}
    async with websockets.connect(endpoints(base_url)["scanner_ws_url"], compression=None, max_size=None) as socket:
        await socket.send(
            command("set_auth_token", "unauthorized_user_token") + command("chart_create_session", "cs_1", "")
        )
        for number, symbol in enumerate(symbols):
            asked = "=" + json.dumps({"symbol": symbol, "adjustment": "splits"})
            await socket.send(
                command("resolve_symbol", "cs_1", f"sym_{number}", asked)
                + command("create_series", "cs_1", f"sds_{number}", "s1", f"sym_{number}", resolution, count, period)
            )
            rows[symbol] = await _collect(socket, f"sds_{number}", f"sym_{number}")
    return rows


async def _collect(socket, series_id, symbol_id):
    rows = []
    while True:
        for text in unframe(await socket.recv()):
            if is_heartbeat(text):
                await socket.send(frame(text))
                continue
            message = json.loads(text)
            match message.get("m"), message.get("p"):
                case "timescale_update", [_, series, _] if series_id in series:
                    rows += [row["v"] for row in series[series_id]["s"]]
                case "series_completed", [_, completed, *_] if completed == series_id:
                    return rows
                case (("series_error" | "symbol_error"), [_, failed, *_, reason]) if failed in (series_id, symbol_id):
                    return reason


def wheel_rows(symbol):
    """The wheel's own rows of one stock, read independently of the replay: (date, open, high, low, close, value)."""
    with zipfile.ZipFile(locate() / "merged_stock_data.zip") as archive:
        table = list(csv.reader(io.TextIOWrapper(archive.open(archive.namelist()[0]))))
    at = table[0].index(symbol)
    return [(row[0], *map(float, row[at : at + 5])) for row in table[3:] if row[at]]


async def test_every_answer_carries_the_served_date_and_the_replay_mark(source):
    async with replay(source) as (base_url, client):
        for path in ("/scanner/symbol?symbol=PSE:JFC", "/nowhere", "/_replay/stats"):
            headers = (await client.get(base_url + path)).headers
            assert parsedate_to_datetime(headers["date"]) == AFTER_LAST_CLOSE
            assert headers["x-asof-replay"] == "1"
            assert headers.get_list("date") == [headers["date"]]
        async with websockets.connect(endpoints(base_url)["scanner_ws_url"]) as socket:
            assert socket.response.headers["X-Asof-Replay"] == "1"
            assert parsedate_to_datetime(socket.response.headers["Date"]) == AFTER_LAST_CLOSE


async def test_a_scan_gives_the_recorded_columns_in_the_asked_order_and_null_for_the_rest(source):
    columns = ["exchange", "name", "description", "type", "country", "sector", "industry", "currency", "close"]
    async with replay(source) as (base_url, client):
        answer = await scan(
            client, base_url, [*columns, "Recommend.All", "RSI|240", "pricescale"], ["PSE:JFC", "PSE:NOPE"]
        )
    assert answer.json() == {
        "totalCount": 1,
        "data": [
            {
                "s": "PSE:JFC",
                "d": [
                    "PSE",
                    "JFC",
                    "Jollibee Foods Corporation",
                    "stock",
                    "Philippines",
                    "Industrial",
                    FOOD,
                    "PHP",
                    227.0,
                ]
                + 3 * [None],
            }
        ],
    }


async def test_fifty_rows_are_the_default_and_a_range_pages_through_all_of_them(source):
    async with replay(source) as (base_url, client):
        default = (await scan(client, base_url, ["name"])).json()
        pages = [(await scan(client, base_url, ["name"], range=[at, at + 100])).json() for at in (0, 100, 200)]
    assert (default["totalCount"], len(default["data"])) == (272, 50)
    assert len({row["s"] for page in pages for row in page["data"]}) == 272


async def test_filter_and_sort_work_as_the_scanner_offers_them(source):
    conditions = [
        {"left": "sector", "operation": "in_range", "right": ["Financials"]},
        {"left": "close", "operation": "greater", "right": 20},
    ]
    sorting = {"sortBy": "close", "sortOrder": "desc"}
    async with replay(source) as (base_url, client):
        rows = (await scan(client, base_url, ["sector", "close"], filter=conditions, sort=sorting)).json()["data"]
    closes = [row["d"][1] for row in rows]
    assert {row["d"][0] for row in rows} == {"Financials"}
    assert closes == sorted(closes, reverse=True)
    assert min(closes) > 20


async def test_an_unknown_column_is_a_400_that_names_it(source):
    async with replay(source) as (base_url, client):
        answer = await scan(client, base_url, ["name", "nmae"], ["PSE:JFC"])
    assert (answer.status_code, answer.json()) == (
        400,
        {"totalCount": 0, "error": 'Unknown field "nmae"', "data": None},
    )


@pytest.mark.parametrize(
    "body",
    [
        *(
            "",
            "{",
            "[]",
            "7",
            '{"columns": 7}',
            '{"columns": [7]}',
            '{"symbols": []}',
            '{"symbols": {"tickers": "PSE:JFC"}}',
        ),
        *(
            '{"symbols": {"tickers": [{}]}}',
            '{"symbols": {"query": [1]}}',
            '{"range": [0]}',
            '{"range": ["a", "b"]}',
            '{"filter": [{}]}',
            '{"sort": []}',
        ),
        '{"filter": [{"left": "close", "operation": "almost", "right": 1}]}',
        '{"filter": [{"left": "close", "operation": "greater", "right": "much"}]}',
        '{"filter": [{"left": "close", "operation": "greater"}]}',
    ],
)
async def test_a_scan_that_cannot_be_read_is_a_400_with_an_error(source, body):
    async with replay(source, limits=False) as (base_url, client):
        answer = await client.post(f"{base_url}/scanner/global/scan", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert answer.json()["data"] is None


async def test_one_symbol_is_a_flat_object_and_an_unknown_one_a_404_unless_asked_otherwise(source):
    async with replay(source) as (base_url, client):
        known = await client.get(f"{base_url}/scanner/symbol?symbol=PSE:BDO&fields=name,currency")
        unknown = await client.get(f"{base_url}/scanner/symbol?symbol=PSE:NOPE&fields=name")
        quiet = await client.get(f"{base_url}/scanner/symbol?symbol=PSE:NOPE&fields=name&no_404=true")
    assert known.json() == {"name": "BDO", "currency": "PHP"}
    assert (unknown.status_code, quiet.status_code) == (404, 200)
    assert quiet.json()["code"] == "symbol_not_exists"


async def test_the_websocket_serves_the_wheels_rows_with_the_volume_estimated(source):
    expected = wheel_rows("JFC")
    async with replay(source) as (base_url, _):
        rows = (await bars(base_url, "PSE:JFC"))["PSE:JFC"]
    assert len(rows) == len(expected) > 2000  # more than one frame
    for row, (day, first, high, low, close, value) in zip(rows, expected, strict=True):
        assert datetime.fromtimestamp(row[0], UTC).isoformat() == f"{day}T01:30:00+00:00"
        assert row[1:5] == [first, high, low, close]
        assert row[5] == pytest.approx(value / close, abs=1e-4)


async def test_the_real_dirt_is_served_as_it_is(source):
    async with replay(source) as (base_url, _):
        rows = await bars(base_url, "PSE:CEU", "PSE:ALHI", "PSE:ACEPH")
    zero_day = datetime(2020, 11, 23, 1, 30, tzinfo=UTC).timestamp()
    odd_day = datetime(2012, 6, 22, 1, 30, tzinfo=UTC).timestamp()
    assert [row[1:] for row in rows["PSE:CEU"] if row[0] == zero_day] == [[0, 0, 0, 0, 0]]
    [(_, first, high, low, close, _)] = [row for row in rows["PSE:ALHI"] if row[0] == odd_day]
    assert not low <= first <= high or not low <= close <= high
    assert rows["PSE:ACEPH"] == []  # listed, and without a single bar


async def test_nothing_later_than_the_clock_is_served(source):
    noon_in_manila = datetime(2021, 12, 15, 4, tzinfo=UTC)
    async with replay(source, noon_in_manila) as (base_url, client):
        *closed, forming = (await bars(base_url, "PSE:JFC"))["PSE:JFC"]
        shown = (await scan(client, base_url, ["close", "volume"], ["PSE:JFC"])).json()["data"][0]["d"]
        await client.post(f"{base_url}/_replay/clock", json={"now": "2021-12-15T01:00:00Z"})
        before_open = (await bars(base_url, "PSE:JFC"))["PSE:JFC"]
        await client.post(f"{base_url}/_replay/clock", json={"now": "2021-12-15T07:30:00Z"})
        after_close = (await bars(base_url, "PSE:JFC"))["PSE:JFC"]
    # Half a session shows no more than its open: the high, low, close and volume of the day are not known yet.
    assert forming[1:] == [227.6, 227.6, 227.6, 227.6, 0]
    assert shown == [227.6, 0]
    assert before_open == closed
    assert after_close == [*closed, [forming[0], 227.6, 227.6, 226, 227, 27216.4405]]


async def test_a_company_is_not_in_the_universe_before_it_is_listed(source):
    async with replay(source, datetime(2020, 6, 14, tzinfo=UTC)) as (base_url, client):
        before = (await scan(client, base_url, ["name"], ["PSE:MM", "PSE:JFC"])).json()
        refused = (await bars(base_url, "PSE:MM"))["PSE:MM"]
        await client.post(f"{base_url}/_replay/clock", json={"now": "2020-06-15T08:00:00Z"})
        after = (await scan(client, base_url, ["name"], ["PSE:MM", "PSE:JFC"])).json()
        first_bars = (await bars(base_url, "PSE:MM"))["PSE:MM"]
    assert [row["s"] for row in before["data"]] == ["PSE:JFC"]
    assert refused == "invalid symbol"
    assert [row["s"] for row in after["data"]] == ["PSE:MM", "PSE:JFC"]
    assert len(first_bars) == 1


async def test_a_count_gives_the_newest_bars_and_a_period_those_since_its_start(source):
    async with replay(source) as (base_url, _):
        everything = (await bars(base_url, "PSE:JFC"))["PSE:JFC"]
        newest = (await bars(base_url, "PSE:JFC", count=3))["PSE:JFC"]
        since = (await bars(base_url, "PSE:JFC", period=f"r,{everything[-5][0]}:{everything[-1][0]}"))["PSE:JFC"]
        weekly = (await bars(base_url, "PSE:JFC", resolution="1W"))["PSE:JFC"]
    assert newest == everything[-3:]
    assert since == everything[-5:]
    assert weekly == "unsupported resolution"


async def test_an_unknown_symbol_is_an_error_and_the_next_series_still_comes(source):
    async with replay(source) as (base_url, _):
        rows = await bars(base_url, "PSE:NOPE", "PSE:JFC", count=2)
    assert rows["PSE:NOPE"] == "invalid symbol"
    assert len(rows["PSE:JFC"]) == 2


async def test_the_log_and_the_sums_tell_what_was_asked(source):
    async with replay(source) as (base_url, client):
        await scan(client, base_url, ["name"], ["PSE:JFC", "PSE:BDO"])
        await bars(base_url, "PSE:JFC", count=2)
        log = (await client.get(f"{base_url}/_replay/log")).json()
        stats = (await client.get(f"{base_url}/_replay/stats")).json()
    assert [(seen["venue"], seen["kind"], seen["symbols"], seen["status"]) for seen in log] == [
        ("scanner", "scan", ["PSE:JFC", "PSE:BDO"], 200),
        ("scanner-ws", "connect", [], 101),
        ("scanner-ws", "series", ["PSE:JFC"], 200),
    ]
    assert stats["scanner"]["requests"] == 1
    assert stats["scanner"]["limit_crossed"] == stats["scanner"]["contacted_while_paused"] == 0


async def test_a_wrong_clock_is_refused_with_the_reason_and_the_clock_stays(source):
    async with replay(source) as (base_url, client):
        answers = [
            await client.post(f"{base_url}/_replay/clock", content=body)
            for body in (b'{"now": "yesterday"}', b"[]", b"{")
        ]
        assert [answer.status_code for answer in answers] == [400, 400, 400]
        assert (await client.get(f"{base_url}/_replay/clock")).json() == {"now": "2021-12-15T08:00:00Z"}


async def test_a_connection_that_answers_no_heartbeat_is_closed_and_one_that_does_stays(source):
    async def beats(answer):
        async with (
            replay(source, heartbeat_s=0.15) as (base_url, _),
            websockets.connect(endpoints(base_url)["scanner_ws_url"]) as socket,
        ):
            await socket.recv()
            for number in range(1, 6):
                text = await socket.recv()
                assert list(unframe(text)) == [f"~h~{number}"]
                if answer:
                    await socket.send(text)

    await beats(answer=True)
    with pytest.raises(websockets.ConnectionClosed):
        await beats(answer=False)


async def test_older_bars_come_on_request_until_there_are_none(source):
    async with replay(source) as (base_url, _):
        everything = (await bars(base_url, "PSE:JFC"))["PSE:JFC"]
        async with websockets.connect(endpoints(base_url)["scanner_ws_url"], compression=None) as socket:
            await socket.send(
                command("chart_create_session", "cs_1", "") + command("resolve_symbol", "cs_1", "y", "PSE:JFC")
            )
            await socket.send(command("create_series", "cs_1", "s", "s1", "y", "1D", 10, ""))
            parts = [await _collect(socket, "s", "y")]
            for _ in range(2):
                await socket.send(command("request_more_data", "cs_1", "s", len(everything) - 10))
                parts.insert(0, await _collect(socket, "s", "y"))
    assert [len(part) for part in parts] == [0, len(everything) - 10, 10]
    assert [row for part in parts for row in part] == everything


@pytest.mark.parametrize("sent", [frame("no json"), frame("[]"), "no frame", "~m~99~m~short"])
async def test_what_is_no_message_ends_the_connection_with_a_protocol_error(source, sent):
    async with replay(source) as (base_url, _), websockets.connect(endpoints(base_url)["scanner_ws_url"]) as socket:
        await socket.recv()
        await socket.send(sent)
        [text] = unframe(await socket.recv())
        assert json.loads(text)["m"] == "protocol_error"
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()


async def test_a_message_that_makes_no_sense_is_a_critical_error_and_the_next_one_is_answered(source):
    nonsense = [
        command("fly", "cs_1"),
        command("resolve_symbol", "nowhere", "y", "PSE:JFC"),
        command("resolve_symbol", "cs_1"),
        command("create_series", "cs_1", "s", "s1", "never resolved", "1D", 10, ""),
    ]
    async with replay(source) as (base_url, _), websockets.connect(endpoints(base_url)["scanner_ws_url"]) as socket:
        await socket.recv()
        await socket.send(command("chart_create_session", "cs_1", ""))
        for sent in nonsense:
            await socket.send(sent)
            [text] = unframe(await socket.recv())
            assert json.loads(text)["m"] == "critical_error"
        await socket.send(command("resolve_symbol", "cs_1", "y", "PSE:JFC"))
        [text] = unframe(await socket.recv())
        assert json.loads(text)["p"][2]["timezone"] == "Asia/Manila"


async def test_an_eighth_connection_at_once_is_refused(source):
    async with replay(source) as (base_url, client):
        url = endpoints(base_url)["scanner_ws_url"]
        opened = [await websockets.connect(url) for _ in range(7)]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url)
        await opened.pop().close()
        opened.append(await websockets.connect(url))
        for socket in opened:
            await socket.close()
        stats = (await client.get(f"{base_url}/_replay/stats")).json()
    assert refused.value.response.status_code == 429
    assert stats["scanner-ws"]["limit_crossed"] == 1


async def test_a_host_that_others_can_reach_is_refused_unless_asked_for(source):
    app = create_app(source, now=AFTER_LAST_CLOSE)
    with pytest.raises(ContractError, match=r"does not listen on 0\.0\.0\.0"):
        async with serve(app, "0.0.0.0"):
            pass
    async with serve(app, "0.0.0.0", allow_any_host=True) as base_url:
        assert base_url.startswith("http://0.0.0.0:")


def test_a_second_start_reads_the_cache_and_a_damaged_cache_is_parsed_anew(tmp_path, source):
    first = pse_source(tmp_path)
    [cache] = tmp_path.iterdir()
    whole = cache.read_bytes()
    assert pse_source(tmp_path) == first == source
    cache.write_bytes(whole[:-1] + b"7")
    assert pse_source(tmp_path) == source
    assert cache.read_bytes() == whole
