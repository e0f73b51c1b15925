"""Planning and attempting, with sources that do as they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

import pytest

from services.fetcher import handlers
from services.fetcher.adapters.local_pace import LocalBudget
from services.fetcher.adapters.memory import FileMemory
from services.fetcher.describe import attempt_metadata
from services.fetcher.domain.attempts import Backoff
from services.fetcher.domain.faults import RateLimited, TimedOut, UnknownSymbol, Unreachable
from services.fetcher.domain.record import Described
from shared.errors import ContractError
from shared.events import Event, FetchTask, RunCandidates

T = datetime(2021, 12, 15, 8, 30, tzinfo=UTC)
SIZES = {"metadata": 100, "bars": 50}


class Descriptions:
    """Answers from a script: per symbol, the faults it meets before it comes."""

    name = "scanner"

    def __init__(self, script=None, whole=()):
        self.script = {symbol: list(faults) for symbol, faults in (script or {}).items()}
        self.whole = list(whole)
        self.asked = []

    async def describe(self, symbols):
        self.asked.append(list(symbols))
        if self.whole:
            raise self.whole.pop(0)
        return {
            symbol: self.script[symbol].pop(0)
            if self.script.get(symbol)
            else Described(symbol, {"description": symbol}, None, T, "scanner")
            for symbol in symbols
        }


class Ticking:
    def __init__(self):
        self.now = T

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def memory(tmp_path):
    return FileMemory(tmp_path)


def run(**fields):
    fields.setdefault("candidates", ["PSE:JFC"])
    return Event.of(RunCandidates(run_id="r1", **fields), source="cli", time=T)


async def plan(memory, event, **options):
    options = {"clock": lambda: T, "batch_sizes": SIZES, "default_exchange": None, **options}
    return [one.data for one in await handlers.plan_run(event, memory=memory, **options)]


def task(*symbols, kind="metadata"):
    data = FetchTask(run_id="r1", kind=kind, batch=0, batches=1, symbols=symbols, interval="1d", as_of=T)
    return Event.of(data, source="fetcher", time=T)


async def fetch(event, memory, source, *, attempts=3, budget=1000, slept=None, patience=120):
    async def sleep(seconds):
        if slept is not None:
            slept.append(seconds)

    bounds = handlers.Attempts(Backoff(attempts, 0.5, 30, patience), Ticking(), Random(7), LocalBudget(budget), sleep)
    metadata = partial(attempt_metadata, descriptions=source, limits={}, memory=memory)
    published = await handlers.fetch(event, memory=memory, attempts=bounds, metadata=metadata, bars=metadata)
    return [one.data for one in published], [one.id for one in published]


def by_stream(published, stream):
    return [one for one in published if one.stream == stream]


# -- planning


async def test_a_run_becomes_batches_of_metadata_and_then_of_bars(memory):
    tasks = await plan(memory, run(candidates=[f"PSE:S{i}" for i in range(272)]))
    assert [(one.kind, one.batch, len(one.symbols)) for one in tasks] == [
        ("metadata", 0, 100), ("metadata", 1, 100), ("metadata", 2, 72),
        ("bars", 0, 50), ("bars", 1, 50), ("bars", 2, 50), ("bars", 3, 50), ("bars", 4, 50), ("bars", 5, 22),
    ]  # fmt: skip
    assert {one.batches for one in tasks if one.kind == "bars"} == {6}
    assert all(one.as_of == T for one in tasks)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"bars": "lakehouse"}, {"metadata"}),
        ({"stages": ["metadata"]}, {"metadata"}),
        ({"stages": ["bars", "ratings"]}, {"bars"}),
        ({"stages": ["ratings"]}, set()),
        ({"stages": ["bars"], "bars": "lakehouse"}, set()),
    ],
)
async def test_only_the_stages_of_the_run_are_planned(memory, fields, kinds):
    assert {one.kind for one in await plan(memory, run(**fields))} == kinds


async def test_malformed_candidates_stop_no_other(memory):
    tasks = await plan(memory, run(candidates=["PSE:JFC", 7, {"x": 1}, "JFC", {"symbol": "PSE:BDO"}]))
    assert tasks[0].symbols == ("PSE:JFC", "PSE:BDO")


async def test_a_bare_ticker_takes_the_default_exchange(memory):
    assert (await plan(memory, run(candidates=["JFC"]), default_exchange="PSE"))[0].symbols == ("PSE:JFC",)


@pytest.mark.parametrize("candidates", [None, [], {}, "PSE:JFC"])
async def test_a_run_without_candidates_is_refused_and_points_to_refresh(memory, candidates):
    with pytest.raises(ContractError) as met:
        await plan(memory, run(candidates=candidates))
    assert "asof refresh" in str(met.value)


async def test_the_same_run_again_is_the_same_tasks_whatever_the_time(memory):
    first = await plan(memory, run())
    later = Event.of(run().data, source="cli", time=T + timedelta(days=1))
    assert await plan(memory, later) == first


async def test_the_same_run_id_with_other_content_is_refused(memory):
    await plan(memory, run())
    with pytest.raises(ContractError) as met:
        await plan(memory, run(candidates=["PSE:BDO"]))
    assert "other content" in str(met.value)
    assert await plan(memory, run())


# -- attempting


async def test_only_what_failed_and_may_come_is_tried_again(memory):
    source = Descriptions({"PSE:B": [TimedOut("silent", host="h")], "PSE:C": [UnknownSymbol("unknown", host="h")]})
    published, _ = await fetch(task("PSE:A", "PSE:B", "PSE:C"), memory, source)
    assert source.asked == [["PSE:A", "PSE:B", "PSE:C"], ["PSE:B"]]
    outcomes = {one.symbol: one for one in by_stream(published, "symbol-metadata")}
    assert outcomes["PSE:A"].record == {"exchange": "PSE", "description": "PSE:A"}
    assert outcomes["PSE:B"].failure is None
    assert outcomes["PSE:C"].failure.code == "unknown_symbol"
    assert outcomes["PSE:C"].failure.host == "h"


async def test_every_attempt_is_reported_with_the_exact_error(memory):
    source = Descriptions({"PSE:B": [TimedOut("silent for 10 s", host="h"), RateLimited("429", host="h", status=429)]})
    published, _ = await fetch(task("PSE:A", "PSE:B"), memory, source)
    attempts = by_stream(published, "fetch-attempted")
    assert [(one.idx, one.fetched, one.failed) for one in attempts] == [(1, 1, 1), (2, 0, 1), (3, 1, 0)]
    assert attempts[0].failures["PSE:B"].message == "silent for 10 s"
    assert attempts[1].failures["PSE:B"].status == 429
    assert all(one.duration_s > 0 for one in attempts)


async def test_attempts_are_bounded_and_the_last_error_is_the_outcome(memory):
    source = Descriptions({"PSE:A": [TimedOut(f"silent {n}", host="h") for n in range(9)]})
    slept = []
    published, _ = await fetch(task("PSE:A"), memory, source, slept=slept)
    assert len(source.asked) == 3
    (outcome,) = by_stream(published, "symbol-metadata")
    assert (outcome.failure.message, outcome.failure.attempts) == ("silent 2", 3)
    assert outcome.failure.retryable
    assert len(slept) == 2
    assert 0 <= slept[0] <= 0.5
    assert 0 <= slept[1] <= 1.0


async def test_the_next_command_is_the_faults_own_and_then_to_fetch_again_where_that_may_help(memory):
    refused = [Unreachable("refused", host="h", fix="asof doctor") for _ in range(3)]
    silent = [TimedOut("silent", host="h") for _ in range(3)]
    source = Descriptions({"PSE:A": refused, "PSE:B": silent, "PSE:C": [UnknownSymbol("unknown", host="h")]})
    published, _ = await fetch(task("PSE:A", "PSE:B", "PSE:C"), memory, source)
    fixes = {one.symbol: one.failure.fix for one in by_stream(published, "symbol-metadata")}
    assert fixes == {"PSE:A": "asof doctor, then asof retry r1", "PSE:B": "asof retry r1", "PSE:C": None}


async def test_a_fault_of_the_whole_request_is_every_symbols(memory):
    source = Descriptions(whole=[TimedOut("silent", host="h")])
    published, _ = await fetch(task("PSE:A", "PSE:B"), memory, source)
    assert source.asked == [["PSE:A", "PSE:B"]] * 2
    assert all(one.failure is None for one in by_stream(published, "symbol-metadata"))


async def test_a_pause_beyond_patience_ends_the_attempts(memory):
    source = Descriptions({"PSE:A": [RateLimited("banned", host="h", retry_after=600)]})
    published, _ = await fetch(task("PSE:A"), memory, source, patience=60)
    assert len(source.asked) == 1
    assert by_stream(published, "symbol-metadata")[0].failure.retryable


async def test_a_spent_budget_ends_the_attempts_with_the_symbols_own_error(memory):
    source = Descriptions({f"PSE:{n}": [TimedOut("silent", host="h")] for n in "ABC"})
    published, _ = await fetch(task("PSE:A", "PSE:B", "PSE:C"), memory, source, budget=2)
    assert len(source.asked) == 1
    assert {one.failure.code for one in by_stream(published, "symbol-metadata")} == {"timeout"}


async def test_every_symbol_has_exactly_one_outcome(memory):
    symbols = [f"PSE:S{i}" for i in range(40)]
    script = {symbol: [TimedOut("x")] * (index % 5) for index, symbol in enumerate(symbols)}
    published, _ = await fetch(task(*symbols), memory, Descriptions(script))
    assert sorted(one.symbol for one in by_stream(published, "symbol-metadata")) == sorted(symbols)
    attempts = by_stream(published, "fetch-attempted")
    assert sum(one.fetched for one in attempts) + attempts[-1].failed == 40


# -- delivered again


async def test_a_batch_that_is_delivered_again_asks_nothing_and_says_the_same(memory):
    script = {"PSE:B": [UnknownSymbol("unknown", host="h")]}
    _, first = await fetch(task("PSE:A", "PSE:B"), memory, Descriptions(script))
    again = Descriptions()
    _, second = await fetch(task("PSE:A", "PSE:B"), memory, again)
    assert again.asked == []
    assert second == first


async def test_a_batch_of_a_killed_fetcher_is_taken_over_where_it_stood(memory, tmp_path):
    class Killed(BaseException):
        pass

    class Dying(Descriptions):
        async def describe(self, symbols):
            if self.asked:
                raise Killed
            return await super().describe(symbols)

    with pytest.raises(Killed):
        await fetch(task("PSE:A", "PSE:B"), memory, Dying({"PSE:B": [TimedOut("x")]}))
    other = Descriptions()
    published, _ = await fetch(task("PSE:A", "PSE:B"), FileMemory(tmp_path), other)
    assert other.asked == [["PSE:B"]]
    assert [one.idx for one in by_stream(published, "fetch-attempted")] == [1, 2]
    assert len(by_stream(published, "symbol-metadata")) == 2


async def test_a_line_that_a_kill_cut_off_counts_as_not_written(memory, tmp_path):
    await fetch(task("PSE:A", "PSE:B"), memory, Descriptions())
    (journal,) = (tmp_path / "r1").glob("metadata-*.jsonl")
    lines = journal.read_bytes().split()
    journal.write_bytes(lines[0] + b"\n" + lines[1][:20])
    other = Descriptions()
    await fetch(task("PSE:A", "PSE:B"), memory, other)
    assert other.asked == [["PSE:B"]]
    third = Descriptions()
    await fetch(task("PSE:A", "PSE:B"), memory, third)
    assert third.asked == [], "the cut line swallowed the one written after it"


async def test_exchanges_are_published_where_they_are_known(memory):
    published, _ = await fetch(task("PSE:A", "XYZ:B"), memory, Descriptions())
    (exchange,) = by_stream(published, "exchange-metadata")
    assert exchange.records[0]["timezone"] == "Asia/Manila"
    assert exchange.observed_at == T
