"""Recorded payloads of real exchanges, read as they came, against two independent statements of the same facts."""

from __future__ import annotations

import csv
from collections import Counter
from decimal import Decimal as D

import pytest

from services.fetcher.adapters import binance, bybit, okx
from services.fetcher.adapters.http import parse_json
from services.fetcher.adapters.venue import kline
from services.fetcher.domain.faults import Garbled
from services.fetcher.domain.series import make_rows
from tests.fixtures_dir import FIXTURES, needs_fixtures

pytestmark = needs_fixtures


def load(name):
    raw = (FIXTURES / name).read_bytes()
    if name.endswith(".txt"):  # three lines about the request, then the body
        raw = raw.split(b"\n", 3)[3]
    return parse_json(raw, host="recorded", status=200, headers={"content-type": "application/json"})


def binance_spot(name="binance/spot_exchangeInfo_20211012.json"):
    return binance.read_spot(load(name), "h")


def binance_usdm(name="binance/usdm_exchangeInfo_20210721.json"):
    return binance.read_usdm(load(name), "h")


def okx_list(market, name=None):
    return okx.read_instruments(load(name or f"okx/instruments_{market}_20220513.json")["data"], market, "h")


def bybit_list(market, name=None):
    payload = load(name or f"bybit/v5_instruments-info_{market}_20260809.json")
    return bybit.read_instruments(payload["result"]["list"], market, "h")


EVERY_LIST = {
    "binance spot": (binance_spot, 1695),
    "binance usdm": (binance_usdm, 119),
    "okx spot": (lambda: okx_list("SPOT"), 513),
    "okx swap": (lambda: okx_list("SWAP"), 166),
    "bybit spot": (lambda: bybit_list("spot"), 278),
    "bybit linear": (lambda: bybit_list("linear"), 376),
}


@pytest.mark.parametrize("name", EVERY_LIST)
def test_every_instrument_is_read_with_steps_above_zero(name):
    read, count = EVERY_LIST[name]
    instruments = read()
    assert len(instruments) == count
    assert len({one.ticker for one in instruments}) == count
    for one in instruments:
        assert (one.limits.tick_size or 0) > 0, one
        assert (one.limits.lot_size or 0) > 0, one
        assert one.limits.base
        assert one.limits.quote


def test_what_did_not_trade_is_inactive_with_limits():
    active = Counter(one.limits.active for one in binance_spot())
    assert active == {True: 1262, False: 433}


def test_the_present_shape_of_filters_is_read_as_the_old_one():
    (now,) = binance_spot("binance/spot_exchangeInfo_BTCUSDT_20250823_NOTIONAL.json")
    then = next(one for one in binance_spot() if one.ticker == "BTCUSDT")
    assert now.limits.tick_size == then.limits.tick_size == D("0.01")
    assert (then.limits.min_notional, now.limits.min_notional) == (D(10), D(5))


@pytest.mark.parametrize(
    ("read", "tickers"),
    [
        (lambda: binance_spot("binance/nautilus_exchange_info_response.json"), None),
        (lambda: binance_spot("binance/jkorf_Spot_ExchangeData_GetExchangeInfo.txt"), None),
        (lambda: binance_usdm("binance/nautilus_http_futures_market_exchange_info.json"), None),
        (lambda: binance_usdm("binance/jkorf_UsdFutures_ExchangeData_GetExchangeInfo.txt"), None),
        (lambda: okx_list("SPOT", "okx/nautilus_http_get_instruments_spot.json"), None),
        (lambda: okx_list("SWAP", "okx/nautilus_http_get_instruments_swap.json"), {"BTCUSD.P", "ETHUSDT.P"}),
        (lambda: bybit_list("spot", "bybit/nautilus_http_get_instruments_spot.json"), None),
        (lambda: bybit_list("linear", "bybit/nautilus_http_get_instruments_linear.json"), None),
        (lambda: bybit_list("inverse", "bybit/nautilus_http_get_instruments_inverse.json"), {"BTCUSD.P"}),
    ],
)
def test_samples_of_other_clients_are_read(read, tickers):
    found = {one.ticker for one in read()}
    assert found
    assert tickers is None or tickers <= found


def test_a_dead_payload_shape_is_refused_and_not_half_read():
    with pytest.raises(Garbled):
        bybit.read_instruments(load("bybit/v2_public_symbols_2021_LEGACY.json").get("list"), "spot", "h")


def test_a_swaps_contract_is_value_times_multiplier():
    sizes = {one.ticker: one.limits.contract_size for one in okx_list("SWAP")}
    assert sizes["BTCUSDT.P"] == D("0.01")
    assert sizes["BTCUSD.P"] == D(100)
    assert all(one.limits.contract_size is None for one in okx_list("SPOT"))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (
            "binance/nautilus_http_spot_market_klines.json",
            [1634943780.0, 60685.22, 60729.84, 60670.9, 60719.27, 21.63272],
        ),
        ("binance/jkorf_Spot_ExchangeData_GetKlines.txt", None),
        ("binance/jkorf_UsdFutures_ExchangeData_GetKlines.txt", None),
    ],
)
def test_recorded_klines_are_read(name, first):
    rows = make_rows([kline(item, "h") for item in load(name)])
    assert rows.shape[1] == 6
    assert first is None or rows[0].tolist() == first


# -- two oracles. A payload and the database were recorded at different times, so a step may have changed between them:
# what must hold is that enough agree, and that those which do not differ as a venue changes a step.


def lean(market, kind):
    with (FIXTURES / "lean/symbol-properties-database.crypto.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["market_ticker"]: row for row in rows if row["market"] == market and row["type"] == kind}


def compare(instruments, oracle):
    """Shares of the common instruments whose tick and lot agree with the oracle's, and every disagreement."""
    common = [(one, oracle[one.native]) for one in instruments if one.native in oracle]
    odd = [
        (one.native, field, ours, D(row[column]))
        for one, row in common
        for field, ours, column in (
            ("tick", one.limits.tick_size, "minimum_price_variation"),
            ("lot", one.limits.lot_size, "lot_size"),
        )
        if ours != D(row[column])
    ]
    return len(common), odd


@pytest.mark.parametrize(
    ("read", "market", "kind", "common", "agree"),
    [
        (lambda: bybit_list("linear"), "bybit", "cryptofuture", 180, 0.65),
        (lambda: bybit_list("spot"), "bybit", "crypto", 270, 0.60),
        (binance_spot, "binance", "crypto", 1600, 0.85),
        (binance_usdm, "binance", "cryptofuture", 110, 0.74),
    ],
)
def test_limits_agree_with_the_database_of_another_project(read, market, kind, common, agree):
    count, odd = compare(read(), lean(market, kind))
    assert count >= common
    share = 1 - len(odd) / (2 * count)
    print(f"{market} {kind}: {count} common, {share:.1%} of steps agree; first disagreements: {odd[:5]}")
    assert share >= agree
    for native, field, ours, theirs in odd:
        ratio = (ours / theirs).normalize()
        assert ratio.as_tuple().digits in {(1,), (2,), (5,), (2, 5)}, (native, field, ours, theirs)


def ccxt_markets(exchange, *payloads):
    import ccxt

    client = getattr(ccxt, exchange)()
    client.options |= {"crossMarginPairsData": [], "isolatedMarginPairsData": []}  # else fetched from the exchange
    return {market["id"]: market for payload in payloads for market in client.parse_markets(payload)}


@pytest.mark.parametrize(
    ("exchange", "payload", "read"),
    [
        ("binance", lambda: load("binance/spot_exchangeInfo_20211012.json")["symbols"], binance_spot),
        ("binance", lambda: load("binance/usdm_exchangeInfo_20210721.json")["symbols"], binance_usdm),
        ("okx", lambda: load("okx/instruments_SPOT_20220513.json")["data"], lambda: okx_list("SPOT")),
        ("okx", lambda: load("okx/instruments_SWAP_20220513.json")["data"], lambda: okx_list("SWAP")),
    ],
)
def test_the_same_payload_says_the_same_to_another_library(exchange, payload, read):
    theirs = ccxt_markets(exchange, payload())
    compared = 0
    for one in read():
        market = theirs.get(one.native)
        if market is None:
            continue
        compared += 1
        assert float(one.limits.tick_size) == pytest.approx(market["precision"]["price"], rel=1e-12), one.native
        assert float(one.limits.lot_size) == pytest.approx(market["precision"]["amount"], rel=1e-12), one.native
        assert (one.limits.base, one.limits.quote) == (market["baseId"], market["quoteId"]), one.native
        if one.limits.contract_size is not None:
            assert float(one.limits.contract_size) == pytest.approx(market["contractSize"], rel=1e-12), one.native
    assert compared >= 100
