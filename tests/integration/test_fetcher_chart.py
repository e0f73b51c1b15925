"""Bars over a real websocket, from a server that behaves, and from servers that do not."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

import pytest
import structlog
from websockets.asyncio.server import serve

from services.fetcher import handlers
from services.fetcher.adapters.bar_store import LakehouseBars
from services.fetcher.adapters.frames import call, frame, read_frames
from services.fetcher.adapters.local_pace import LocalBudget, LocalPace
from services.fetcher.adapters.memory import FileMemory
from services.fetcher.adapters.scanner_ws import ANONYMOUS, ScannerBars, SocketCaps
from services.fetcher.domain.attempts import Backoff
from services.fetcher.domain.faults import (
    BadRequest,
    Garbled,
    NoBars,
    RateLimited,
    ServerFault,
    TimedOut,
    UnknownSymbol,
    Unreachable,
    Unsupported,
    Untrusted,
    failure_of,
)
from services.fetcher.hydrate import BarsFrom, attempt_bars
from services.fetcher.ports import BarsSent, BarsWanted
from services.fetcher.settings import Settings
from shared.bars import BarsTable
from shared.events import Event, FetchTask
from shared.paths import Home

NOW = datetime(2021, 12, 15, 8, 30, tzinfo=UTC)
REPLAY = {"X-Asof-Replay": "1", "Date": "Wed, 15 Dec 2021 08:30:00 GMT"}
CAPS = SocketCaps(open_s=10, silence_s=10, series_s=15, message_bytes=2**18, bars=5000, history=5000)
HASTY = {"silence_s": 1, "series_s": 3}  # where time itself is the fault
SECRET = "eyJhbGciOiJSUzUxMiJ9.c2VjcmV0.c2lnbmF0dXJl"
OUR_CLOCK = datetime(2026, 1, 1, tzinfo=UTC)


def opens(count, last=datetime(2021, 12, 15, 1, 30, tzinfo=UTC)):
    return [int((last - timedelta(days=age)).timestamp()) for age in reversed(range(count))]


class Chart:
    """A chart server. `bars`: symbol -> rows; `misbehave`: symbol -> what is done instead of answering."""

    def __init__(self, bars, misbehave=None):
        self.bars = bars
        self.misbehave = misbehave or {}
        self.most = 10_000  # bars in one answer
        self.created = []
        self.tokens = []
        self.connections = self.open = self.most_open = self.heartbeats = self.at_once = 0

    async def __call__(self, socket):
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await socket.send(frame(json.dumps({"session_id": "x"})))
            names = {}
            async for message in socket:
                for payload in read_frames(message):
                    if payload.startswith("~h~"):
                        self.heartbeats += 1
                        continue
                    asked = json.loads(payload)
                    method, params = asked["m"], asked["p"]
                    if method == "set_auth_token":
                        self.tokens.append(params[0])
                    if method == "resolve_symbol":
                        names[params[1]] = json.loads(params[2][1:])["symbol"]
                        await self.resolve(socket, params, names[params[1]])
                    elif method == "request_more_data":
                        await self.more(socket, params)
                    elif method == "create_series":
                        await self.series(socket, params, names[params[3]])
        finally:
            self.open -= 1

    async def resolve(self, socket, params, symbol):
        if symbol not in self.bars and symbol not in self.misbehave:
            await socket.send(call("symbol_error", params[0], params[1], "invalid symbol"))
        else:
            told = {"timezone": "Asia/Manila", "session": "0930-1530"}
            await socket.send(call("symbol_resolved", params[0], params[1], told))

    async def more(self, socket, params):
        chart, series, count = params
        symbol, sent = self.sent
        older = [{"i": i, "v": list(row)} for i, row in enumerate(self.bars[symbol][:-sent][-count:])]
        self.sent = (symbol, sent + len(older))
        self.created.append((symbol, "more"))
        await socket.send(
            call("timescale_update", chart, {series: {"s": older}})
            + call("series_completed", chart, series, "streaming", "s1")
        )

    async def series(self, socket, params, symbol):
        chart, series, turn, _, _, count = params[:6]
        self.created.append((symbol, count))
        if symbol in self.misbehave and await self.misbehave[symbol](socket, chart, series, turn):
            return
        if symbol not in self.bars:
            return
        count = min(count, self.most)
        self.sent = (symbol, count)
        rows = [{"i": i, "v": list(row)} for i, row in enumerate(self.bars[symbol][-count:])]
        half = len(rows) // 2
        # A heartbeat between two updates, and the second half in one message with the end of the series.
        await socket.send(call("timescale_update", chart, {series: {"s": rows[:half]}}) + frame("~h~1"))
        await socket.send(
            call("timescale_update", chart, {series: {"s": rows[half:]}})
            + call("series_completed", chart, series, "streaming", turn)
        )


@asynccontextmanager
async def serving(chart, *, headers=REPLAY, refuse=None):
    def stamp(connection, request, response):
        for name, value in headers.items():
            if name in response.headers:
                del response.headers[name]
            response.headers[name] = value
        return response

    def admit(connection, request):
        return refuse(connection) if refuse else None

    async with serve(chart, "127.0.0.1", 0, process_request=admit, process_response=stamp, max_size=2**22) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/chart"


def source(url, **caps):
    options = {name: getattr(CAPS, name) for name in CAPS.__slots__} | caps
    return ScannerBars(url, LocalPace(), lambda: OUR_CLOCK, SocketCaps(**options), origin=None)


def row(start, close=4.0):
    return (start, 3.0, 5.0, 2.0, close, 100.0)


async def fetch(url, *symbols, workers=1, since=None, interval="1d", **caps):
    got = {}

    async def sink(symbol, outcome):
        assert symbol not in got
        got[symbol] = outcome

    wanted = [BarsWanted(symbol, interval, since, NOW) for symbol in symbols]
    await asyncio.wait_for(source(url, **caps).fetch(wanted, sink, workers=workers), 20)
    assert got.keys() == set(symbols)
    return got


def universe(count, days=20):
    return {f"PSE:S{i}": [row(start, close=1.0 + i) for start in opens(days)] for i in range(count)}


async def test_a_series_is_whole_and_heartbeats_are_answered():
    chart = Chart(universe(1, days=30))
    async with serving(chart) as url:
        sent = (await fetch(url, "PSE:S0"))["PSE:S0"]
    assert sent.rows[:, 0].tolist() == opens(30)
    assert (sent.timezone, sent.session) == ("Asia/Manila", "0930-1530")
    assert sent.observed_at == NOW
    assert chart.heartbeats >= 1


async def test_series_follow_one_another_on_few_connections_and_never_mix():
    chart = Chart(universe(40))
    async with serving(chart) as url:
        got = await fetch(url, *chart.bars, workers=4)
    assert chart.connections == chart.most_open == 4
    for index in range(40):
        assert set(got[f"PSE:S{index}"].rows[:, 4]) == {1.0 + index}


async def test_never_more_connections_than_are_allowed():
    chart = Chart(universe(40))
    async with serving(chart) as url:
        await fetch(url, *chart.bars, workers=30, connections=5)
    assert chart.most_open <= 5


async def test_only_what_is_newer_than_the_stored_bars_and_an_overlap_is_asked_for():
    chart = Chart(universe(1, days=400))
    async with serving(chart) as url:
        await fetch(url, "PSE:S0", since=datetime(2021, 12, 10, tzinfo=UTC))
    assert chart.created == [("PSE:S0", 16)]


async def test_bars_that_one_answer_does_not_hold_are_asked_for_until_none_is_older():
    chart = Chart(universe(1, days=11_000))
    chart.most = 5000
    async with serving(chart) as url:
        sent = (await fetch(url, "PSE:S0", bars=20_000, history=20_000, message_bytes=2**21, series_s=10))["PSE:S0"]
    assert sent.rows[:, 0].tolist() == opens(11_000)
    assert chart.created == [("PSE:S0", 20_000), ("PSE:S0", "more"), ("PSE:S0", "more")]


async def test_the_clock_of_an_upstream_that_is_no_replay_is_not_ours():
    async with serving(Chart(universe(1)), headers={"Date": REPLAY["Date"]}) as url:
        assert (await fetch(url, "PSE:S0"))["PSE:S0"].observed_at == OUR_CLOCK


async def test_what_the_chart_does_not_know_is_named_and_its_neighbours_come():
    chart = Chart({**universe(2), "PSE:EMPTY": []})
    async with serving(chart) as url:
        got = await fetch(url, "PSE:NOPE", "PSE:S0", "PSE:EMPTY", "PSE:S1")
    assert isinstance(got["PSE:NOPE"], UnknownSymbol)
    assert isinstance(got["PSE:EMPTY"], NoBars)
    assert got["PSE:EMPTY"].host.startswith("127.0.0.1:")
    assert isinstance(got["PSE:S1"], BarsSent)
    assert chart.connections == 1


async def silent(socket, chart, series, turn):
    return True


async def never_completed(socket, chart, series, turn):
    await socket.send(call("timescale_update", chart, {series: {"s": [{"i": 0, "v": list(row(opens(1)[0]))}]}}))
    return True


async def dripping(socket, chart, series, turn):
    for _ in range(200):
        await socket.send(frame("~h~1"))
        await asyncio.sleep(0.05)
    return True


async def cut_off(socket, chart, series, turn):
    await socket.close()
    return True


async def broken_frame(socket, chart, series, turn):
    await socket.send('~m~500~m~{"m":"timescale_update"')
    return True


async def broken_json(socket, chart, series, turn):
    await socket.send(frame('{"m":"timescale_update","p":['))
    return True


async def huge(socket, chart, series, turn):
    await socket.send(frame("x" * 2**19))
    return True


async def series_error(socket, chart, series, turn):
    await socket.send(call("series_error", chart, series, turn, "resolve error"))
    return True


async def critical(socket, chart, series, turn):
    await socket.send(call("critical_error", chart, "internal"))
    return True


async def too_many_bars(socket, chart, series, turn):
    bars = [{"i": i, "v": [i + 1, 1, 1, 1, 1, 1]} for i in range(3000)]
    for _ in range(3):
        await socket.send(call("timescale_update", chart, {series: {"s": bars}}))
    return True


async def short_rows(socket, chart, series, turn):
    await socket.send(call("timescale_update", chart, {series: {"s": [{"i": 0, "v": [1, 2, 3]}]}}))
    await socket.send(call("series_completed", chart, series, "streaming", turn))
    return True


async def other_series(socket, chart, series, turn):
    """Somebody else's bars and end arrive first; they are not ours."""
    await socket.send(
        call("timescale_update", chart, {"sds_999": {"s": [{"i": 0, "v": list(row(opens(1)[0], 99.0))}]}})
    )
    await socket.send(call("series_completed", chart, "sds_999", "streaming", turn))
    return False


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (silent, TimedOut),
        (never_completed, TimedOut),
        (dripping, TimedOut),
        (cut_off, Unreachable),
        (broken_frame, Garbled),
        (broken_json, Garbled),
        (huge, Unreachable),
        (series_error, BadRequest),
        (critical, ServerFault),
        (too_many_bars, Untrusted),
        (short_rows, Garbled),
    ],
)
async def test_a_fault_costs_its_symbol_alone_and_is_bounded(behaviour, expected):
    chart = Chart(universe(3), {"PSE:BAD": behaviour})
    caps = HASTY if expected is TimedOut else {}
    began = time.monotonic()
    async with serving(chart) as url:
        got = await fetch(url, "PSE:S0", "PSE:BAD", "PSE:S1", "PSE:S2", **caps)
    assert isinstance(got["PSE:BAD"], expected)
    assert got["PSE:BAD"].host
    assert [isinstance(got[f"PSE:S{i}"], BarsSent) for i in range(3)] == [True] * 3
    assert time.monotonic() - began < 9, "the drip of ten seconds was not waited for"


async def quoting(socket, chart, series, turn):
    """What a careless server says of a session it does not like."""
    await socket.send(call("critical_error", chart, "bad_session", f"token {SECRET} has expired"))
    return True


async def test_a_session_token_is_read_from_its_file_and_told_to_the_chart_and_to_nobody_else(tmp_path, caplog):
    (tmp_path / "token").write_text(f"{SECRET}\n")
    settings = Settings(ws_token_file=tmp_path / "token")
    chart = Chart(universe(1), {"PSE:BAD": quoting})
    got = {}

    async def sink(symbol, outcome):
        got[symbol] = outcome

    with structlog.testing.capture_logs() as log:
        async with serving(chart) as url:
            bars = ScannerBars(url, LocalPace(), lambda: OUR_CLOCK, CAPS, origin=None, token=settings.ws_token())
            await bars.fetch([BarsWanted(symbol, "1d", None, NOW) for symbol in ("PSE:S0", "PSE:BAD")], sink, workers=1)
    assert chart.tokens == [SECRET]
    failure = failure_of(got["PSE:BAD"], attempts=1).model_dump_json()
    assert "token … has expired" in failure
    assert SECRET not in f"{failure} {got['PSE:BAD']!r} {log} {caplog.text} {settings!r}"


async def test_without_a_token_nobody_in_particular_asks():
    chart = Chart(universe(1))
    async with serving(chart) as url:
        await fetch(url, "PSE:S0")
    assert chart.tokens == [ANONYMOUS]


async def test_bars_of_another_series_are_not_taken_for_ours():
    chart = Chart({"PSE:S0": [row(start) for start in opens(5)]}, {"PSE:S0": other_series})
    async with serving(chart) as url:
        got = await fetch(url, "PSE:S0")
    assert set(got["PSE:S0"].rows[:, 4]) == {4.0}


@pytest.mark.parametrize(("status", "expected"), [(429, RateLimited), (502, ServerFault), (302, Untrusted)])
async def test_a_handshake_that_is_refused_is_every_symbols_fault(status, expected):
    def refuse(connection):
        response = connection.respond(status, "no\n")
        response.headers["Location"] = "ws://127.0.0.1:1/elsewhere"
        return response

    chart = Chart(universe(2))
    async with serving(chart, refuse=refuse) as url:
        got = await fetch(url, "PSE:S0", "PSE:S1")
    assert all(isinstance(one, expected) for one in got.values())
    assert chart.connections == 0


async def test_nobody_at_home_is_said_at_once():
    got = await fetch("ws://127.0.0.1:9/chart", "PSE:S0", "PSE:S1", workers=2)
    assert all(isinstance(one, Unreachable) for one in got.values())


async def test_an_interval_it_does_not_serve_is_named():
    async with serving(Chart(universe(1))) as url:
        got = await fetch(url, "PSE:S0", interval="7m")
    assert isinstance(got["PSE:S0"], Unsupported)


# -- into the lakehouse


class Calendar:
    def sessions(self, calendar, first, last):
        return None


async def hydrate(url, home, *symbols, run_id="r1", as_of=NOW, attempts=2, **caps):
    memory = FileMemory(home.state / "fetcher")
    bars = partial(
        attempt_bars,
        sources=BarsFrom({}, source(url, **caps)),
        store=LakehouseBars(home),
        calendars=Calendar(),
        memory=memory,
        workers=2,
    )
    task = FetchTask(run_id=run_id, kind="bars", batch=0, batches=1, symbols=symbols, interval="1d", as_of=as_of)
    bounds = handlers.Attempts(Backoff(attempts, 0.01, 0.01), lambda: OUR_CLOCK, Random(1), LocalBudget())
    published = await handlers.fetch(
        Event.of(task, source="fetcher", time=NOW), memory=memory, attempts=bounds, metadata=bars, bars=bars
    )
    return published[-1].data


async def test_bars_are_stored_at_midnight_utc_of_their_trading_date_and_named_by_version(tmp_path):
    home = Home.at(tmp_path)
    async with serving(Chart(universe(3))) as url:
        hydrated = await hydrate(url, home, "PSE:S0", "PSE:S1", "PSE:S2", "PSE:NOPE")
    assert [one.symbol for one in hydrated.hydrated] == ["PSE:S0", "PSE:S1", "PSE:S2"]
    assert hydrated.failures["PSE:NOPE"].code == "unknown_symbol"
    one = hydrated.hydrated[0]
    stored = BarsTable.open(home.resolve(one.path)).read(one.table_version)
    assert (len(stored), one.rows, one.added) == (20, 20, 20)
    assert stored.index[-1].to_pydatetime() == one.last_bar == datetime(2021, 12, 15, tzinfo=UTC)
    assert (one.timezone, one.session, one.calendar) == ("Asia/Manila", "0930-1530", "XPHS")


async def test_a_run_as_of_an_earlier_instant_sees_no_later_bar(tmp_path):
    async with serving(Chart(universe(1))) as url:
        hydrated = await hydrate(url, Home.at(tmp_path), "PSE:S0", as_of=datetime(2021, 12, 13, 7, 29, tzinfo=UTC))
    assert hydrated.hydrated[0].last_bar == datetime(2021, 12, 12, tzinfo=UTC)


async def test_nothing_final_by_the_instant_of_the_run_is_no_bars(tmp_path):
    async with serving(Chart(universe(1))) as url:
        hydrated = await hydrate(url, Home.at(tmp_path), "PSE:S0", as_of=datetime(2020, 1, 1, tzinfo=UTC))
    assert hydrated.failures["PSE:S0"].code == "no_bars"


async def test_a_second_run_writes_only_what_is_new(tmp_path):
    home = Home.at(tmp_path)
    chart = Chart(universe(1))
    async with serving(chart) as url:
        first = (await hydrate(url, home, "PSE:S0", as_of=NOW - timedelta(days=3))).hydrated[0]
        second = (await hydrate(url, home, "PSE:S0", run_id="r2")).hydrated[0]
        third = (await hydrate(url, home, "PSE:S0", run_id="r3")).hydrated[0]
    assert (first.rows, second.rows, second.added, second.revised) == (17, 20, 3, 0)
    assert (third.table_version, third.sha256, third.added) == (second.table_version, second.sha256, 0)
    assert [count for _, count in chart.created][1] < 20


async def test_a_revision_is_found_and_the_whole_history_taken_anew(tmp_path):
    home = Home.at(tmp_path)
    chart = Chart(universe(1, days=60))
    async with serving(chart) as url:
        first = (await hydrate(url, home, "PSE:S0", as_of=NOW - timedelta(days=2))).hydrated[0]
        # A two-for-one split: every price the upstream ever stated is now half of it.
        chart.bars["PSE:S0"] = [(start, 1.5, 2.5, 1.0, 0.5, 200.0) for start in opens(60)]
        second = (await hydrate(url, home, "PSE:S0", run_id="r2")).hydrated[0]
    stored = BarsTable.open(home.resolve(second.path)).read(second.table_version)
    assert set(stored["close"]) == {0.5}
    assert second.revised > 0
    old = BarsTable.open(home.resolve(first.path)).read(first.table_version)
    assert set(old["close"]) == {1.0}


async def test_a_history_that_cannot_be_had_whole_is_not_mixed_with_the_old_one(tmp_path):
    home = Home.at(tmp_path)
    chart = Chart(universe(1, days=60))

    async def whole_history_fails(socket, chart_name, series, turn):
        return chart.created[-1][1] > 1000

    async with serving(chart) as url:
        await hydrate(url, home, "PSE:S0", as_of=NOW - timedelta(days=2))
        chart.bars["PSE:S0"] = [(start, 1.5, 2.5, 1.0, 0.5, 200.0) for start in opens(60)]
        chart.misbehave["PSE:S0"] = whole_history_fails
        failed = await hydrate(url, home, "PSE:S0", run_id="r2", **HASTY)
    assert failed.failures["PSE:S0"].code == "timeout"
    assert set(BarsTable.open(home.bars_table("1d", "PSE:S0")).read()["close"]) == {1.0}


async def test_a_run_that_ends_before_the_newest_stored_bar_uses_what_is_stored(tmp_path):
    home = Home.at(tmp_path)
    async with serving(Chart(universe(1))) as url:
        newest = (await hydrate(url, home, "PSE:S0")).hydrated[0]
        earlier = (await hydrate(url, home, "PSE:S0", run_id="r2", as_of=NOW - timedelta(days=9))).hydrated[0]
    assert (earlier.table_version, earlier.added, earlier.revised) == (newest.table_version, 0, 0)


async def test_stored_bars_stay_usable_when_the_upstream_has_none_any_more(tmp_path):
    home = Home.at(tmp_path)
    chart = Chart(universe(1))
    async with serving(chart) as url:
        first = (await hydrate(url, home, "PSE:S0")).hydrated[0]
        chart.bars["PSE:S0"] = []
        second = (await hydrate(url, home, "PSE:S0", run_id="r2")).hydrated[0]
    assert second.table_version == first.table_version
    assert second.warnings[0].startswith("nothing new: ")


async def test_two_runs_on_one_symbol_at_once_do_not_disturb_each_other(tmp_path):
    home = Home.at(tmp_path)
    async with serving(Chart(universe(6))) as url:
        symbols = [f"PSE:S{number}" for number in range(6)]
        both = await asyncio.gather(*(hydrate(url, home, *symbols, run_id=run) for run in ("r1", "r2")))
    for hydrated in both:
        assert len(hydrated.hydrated) == 6
        for one in hydrated.hydrated:
            assert len(BarsTable.open(home.resolve(one.path)).read(one.table_version)) == 20


async def test_finished_symbols_are_not_fetched_again_after_a_kill(tmp_path):
    home = Home.at(tmp_path)

    reached = asyncio.Event()

    async def hang(socket, chart, series, turn):
        reached.set()
        return True

    chart = Chart(universe(3), {"PSE:LAST": hang})
    async with serving(chart) as url:
        killed = asyncio.create_task(hydrate(url, home, "PSE:S0", "PSE:S1", "PSE:S2", "PSE:LAST"))
        await reached.wait()
        await asyncio.sleep(0.2)
        killed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killed
        chart.created.clear()
        chart.misbehave.clear()
        chart.bars["PSE:LAST"] = [row(start) for start in opens(20)]
        hydrated = await hydrate(url, home, "PSE:S0", "PSE:S1", "PSE:S2", "PSE:LAST")
    assert [symbol for symbol, _ in chart.created] == ["PSE:LAST"]
    assert len(hydrated.hydrated) == 4
