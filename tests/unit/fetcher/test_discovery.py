"""Discovery and metadata audits: commands in, candidates files and snapshots out."""

from __future__ import annotations

import json
from functools import partial

import pandas as pd
import pytest

from services.fetcher import commands
from services.fetcher.adapters.documents import CachedDocuments
from services.fetcher.adapters.presets import read_presets
from services.fetcher.adapters.pse import PseRules
from services.fetcher.adapters.scanner import Scanner
from services.fetcher.domain.discovery import read_discovery
from services.fetcher.domain.faults import TimedOut
from shared.candidates import parse_candidates
from shared.errors import ContractError
from shared.events import Command, Event
from shared.paths import Home
from tests.unit.fetcher import upstreams as up


class Screener:
    """A scanner with `count` symbols of one exchange, which pages, and can lose or repeat rows while it is read."""

    def __init__(self, count, *, exchange="BINANCE", bad=(), total=None, stuck=False):
        self.count, self.exchange, self.bad, self.total, self.stuck = count, exchange, bad, total, stuck
        self.asked = []

    def __call__(self, request):
        body = json.loads(request.content)
        self.asked.append(body)
        first, stop = (0, 1000) if self.stuck else body["range"]
        names = [f"{self.exchange}:S{index}" for index in range(self.count)][first:stop]
        rows = [{"s": name, "d": [self.cell(name, column) for column in body["columns"]]} for name in names]
        return up.json_response({"totalCount": self.total or self.count, "data": rows})

    def cell(self, name, column):
        if name in self.bad and column == "description":
            return "evil\x00"
        return {"description": name, "close": 2.5, "Recommend.All": 0.5, "type": "spot"}.get(column)


class Failing:
    name, exchanges = "okx", ("OKX",)

    async def limits(self, described):
        return dict.fromkeys(described, TimedOut("silent", host="okx"))


@pytest.fixture
def ask(tmp_path):
    home = Home.at(tmp_path)

    async def carry_out(screener, kind="discover", **arguments):
        scanner, documents = Scanner(up.upstream(screener), "global"), CachedDocuments(home)
        acts = {
            "discover": partial(
                commands.discover,
                universe=scanner,
                limits={"PSE": PseRules(), "OKX": Failing()},
                documents=documents,
                presets=read_presets(),
                clock=lambda: up.NOW,
            ),
            "audit-metadata": partial(
                commands.audit_metadata,
                descriptions=scanner,
                limits={"PSE": PseRules()},
                documents=documents,
                batch_size=50,
            ),
        }
        command = Command(command_id="c1", kind=kind, arguments=arguments, requested_by="ana")
        event = Event.of(command, source="cli", time=up.NOW)
        published = await commands.carry_out(event, acts=acts, clock=lambda: up.NOW)
        return [one.data for one in published]

    carry_out.home = home
    return carry_out


async def test_a_discovery_writes_candidates_with_the_screeners_values(ask):
    (result,) = await ask(Screener(70), exchange="BINANCE", type="spot", top=50)
    assert result.outcome == "done"
    written = json.loads(ask.home.resolve(result.references["path"]).read_text())
    parsed = parse_candidates(written)
    assert len(parsed.items) == 50
    assert parsed.items[0].metadata["Recommend.All"] == 0.5
    assert parsed.items[0].observed_at == up.NOW


async def test_filters_and_sort_travel_as_the_scanner_writes_them(ask):
    screener = Screener(3)
    await ask(
        screener, market="crypto", exchange="BINANCE", type="spot", min_volume=1000, sort="close", order="asc", top=2
    )
    assert screener.asked[0]["filter"] == [
        {"left": "exchange", "operation": "equal", "right": "BINANCE"},
        {"left": "type", "operation": "equal", "right": "spot"},
        {"left": "volume", "operation": "egreater", "right": 1000},
    ]
    assert screener.asked[0]["sort"] == {"sortBy": "close", "sortOrder": "asc"}
    assert screener.asked[0]["range"] == [0, 2]


async def test_two_thousand_symbols_are_paged_and_each_comes_once(ask):
    screener = Screener(2345)
    snapshot, result = await ask(screener, exchange="BINANCE")
    assert len(screener.asked) == 3
    assert result.references["symbols"] == 2345
    assert snapshot.exchange == "BINANCE"
    records = pd.read_parquet(ask.home.resolve(snapshot.records.path))
    assert records["symbol"].nunique() == len(records) == snapshot.records.rows == 2345


async def test_a_snapshot_carries_the_limits_of_its_venue(ask):
    snapshot, _ = await ask(Screener(5, exchange="PSE"), exchange="PSE")
    records = pd.read_parquet(ask.home.resolve(snapshot.records.path))
    assert set(records["tick_size"]) == {0.01}
    assert set(records["lot_size"]) == {1000}


async def test_a_venue_that_fails_keeps_a_snapshot_without_limits_from_being_made(ask):
    (result,) = await ask(Screener(5, exchange="OKX"), exchange="OKX")
    assert result.outcome == "failed"
    assert "silent" in result.message


async def test_a_cursor_that_repeats_ends_the_paging_and_hands_no_snapshot_over(ask):
    screener = Screener(2345, stuck=True)
    (result,) = await ask(screener, exchange="BINANCE")
    assert len(screener.asked) == 2
    assert result.references["symbols"] == 1000


@pytest.mark.parametrize("narrowed", [{"top": 10}, {"type": "spot"}, {"min_volume": 1}])
async def test_a_part_of_an_exchange_is_never_a_snapshot(ask, narrowed):
    assert len(await ask(Screener(20), exchange="BINANCE", **narrowed)) == 1


async def test_a_row_that_is_refused_keeps_the_rest_from_being_a_snapshot(ask):
    (result,) = await ask(Screener(20, bad={"BINANCE:S7"}), exchange="BINANCE")
    assert result.references["symbols"] == 19


async def test_nothing_found_is_said_and_not_written(ask):
    (result,) = await ask(Screener(0), exchange="BINANCE")
    assert result.outcome == "refused"
    assert "widen the filters" in result.message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"preset": "nope"}, "no preset"),
        ({"exchange": "../etc"}, "exchange"),
        ({"market": "http://evil"}, "market"),
        ({"top": 0}, "top"),
        ({"colour": "red"}, "colour"),
        ({"sort": "volume; drop"}, "sort"),
    ],
)
def test_what_cannot_be_discovered_is_refused_by_name(arguments, reason):
    with pytest.raises(ContractError) as met:
        read_discovery(arguments, read_presets())
    assert reason in str(met.value)


def test_every_preset_is_readable_and_what_is_given_beside_it_goes_before():
    for name in read_presets():
        assert read_discovery({"preset": name, "top": 7, "country": None}, read_presets()).top == 7


async def test_an_audit_describes_the_named_symbols_and_names_the_rest(ask):
    def answer(request):
        return up.json_response({"totalCount": 0, "data": []})

    (result,) = await ask(answer, kind="audit-metadata", symbols=["PSE:JFC", "PSE:JFC"])
    content = json.loads(ask.home.resolve(result.references["path"]).read_text())
    assert content["failures"]["PSE:JFC"]["code"] == "unknown_symbol"
    assert result.message == "0 symbols described, 1 failed"


async def test_an_upstream_that_fails_gives_a_failed_result_and_no_exception(ask):
    (result,) = await ask(lambda request: up.json_response({}, 451), exchange="BINANCE")
    assert result.outcome == "failed"
    assert result.references["code"] == "region_blocked"


@pytest.mark.parametrize("kind", ["waive", "refresh", "rollback"])
async def test_commands_of_other_services_are_left_to_them(ask, kind):
    assert await ask(Screener(1), kind=kind) == []


ORDER = {
    "metadata": ["PSE:A"],
    "bars": ["PSE:A", "PSE:B"],
    "round": 1,
    "interval": "1d",
    "as_of": "2021-12-15T08:30:00Z",
}


async def order(arguments, *, source="auditor"):
    acts = {"retry": partial(commands.retry, batch_sizes={"metadata": 300, "bars": 50}, clock=lambda: up.NOW)}
    command = Command(command_id="c1-order", kind="retry", run_id="r1", arguments=arguments, requested_by="auditor")
    event = Event.of(command, source=source, time=up.NOW)
    return [one.data for one in await commands.carry_out(event, acts=acts, clock=lambda: up.NOW)]


async def test_the_auditors_order_fetches_again_only_what_it_names():
    metadata, bars, result = await order(ORDER)
    assert (metadata.kind, metadata.symbols) == ("metadata", ("PSE:A",))
    assert (bars.kind, bars.symbols) == ("bars", ("PSE:A", "PSE:B"))
    assert result.outcome == "done"


async def test_a_round_shares_no_batch_with_the_run_or_another_round():
    first, second = await order(ORDER), await order({**ORDER, "round": 2})
    batches = {(one.kind, one.batch) for one in [*first[:2], *second[:2]]}
    assert len(batches) == 4
    assert min(batch for _, batch in batches) >= 10_000


async def test_a_persons_retry_is_left_to_the_auditor():
    assert await order(ORDER, source="cli") == []


@pytest.mark.parametrize("broken", [{}, {**ORDER, "round": 0}, {**ORDER, "bars": ["../etc"]}, {**ORDER, "extra": 1}])
async def test_an_order_that_cannot_be_read_is_refused(broken):
    (result,) = await order(broken)
    assert result.outcome == "refused"
