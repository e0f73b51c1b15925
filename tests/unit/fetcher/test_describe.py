"""One attempt at metadata: what the scanner says, what venues state, and what both say differently."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import structlog

from services.fetcher.describe import attempt_metadata
from services.fetcher.domain.faults import ServerFault, TimedOut, UnknownSymbol
from services.fetcher.domain.record import Described, Limits
from shared.events import FetchTask

NOW = datetime(2021, 12, 15, 8, tzinfo=UTC)
STRUCTURE = {"description": "Bitcoin", "pricescale": 100, "minmov": 1, "currency": "USDT", "quote": "USDT"}


class Scanner:
    name = "scanner"

    def __init__(self, answers):
        self.answers = answers

    async def describe(self, symbols):
        if isinstance(self.answers, Exception):
            raise self.answers
        return {symbol: self.answers.get(symbol, UnknownSymbol("nobody knows it")) for symbol in symbols}


class Venue:
    def __init__(self, name, stated):
        self.name = name
        self.stated = stated
        self.asked = []

    async def limits(self, described):
        self.asked.append(set(described))
        if isinstance(self.stated, Exception):
            raise self.stated
        return dict.fromkeys(described, self.stated)


class Memory:
    def __init__(self):
        self.noted = {}

    def note(self, task, *outcomes):
        self.noted |= {outcome.symbol: outcome for outcome in outcomes}


def described(symbol):
    return Described(symbol, STRUCTURE, Decimal(100), NOW, "scanner")


async def attempt(scanner, venues, *symbols):
    task = FetchTask(run_id="r1", kind="metadata", batch=0, batches=1, symbols=symbols, interval="1d", as_of=NOW)
    memory = Memory()
    faults = await attempt_metadata(task, symbols, descriptions=scanner, limits=venues, memory=memory)
    return memory.noted, faults


async def test_a_disagreement_between_scanner_and_exchange_is_in_the_record_and_in_the_log():
    venue = Venue("binance", Limits("binance", tick_size=Decimal("0.05"), quote="USDC"))
    symbol = "BINANCE:BTCUSDT"
    with structlog.testing.capture_logs() as log:
        noted, _ = await attempt(Scanner({symbol: described(symbol)}), {"BINANCE": venue}, symbol)
    assert noted[symbol].record["tick_size"] == 0.05
    assert noted[symbol].sources["tick_size"] == "binance (scanner: 0.01)"
    assert noted[symbol].sources["quote"] == "binance (scanner: USDT)"
    (said,) = [entry for entry in log if entry["event"] == "sources_disagree"]
    assert (said["symbol"], said["run_id"]) == (symbol, "r1")
    assert "0.05" in said["tick_size"]
    assert "0.01" in said["tick_size"]


async def test_where_both_say_the_same_nothing_is_reported():
    symbol = "BINANCE:BTCUSDT"
    venue = Venue("binance", Limits("binance", tick_size=Decimal("0.010"), quote="USDT"))
    with structlog.testing.capture_logs() as log:
        noted, _ = await attempt(Scanner({symbol: described(symbol)}), {"BINANCE": venue}, symbol)
    assert log == []
    assert noted[symbol].sources["tick_size"] == "binance"


async def test_limits_out_of_an_old_list_say_their_age_in_the_record():
    symbol = "OKX:BTCUSDT"
    venue = Venue("okx", Limits("okx", tick_size=Decimal("0.01"), stale_s=5400))
    noted, faults = await attempt(Scanner({symbol: described(symbol)}), {"OKX": venue}, symbol)
    assert faults == {}
    assert noted[symbol].sources["tick_size"] == "okx, cached 5400 s ago"


async def test_a_venue_is_asked_once_for_all_its_symbols_and_one_that_fails_costs_only_its_own():
    symbols = ("BINANCE:A", "BINANCE:B", "OKX:A", "PSE:JFC")
    binance, okx = Venue("binance", Limits("binance")), Venue("okx", TimedOut("silent"))
    scanner = Scanner({symbol: described(symbol) for symbol in symbols})
    noted, faults = await attempt(scanner, {"BINANCE": binance, "OKX": okx}, *symbols)
    assert binance.asked == [{"BINANCE:A", "BINANCE:B"}]
    assert noted.keys() == {"BINANCE:A", "BINANCE:B", "PSE:JFC"}
    assert faults.keys() == {"OKX:A"}
    assert isinstance(faults["OKX:A"], TimedOut)


async def test_a_scanner_that_fails_is_every_symbols_fault_and_no_venue_is_asked():
    venue = Venue("binance", Limits("binance"))
    noted, faults = await attempt(Scanner(ServerFault("502")), {"BINANCE": venue}, "BINANCE:A", "BINANCE:B")
    assert (noted, faults.keys(), venue.asked) == ({}, {"BINANCE:A", "BINANCE:B"}, [])
