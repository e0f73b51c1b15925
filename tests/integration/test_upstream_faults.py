"""Each fault of the catalogue as a client meets it, and what the seed decides."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic

import httpx
import pytest
import websockets

from asof.upstream.app import create_app, endpoints
from asof.upstream.faults.catalogue import BY_NAME, MATRIX, SERIES
from asof.upstream.faults.plan import Faults
from asof.upstream.frames import BrokenFrame, command, unframe
from asof.upstream.made import made_source
from asof.upstream.server import serve
from shared.errors import ContractError

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
SYMBOLS = [f"MADE:S{number:04}" for number in range(20)]
COLUMNS = ["name", "description", "sector", "currency", "pricescale", "minmov", "close"]
LINEAR = "/v5/market/instruments-info?category=linear&limit=4"


@pytest.fixture(scope="module")
def source():
    return made_source(until=NOON, stocks=20, pairs=10, days=100)


class Upstreams:
    def __init__(self, base_url, client):
        self.at = endpoints(base_url)
        self.base_url = base_url
        self.client = client

    async def scan(self, tickers=SYMBOLS, columns=COLUMNS):
        body = {"symbols": {"tickers": list(tickers)}, "columns": list(columns)}
        return await self.client.post(f"{self.at['scanner_url']}/global/scan", json=body)

    async def klines(self, name="C0001USDT"):
        return await self.client.get(f"{self.at['binance_url']}/api/v3/klines?symbol={name}&interval=1d&limit=1000")

    async def candles(self):
        return await self.client.get(f"{self.at['okx_url']}/api/v5/market/history-candles?instId=C0001-USDT&bar=1Dutc")

    async def spot_info(self):
        return await self.client.get(f"{self.at['binance_url']}/api/v3/exchangeInfo")

    async def bybit(self, query=LINEAR):
        return await self.client.get(f"{self.at['bybit_url']}{query}")

    async def stats(self, venue):
        return (await self.client.get(f"{self.base_url}/_replay/stats")).json()[venue]

    async def series(self, symbol="MADE:S0001"):
        """Every message of one series until its end, as decoded JSON."""
        async with websockets.connect(self.at["scanner_ws_url"], compression=None) as socket:
            await socket.recv()
            await socket.send(command("chart_create_session", "cs", ""))
            await socket.send(command("resolve_symbol", "cs", "y", symbol))
            await socket.send(command("create_series", "cs", "s", "s1", "y", "1D", 5000, ""))
            messages = []
            while not messages or messages[-1]["m"] not in ("series_completed", "critical_error"):
                messages += [json.loads(text) for text in unframe(await socket.recv())]
            return messages

    async def rows(self, symbol="MADE:S0001"):
        updates = [message for message in await self.series(symbol) if message["m"] == "timescale_update"]
        return [row["v"] for update in updates for row in update["p"][1]["s"]["s"]]


@asynccontextmanager
async def replay(source, faults=None, **options):
    app = create_app(source, now=NOON, faults=faults, **options)
    async with serve(app) as base_url, httpx.AsyncClient(timeout=1) as client:
        yield Upstreams(base_url, client)


def only(name, **times):
    return Faults((name,), hold_s=times.pop("hold_s", 3.0), **times)


async def test_a_named_wait_holds_the_whole_host_and_coming_back_early_is_seen(source):
    async with replay(source, only("429-retry-after", retry_after_s=1, rate=0)) as upstreams:
        first = await upstreams.klines()
        await asyncio.sleep(0.2)
        early = await upstreams.klines("C0002USDT")
        await asyncio.sleep(1)
        after = await upstreams.klines()
        stats = await upstreams.stats("binance")
    assert (first.status_code, first.headers["retry-after"]) == (429, "1")
    assert (early.status_code, after.status_code) == (429, 200)
    assert stats["contacted_while_paused"] == 1


async def test_a_wait_may_be_a_date_of_the_served_clock(source):
    async with replay(source, only("429-retry-after-date", retry_after_s=2)) as upstreams:
        answer = await upstreams.candles()
    served, until = (parsedate_to_datetime(answer.headers[name]) for name in ("date", "retry-after"))
    assert (until - served).total_seconds() == 2


async def test_a_ban_names_its_end_and_ends_then(source):
    async with replay(source, only("418-ban", ban_s=0.3, rate=0)) as upstreams:
        banned = await upstreams.klines()
        await asyncio.sleep(0.35)
        after = await upstreams.klines()
    assert (banned.status_code, after.status_code) == (418, 200)
    assert str(int(NOON.timestamp() * 1000) + 300) in banned.json()["msg"]


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("429-bare", 429, ""),
        ("451", 451, "restricted location"),
        ("403-html", 403, "<html>"),
        ("502-page", 502, "<html>"),
        ("503-page", 503, "<html>"),
        ("redirect", 302, ""),
        ("error-200", 200, "-1000"),
        ("deep-json", 200, "[[[["),
    ],
)
async def test_an_answer_is_replaced_once_at_least_and_then_the_venue_answers_again(source, name, status, says):
    async with replay(source, only(name, rate=0)) as upstreams:
        first, second = await upstreams.klines(), await upstreams.klines()
        stats = await upstreams.stats("binance")
    assert first.status_code == status
    assert says in first.text
    assert "retry-after" not in first.headers
    assert len(second.json()) == 100
    assert stats["faults"] == {name: 1}


async def test_a_bare_429_has_its_code_as_a_text_as_a_number_or_not_at_all(source):
    async with replay(source, only("429-bare", rate=1)) as upstreams:
        bodies = [(await upstreams.candles()).json() for _ in range(3)]
    assert [body.get("code") for body in bodies] == ["50011", 50011, None]
    assert ["data" in body for body in bodies] == [True, False, False]


async def test_bybit_refuses_with_a_page_and_goes_on_refusing(source):
    async with replay(source, only("bybit-403", rate=0)) as upstreams:
        statuses = [(await upstreams.bybit()).status_code for _ in range(3)]
    assert statuses == [403, 403, 403]


async def test_an_empty_body_comes_with_200(source):
    async with replay(source, only("empty-200", rate=0)) as upstreams:
        first, second = await upstreams.scan(), await upstreams.scan()
    assert (first.status_code, first.content) == (200, b"")
    assert second.json()["totalCount"] == 20


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("no-bytes", httpx.ReadTimeout),
        ("reset", httpx.ReadError),
        ("wrong-length", httpx.RemoteProtocolError),
        ("truncated-json", json.JSONDecodeError),
    ],
)
async def test_a_connection_fails_the_way_the_fault_says(source, name, error):
    async with replay(source, only(name, rate=0)) as upstreams:
        with pytest.raises(error):
            (await upstreams.klines()).json()
        assert len((await upstreams.klines()).json()) == 100
        entry = (await upstreams.client.get(f"{upstreams.base_url}/_replay/log?venue=binance")).json()[0]
    assert entry["fault"] == name


async def test_a_silent_connection_is_reset_when_its_time_is_over(source):
    async with replay(source, only("no-bytes", rate=0, hold_s=0.2)) as upstreams:
        began = monotonic()
        with pytest.raises(httpx.ReadError):
            await upstreams.klines()
    assert monotonic() - began > 0.15


@pytest.mark.parametrize("name", ["slow-drip", "endless-drip"])
async def test_a_drip_keeps_every_read_in_time_and_takes_too_long_as_a_whole(source, name):
    async with replay(source, only(name, rate=0, hold_s=2)) as upstreams:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await upstreams.klines()


async def test_a_slow_drip_is_whole_for_whoever_waits(source):
    async with replay(source, only("slow-drip", rate=0, hold_s=0.5)) as upstreams:
        began = monotonic()
        answer = await upstreams.klines()
    assert monotonic() - began > 0.4
    assert len(answer.json()) == 100


async def test_a_huge_body_goes_on_for_a_hundred_megabytes(source):
    async with replay(source, only("huge-body", rate=0)) as upstreams:
        size = 0
        async with upstreams.client.stream("GET", f"{upstreams.at['binance_url']}/api/v3/exchangeInfo") as answer:
            async for part in answer.aiter_raw():
                size += len(part)
    assert size > 100 * 2**20


async def test_a_picture_is_announced_and_control_characters_are_in_the_names(source):
    async with replay(source, only("wrong-content-type", rate=0)) as upstreams:
        assert (await upstreams.scan()).headers["content-type"] == "image/png"
    async with replay(source, only("control-characters", rate=0)) as upstreams:
        rows = (await upstreams.scan()).json()["data"]
    assert "\x1b" in rows[0]["s"]
    assert [row["s"] for row in rows[1:]] == SYMBOLS


@pytest.mark.parametrize(("name", "status"), [("unknown-column", 400), ("unknown-column-200", 200)])
async def test_one_column_becomes_unknown_and_stays_so(source, name, status):
    async with replay(source, only(name)) as upstreams:
        refused = [await upstreams.scan() for _ in range(2)]
        column = refused[0].json()["error"].split('"')[1]
        without = await upstreams.scan(columns=[item for item in COLUMNS if item != column])
    assert [answer.status_code for answer in refused] == [status, status]
    assert refused[0].json() == {"totalCount": 0, "error": f'Unknown field "{column}"', "data": None}
    assert len(without.json()["data"]) == 20


async def test_a_bad_symbol_fails_its_list_unnamed_and_can_be_found_by_halving(source):
    async with replay(source, only("bad-symbol")) as upstreams:
        assert (await upstreams.scan()).status_code == 400
        alone = {symbol: (await upstreams.scan([symbol])).status_code for symbol in SYMBOLS}
        bad = [symbol for symbol, status in alone.items() if status == 400]
        others = await upstreams.scan([symbol for symbol in SYMBOLS if symbol not in bad])
    assert bad
    assert len(others.json()["data"]) == 20 - len(bad)


async def test_rows_are_missing_null_short_reordered_or_none_and_never_shifted(source):
    async def rows(name):
        async with replay(source, only(name, rate=0) if name else None) as upstreams:
            return (await upstreams.scan()).json()["data"]

    plain = await rows(None)
    by_symbol = {row["s"]: row["d"] for row in plain}
    assert len(await rows("missing-symbol")) == 19
    assert await rows("data-null") is None
    reordered = await rows("reordered")
    assert reordered != plain
    assert sorted(reordered, key=lambda row: row["s"]) == plain
    nulls, short = await rows("nulls"), await rows("short-rows")
    assert any(None in row["d"] for row in nulls)
    assert any(len(row["d"]) < len(COLUMNS) for row in short)
    for row in nulls:
        assert all(value in (None, expected) for value, expected in zip(row["d"], by_symbol[row["s"]], strict=True))
    for row in short:
        assert row["d"] == by_symbol[row["s"]][: len(row["d"])]


async def test_min_notional_becomes_notional_on_spot(source):
    async with replay(source, only("notional")) as upstreams:
        symbols = (await upstreams.spot_info()).json()["symbols"]
    kinds = {rule["filterType"] for item in symbols for rule in item["filters"]}
    assert kinds == {"PRICE_FILTER", "LOT_SIZE", "NOTIONAL"}
    assert [rule["minNotional"] for rule in symbols[3]["filters"] if rule["filterType"] == "NOTIONAL"] == ["8"]


async def test_steps_are_empty_or_zero(source):
    async with replay(source, only("empty-numerics", rate=0)) as upstreams:
        spot = (await upstreams.spot_info()).json()["symbols"]
        linear = (await upstreams.bybit()).json()["result"]["list"]
    assert any(rule.get("tickSize") == "0.00000000" for item in spot for rule in item["filters"])
    assert any(item["priceFilter"]["tickSize"] == "" for item in linear)
    assert not all(item["priceFilter"]["tickSize"] == "" for item in linear)


async def test_bars_have_gaps_duplicates_or_odd_times_on_exchanges_and_on_the_websocket(source):
    async def opens(name):
        async with replay(source, only(name, rate=0) if name else None) as upstreams:
            http = [row[0] // 1000 for row in (await upstreams.klines()).json()]
            return http, [row[0] for row in await upstreams.rows()]

    for plain, gaps, twice, odd in zip(
        *[await opens(name) for name in (None, "gaps", "duplicates", "unaligned")], strict=True
    ):
        assert set(gaps) < set(plain)
        assert gaps[-1] == plain[-1]
        assert len(twice) > len(plain)
        assert set(twice) == set(plain)
        assert {moment % 86_400 for moment in odd} == {0, 1234}


async def test_a_forming_candle_comes_where_the_series_had_ended(source):
    ended = made_source(until=datetime(2026, 1, 3, tzinfo=UTC), stocks=20, pairs=10, days=10)
    async with replay(ended) as upstreams:
        assert len((await upstreams.klines()).json()) == len(await upstreams.rows()) == 10
    async with replay(ended, only("forming-candle", rate=0)) as upstreams:
        klines, candles, rows = await upstreams.klines(), await upstreams.candles(), await upstreams.rows()
    today = datetime(2026, 1, 10, tzinfo=UTC).timestamp()
    assert klines.json()[-1][0] == today * 1000
    assert [row[8] for row in candles.json()["data"][:2]] == ["0", "1"]
    assert rows[-1][0] == today
    assert len(rows) == 11


@pytest.mark.parametrize("name", ["nulls", "short-rows"])
async def test_rows_of_bars_are_null_or_short(source, name):
    async with replay(source, only(name, rate=0)) as upstreams:
        for rows in ((await upstreams.klines()).json(), await upstreams.rows()):
            assert len(rows) == 100
            assert any(None in row or len(row) < 6 for row in rows)


async def test_a_cursor_that_repeats_never_ends(source):
    async with replay(source, only("cursor-repeats", rate=1)) as upstreams:
        first = (await upstreams.bybit()).json()["result"]
        second = (await upstreams.bybit(f"{LINEAR}&cursor={first['nextPageCursor']}")).json()["result"]
    assert first == second


async def test_a_count_changes_between_pages(source):
    async with replay(source, only("count-changes", rate=0)) as upstreams:
        first, second = (await upstreams.scan()).json(), (await upstreams.scan()).json()
    assert (first["totalCount"], second["totalCount"]) == (19, 20)


async def test_the_websocket_fails_the_way_the_fault_says(source):
    async def meet(name, **times):
        async with replay(source, only(name, rate=0, **times)) as upstreams:
            async with asyncio.timeout(1):
                return await upstreams.series()

    assert (await meet("error-200"))[-1]["m"] == "critical_error"
    with pytest.raises(TimeoutError):
        await meet("no-bytes")
    with pytest.raises(TimeoutError):
        await meet("slow-drip")
    with pytest.raises(json.JSONDecodeError):
        await meet("truncated-json")
    with pytest.raises(BrokenFrame):
        await meet("wrong-length")
    with pytest.raises(websockets.ConnectionClosedError):
        await meet("reset")
    with pytest.raises(websockets.InvalidStatus):
        await meet("429-bare")


async def test_every_fault_of_the_matrix_is_one_of_those_shown_here(request):
    text = request.path.read_text(encoding="utf-8")
    assert [fault.name for fault in MATRIX if f'"{fault.name}"' not in text] == []


async def ask_everything(upstreams, rounds):
    """Fault names in the order in which a fixed sequence of requests met them, transport errors included."""
    for _ in range(rounds):
        for ask in (upstreams.scan, upstreams.klines, upstreams.candles, upstreams.spot_info, upstreams.bybit):
            try:
                assert (await ask()).status_code != 500  # a fault is an answer, not a failure of the replay
            except httpx.TransportError:
                continue
    log = (await upstreams.client.get(f"{upstreams.base_url}/_replay/log")).json()
    return [(entry["kind"], entry["fault"]) for entry in log]


async def test_the_same_seed_finds_the_same_faults_and_another_seed_others(source):
    async def faults(seed):
        # Pauses of no length: whether a request falls into one is a matter of time and not of the seed.
        quick = Faults(("matrix",), seed=seed, hold_s=0.02, retry_after_s=0, ban_s=0, bybit_pause_s=0)
        async with replay(source, quick, limits=False) as upstreams:
            return await ask_everything(upstreams, rounds=12)

    first = await faults(7)
    met = [name for _, name in first if name is not None]
    assert await faults(7) == first
    assert await faults(8) != first
    assert len(set(met)) > 8
    assert len(met) < len(first)


async def test_no_fault_is_met_where_none_was_asked_for(source):
    async with replay(source) as upstreams:
        assert {fault for _, fault in await ask_everything(upstreams, rounds=1)} == {None}
        assert len(await upstreams.rows()) == 100


def test_an_unknown_fault_is_refused_with_the_known_ones(source):
    with pytest.raises(ContractError, match="there is no fault 'storm'") as refused:
        create_app(source, now=NOON, faults="gaps,storm")
    assert "matrix" in str(refused.value)
    assert "451" in str(refused.value)


def test_every_fault_says_what_it_does_and_where():
    assert all(fault.says and fault.kinds for fault in BY_NAME.values())
    assert any(fault.kinds & SERIES for fault in MATRIX)
