"""What metadata costs an upstream: requests, by what the replay saw."""

from __future__ import annotations

import pytest

from asof.upstream.made import made_source
from tests.integration.fetcher_fleet import NOW, carry_out, fleet, redis_server, replaying


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.mark.parametrize(("count", "most"), [(50, 2), (1130, 30)])
async def test_metadata_of_many_symbols_takes_few_requests(server, tmp_path, count, most):
    symbols = [f"MADE:S{number:04}" for number in range(count)]
    async with (
        replaying(made_source(until=NOW, stocks=count, days=2), latency_s=0.2) as (replay, base),
        fleet(base, server.port, tmp_path, db=count % 16) as members,
    ):
        published = await carry_out(members, symbols, stages=["metadata"])
        asked = replay.record.stats()["scanner"]["requests"]
    assert {one.symbol for one in published["symbol-metadata"] if one.failure is None} == set(symbols)
    assert 0 < asked <= most


async def test_the_same_run_again_and_a_run_over_instruments_that_are_known_ask_for_no_list(server, tmp_path):
    symbols = ["BINANCE:C0000USDT", "BINANCE:C0001USDT.P", "OKX:C0000USDT", "BYBIT:C0002USDT.P"]
    async with (
        replaying(made_source(until=NOW, pairs=3, days=2)) as (replay, base),
        fleet(base, server.port, tmp_path, replicas=2, db=20) as members,
    ):
        seen = []
        for member, run_id in ((members[0], "r1"), (members[0], "r1"), (members[1], "r2")):
            await carry_out([member], symbols, run_id=run_id, stages=["metadata"])
            seen.append({venue: sums["requests"] for venue, sums in replay.record.stats().items()})
    first, again, other = seen
    assert {"binance", "binance-usdm", "okx", "bybit"} <= first.keys()
    assert again == first
    assert other == {**first, "scanner": first["scanner"] + 1}
