"""The scanner connector: one request for many symbols, nothing shifted, every fault named."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from services.fetcher.adapters.scanner import COLUMNS, Scanner
from services.fetcher.domain.faults import (
    BadRequest,
    Garbled,
    RateLimited,
    ServerFault,
    UnknownSymbol,
    Untrusted,
)
from tests.unit.fetcher import upstreams as up

JFC = {
    "description": "JOLLIBEE FOODS CORP",
    "type": "stock",
    "sector": "Services",
    "currency": "PHP",
    "pricescale": 100,
    "minmov": 1,
    "fractional": "false",
    "close": 215.4,
}


def answering(universe, *, unknown=(), log=None):
    """A scanner that knows `universe` (symbol -> values by column) and refuses the columns in `unknown`."""

    def answer(request):
        body = json.loads(request.content)
        if log is not None:
            log.append(body)
        for column in body["columns"]:
            if column in unknown:
                return up.json_response({"totalCount": 0, "error": f'Unknown field "{column}"', "data": None}, 400)
        rows = [
            {"s": symbol, "d": [universe[symbol].get(column) for column in body["columns"]]}
            for symbol in reversed(body["symbols"]["tickers"])
            if symbol in universe
        ]
        return up.json_response({"totalCount": len(rows), "data": rows}, **up.REPLAY)

    return answer


def scanner(answer):
    return Scanner(up.upstream(answer), "global")


async def test_one_request_describes_many_symbols_whatever_their_order():
    log = []
    universe = {f"PSE:S{i}": {**JFC, "description": f"company {i}"} for i in range(50)}
    found = await scanner(answering(universe, log=log)).describe(list(universe))
    assert len(log) == 1
    assert log[0]["range"] == [0, 50]
    assert [found[f"PSE:S{i}"].fields["description"] for i in range(50)] == [f"company {i}" for i in range(50)]


async def test_fields_are_typed_and_the_last_price_is_exact():
    found = (await scanner(answering({"PSE:JFC": JFC})).describe(["PSE:JFC"]))["PSE:JFC"]
    assert found.last_price == Decimal("215.4")
    assert found.fields["fractional"] is False
    assert found.fields["pricescale"] == 100
    assert found.fields["industry"] is None
    assert "quote" not in found.fields


async def test_a_loopback_replay_tells_when_it_observed():
    found = (await scanner(answering({"PSE:JFC": JFC})).describe(["PSE:JFC"]))["PSE:JFC"]
    assert found.observed_at.isoformat() == "2021-12-15T08:30:00+00:00"


@pytest.mark.parametrize("base", ["https://scanner.tradingview.com", "http://127.0.0.1.evil.com", "http://10.0.0.1"])
async def test_no_other_host_can_set_our_clock(base):
    source = Scanner(up.upstream(answering({"PSE:JFC": JFC}), base=base), "global")
    assert (await source.describe(["PSE:JFC"]))["PSE:JFC"].observed_at == up.NOW


async def test_a_symbol_that_is_missing_is_unknown_for_good():
    found = await scanner(answering({"PSE:JFC": JFC})).describe(["PSE:NOPE", "PSE:JFC"])
    assert isinstance(found["PSE:NOPE"], UnknownSymbol)
    assert found["PSE:NOPE"].retryable is False
    assert found["PSE:JFC"].fields["currency"] == "PHP"


async def test_a_short_row_costs_its_symbol_and_no_other():
    def answer(request):
        full = [JFC.get(column) for column in COLUMNS]
        return up.json_response({"totalCount": 2, "data": [{"s": "PSE:A", "d": full[:-1]}, {"s": "PSE:B", "d": full}]})

    found = await scanner(answer).describe(["PSE:A", "PSE:B"])
    assert isinstance(found["PSE:A"], Garbled)
    assert found["PSE:B"].fields["description"] == "JOLLIBEE FOODS CORP"


@pytest.mark.parametrize("status", [400, 200])
async def test_an_unknown_column_is_dropped_and_asked_again_without_it(status):
    log = []

    def answer(request):
        body = json.loads(request.content)
        log.append(body["columns"])
        if "subtype" in body["columns"]:
            return up.json_response({"totalCount": 0, "error": 'Unknown field "subtype"', "data": None}, status)
        return answering({"PSE:JFC": JFC})(request)

    found = await scanner(answer).describe(["PSE:JFC"])
    assert [len(columns) for columns in log] == [len(COLUMNS), len(COLUMNS) - 1]
    assert found["PSE:JFC"].fields["subtype"] is None
    assert found["PSE:JFC"].fields["sector"] == "Services"


async def test_a_column_that_was_dropped_is_not_asked_for_again_until_an_hour_later():
    log, unknown = [], {"subtype"}
    hour = iter((8, 8, 8, 9, 9))

    def answer(request):
        said = answering({"PSE:JFC": JFC}, unknown=unknown, log=log)(request)
        said.headers.update({**up.REPLAY, "Date": f"Wed, 15 Dec 2021 {next(hour):02}:30:00 GMT"})
        return said

    asking = Scanner(up.upstream(answer), "global")
    for _ in range(2):
        await asking.describe(["PSE:JFC"])
    unknown.clear()
    for _ in range(2):
        await asking.describe(["PSE:JFC"])
    assert ["subtype" in body["columns"] for body in log] == [True, False, False, False, True]


async def test_one_symbol_that_fails_the_whole_list_is_found_and_named():
    def answer(request):
        tickers = json.loads(request.content)["symbols"]["tickers"]
        if "PSE:BAD" in tickers:
            return up.json_response({"totalCount": 0, "error": "Invalid request", "data": None}, 400)
        return answering({f"PSE:S{i}": JFC for i in range(7)})(request)

    found = await scanner(answer).describe([*(f"PSE:S{i}" for i in range(4)), "PSE:BAD", "PSE:S4"])
    assert isinstance(found["PSE:BAD"], BadRequest)
    assert "Invalid request" in found["PSE:BAD"].what
    assert sum(not isinstance(one, Exception) for one in found.values()) == 5


async def test_no_data_and_no_error_is_not_taken_for_unknown_symbols():
    with pytest.raises(Garbled):
        await scanner(lambda request: up.json_response({"totalCount": 0, "data": None})).describe(["PSE:JFC"])


async def test_an_error_with_status_200_is_the_scanners_own_trouble_and_no_symbols():
    log = []

    def answer(request):
        log.append(request)
        return up.json_response({"totalCount": 0, "error": "Internal error", "data": None})

    with pytest.raises(ServerFault):
        await scanner(answer).describe(["PSE:A", "PSE:B"])
    assert len(log) == 1


async def test_too_many_requests_carries_the_wait():
    def answer(request):
        return up.json_response({}, 429, **{"Retry-After": "7"})

    with pytest.raises(RateLimited) as met:
        await scanner(answer).describe(["PSE:JFC"])
    assert met.value.retry_after == 7


@pytest.mark.parametrize(
    ("column", "value"),
    [("description", "Joll\x00ibee"), ("sector", "a\x1b[31m"), ("description", "x" * 5000), ("type", ["stock"]),
     ("pricescale", 1.5), ("fractional", "maybe")],
)  # fmt: skip
async def test_text_that_no_terminal_should_print_is_refused_by_symbol(column, value):
    universe = {"PSE:A": {**JFC, column: value}, "PSE:B": JFC}
    found = await scanner(answering(universe)).describe(["PSE:A", "PSE:B"])
    assert isinstance(found["PSE:A"], Untrusted)
    assert found["PSE:A"].symbol == "PSE:A"
    assert not isinstance(found["PSE:B"], Exception)
