"""The fault matrix against the replay: every symbol ends fetched or named, nothing shifted, no pause broken."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from asof.upstream.faults.catalogue import HOSTILE, MATRIX
from asof.upstream.faults.plan import Faults
from asof.upstream.made import made_source
from services.fetcher.domain.pace import PACES
from tests.integration.fetcher_fleet import NOW, PROMPT, carry_out, fleet, redis_server, replaying

TICKS = ("0.1", "0.01", "0.001", "0.0001")
LOTS = ("0.001", "0.01", "0.1", "1")


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture
async def redis_port(server):
    async with Redis(host="127.0.0.1", port=server.port) as client:
        await client.flushall()
    return server.port


def universe(stocks, pairs):
    venues = [(venue, kind) for venue in ("BINANCE", "OKX", "BYBIT") for kind in ("", ".P")]
    coins = [f"{venue}:C{number:04}USDT{kind}" for venue, kind in venues for number in range(pairs)]
    return [*(f"MADE:S{number:04}" for number in range(stocks)), *coins]


def check_outcomes(published, symbols):
    """Every symbol exactly once in each kind of work, fetched or with its exact error."""
    metadata = {one.symbol: one for one in published["symbol-metadata"]}
    assert len(published["symbol-metadata"]) == len(metadata)
    assert metadata.keys() == set(symbols)
    hydrated = [bars.symbol for one in published["bars-hydrated"] for bars in one.hydrated]
    failed = [symbol for one in published["bars-hydrated"] for symbol in one.failures]
    assert sorted([*hydrated, *failed]) == sorted(symbols)
    failures = [one.failure for one in metadata.values() if one.failure is not None]
    failures += [failure for one in published["bars-hydrated"] for failure in one.failures.values()]
    for failure in failures:
        assert failure.message
        assert failure.host
    return metadata, set(hydrated), failures


def check_nothing_shifted(metadata):
    """What came is this symbol's own: every made-up value says whose it is, or is unknown."""
    for symbol, one in metadata.items():
        if one.record is None:
            continue
        exchange, _, ticker = symbol.partition(":")
        number = int(ticker[1:5])
        record = one.record
        assert record["exchange"] == exchange
        if exchange == "MADE":
            assert record.get("description") in (None, f"Made-up company number {number}")
            assert record.get("sector") in (None, f"Sector {number % 11}")
            assert record.get("industry") in (None, f"Industry {number % 37}")
            assert record.get("currency") in (None, "USD")
            assert record.get("tick_size") in (None, pytest.approx((number % 4 + 1) / 100))
        else:
            assert record.get("tick_size") in (None, float(TICKS[number % 4]))
            assert record.get("lot_size") in (None, float(LOTS[number // 4 % 4]))
            assert record.get("quote") in (None, "USDT")


def check_politeness(stats):
    for venue, sums in stats.items():
        assert sums["contacted_while_paused"] == 0, venue
        assert sums["limit_crossed"] == 0, venue


async def test_without_faults_everything_comes(tmp_path, redis_port):
    symbols = universe(20, 6)
    async with (
        replaying(made_source(until=NOW, stocks=20, pairs=6)) as (replay, base),
        fleet(base, redis_port, tmp_path) as members,
    ):
        published = await carry_out(members, symbols)
    metadata, hydrated, failures = check_outcomes(published, symbols)
    assert failures == []
    assert len(hydrated) == len(symbols)
    check_nothing_shifted(metadata)
    check_politeness(replay.record.stats())
    assert metadata["BINANCE:C0001USDT"].record["tick_size"] == 0.01
    assert metadata["BINANCE:C0001USDT"].sources["tick_size"].startswith("binance")
    assert metadata["OKX:C0001USDT.P"].record["contract_size"] == 0.01


FAULTS = [fault.name for fault in (*MATRIX, *HOSTILE)]


@dataclass(frozen=True)
class Met:
    """What came of a run that met one fault, and what the replay saw of it."""

    published: dict
    stats: dict
    seconds: float


@pytest.fixture(scope="module")
def met(server, tmp_path_factory):
    """Every fault alone, each with its own replay and Redis database; they mostly wait, so they do it together."""
    symbols = universe(12, 3)
    source = made_source(until=NOW, stocks=12, pairs=3)

    async def one(number, name, turns):
        # The first request of a venue meets the fault, whichever it is, and few others do: with a higher rate some
        # symbol would meet it three times in a row when it happens to be the first, and then it is lost rightly.
        faults = Faults((name,), seed=1, rate=0.02, retry_after_s=1, ban_s=0.8, bybit_pause_s=2, hold_s=3)
        async with (
            turns,
            replaying(source, faults=faults) as (replay, base),
            fleet(base, server.port, tmp_path_factory.mktemp(name), db=number + 1) as members,
        ):
            began = time.monotonic()
            published = await carry_out(members, symbols)
            return Met(published, replay.record.stats(), time.monotonic() - began)

    async def every():
        turns = asyncio.Semaphore(8)
        return await asyncio.gather(*(one(number, name, turns) for number, name in enumerate(FAULTS)))

    return dict(zip(FAULTS, asyncio.run(every()), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_leaves_every_symbol_fetched_or_named(met, fault):
    one = met[fault]
    metadata, _, _ = check_outcomes(one.published, universe(12, 3))
    check_nothing_shifted(metadata)
    check_politeness(one.stats)
    if fault == "notional":  # a lasting change of format, which the replay does not count as an event
        assert metadata["BINANCE:C0001USDT"].record["min_notional"] == 6
    else:
        assert sum(sums["faults"].get(fault, 0) for sums in one.stats.values()) > 0, "it did not happen"
    assert one.seconds < 60


# Faults that pass, or that only change how an answer is written, must not cost a single symbol.
HARMLESS = ["notional", "unknown-column", "unknown-column-200", "reordered", "duplicates", "gaps", "forming-candle"]
PASSING = [
    "429-retry-after",
    "418-ban",
    "truncated-json",
    "wrong-length",
    "reset",
    "502-page",
    "short-rows",
    "data-null",
]


@pytest.mark.parametrize("fault", [*HARMLESS, *PASSING])
def test_what_passes_costs_no_symbol(met, fault):
    _, _, failures = check_outcomes(met[fault].published, universe(12, 3))
    # Bybit answers what was already on its way when it closed with a 403, which means ten minutes.
    assert {(failure.code, failure.status) for failure in failures} <= {("banned", 403), ("host_paused", None)}
    assert {failure.host for failure in failures if failure.code == "host_paused"} <= {"bybit"}


@pytest.mark.parametrize("fault", ["gaps", "duplicates", "unaligned"])
def test_odd_bars_are_reported(met, fault):
    said = [text for one in met[fault].published["bars-hydrated"] for bars in one.hydrated for text in bars.warnings]
    assert any(text.startswith(f"{fault}: ") for text in said)


@pytest.mark.parametrize(
    ("fault", "code"),
    [("451", "region_blocked"), ("redirect", "untrusted_answer"), ("huge-body", "untrusted_answer")],
)
def test_a_final_no_is_asked_once_and_named(met, fault, code):
    failures = [one.failure for one in met[fault].published["symbol-metadata"] if one.failure is not None]
    assert code in {failure.code for failure in failures}
    assert all(failure.attempts == 1 for failure in failures if failure.code == code)


async def storm(tmp_path, port, *, stocks, pairs, seed, replicas, paces):
    symbols = universe(stocks, pairs)
    faults = Faults(("matrix",), seed=seed, rate=0.3, retry_after_s=1, ban_s=1, bybit_pause_s=2, hold_s=3)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with (
        replaying(made_source(until=NOW, stocks=stocks, pairs=pairs), faults=faults) as (replay, base),
        fleet(base, port, tmp_path, replicas=replicas, patience_s=12, paces=paces) as members,
    ):
        published = await carry_out(members, symbols)
    metadata, hydrated, failures = check_outcomes(published, symbols)
    check_nothing_shifted(metadata)
    check_politeness(replay.record.stats())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"seed {seed}: {len(symbols)} symbols, {len(hydrated)} with bars, {len(failures)} failures "
        f"{Counter(failure.code for failure in failures)}, {time.monotonic() - began:.0f} s, +{grown:.0f} MB"
    )
    assert grown < 500
    return metadata, hydrated


async def test_the_whole_matrix_at_once_leaves_every_symbol_fetched_or_named(tmp_path, redis_port):
    await storm(tmp_path, redis_port, stocks=40, pairs=4, seed=7, replicas=2, paces=PROMPT)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_two_thousand_symbols_through_the_whole_matrix(tmp_path, redis_port, seed):
    await storm(tmp_path, redis_port, stocks=1400, pairs=100, seed=seed, replicas=4, paces=PACES)


async def test_four_replicas_provoke_no_push_back_from_published_limits(tmp_path, redis_port):
    symbols = universe(100, 16)
    async with (
        replaying(made_source(until=NOW, stocks=100, pairs=16)) as (replay, base),
        fleet(base, redis_port, tmp_path, replicas=4, paces=PACES, bars_batch=10) as members,
    ):
        published = await carry_out(members, symbols)
    _, _, failures = check_outcomes(published, symbols)
    assert failures == []
    check_politeness(replay.record.stats())


async def test_limits_halved_without_notice_are_adapted_to(tmp_path, redis_port):
    symbols = [symbol for symbol in universe(0, 12) if symbol.startswith("OKX")]
    async with (
        replaying(made_source(until=NOW, pairs=12)) as (replay, base),
        fleet(base, redis_port, tmp_path, replicas=2, paces=PACES, patience_s=20, bars_batch=10) as members,
    ):
        replay.meters["okx"].factor = 0.5
        published = await carry_out(members, symbols)
    _, hydrated, failures = check_outcomes(published, symbols)
    assert failures == []
    assert len(hydrated) == 24
    refused = replay.record.stats()["okx"]["limit_crossed"]
    assert refused <= 12, "the fleet goes on asking as fast as before"
