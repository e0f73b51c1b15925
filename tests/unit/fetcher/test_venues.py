"""The exchange connectors under the conformance suite, each with a server that writes as the venue does."""

from __future__ import annotations

import json

from services.fetcher.adapters import binance, bybit, okx
from services.fetcher.conformance import Listing, VenueConformance, answer, daily_opens

URL = "http://127.0.0.1:9"


def reply(data, status=200):
    return answer(json.dumps(data).encode(), status)


def milliseconds(bars):
    return [int(one.timestamp() * 1000) for one in daily_opens(bars)]


class TestBinance(VenueConformance):
    exchange = "BINANCE"

    def connect(self, wiring):
        return binance.connect(wiring, f"{URL}/spot", f"{URL}/usdm")

    def is_bars(self, request):
        return request.url.path.endswith("/klines")

    def too_many_requests(self):
        return reply({"code": "-1003", "msg": "Too many requests."}, 400)

    def server(self, spot, perpetual, bars):
        def listed(one):
            symbol = one.ticker.removesuffix(".P")
            return {
                "symbol": symbol,
                "status": "TRADING" if one.trading else "BREAK",
                "contractType": "PERPETUAL",
                "baseAsset": symbol.removesuffix("USDT"),
                "quoteAsset": "USDT",
                "filters": [
                    {"filterType": "NOTIONAL", "minNotional": one.min_notional},
                    {"filterType": "LOT_SIZE", "stepSize": one.lot},
                    {"filterType": "PRICE_FILTER", "tickSize": one.tick},
                ],
            }

        def serve(request):
            if not self.is_bars(request):
                return reply({"symbols": [listed(one) for one in (perpetual if "usdm" in request.url.path else spot)]})
            query = request.url.params
            opens = [ms for ms in milliseconds(bars) if ms >= int(query["startTime"])][: int(query["limit"])]
            return reply([[ms, "1", "2", "0.5", "1.5", "10", ms + 1, "15", 1, "5", "7", "0"] for ms in opens])

        return serve


class TestOkx(VenueConformance):
    exchange = "OKX"
    states_min_notional = False

    def connect(self, wiring):
        return okx.connect(wiring, URL)

    def is_bars(self, request):
        return request.url.path.endswith("/history-candles")

    def too_many_requests(self):
        return reply({"code": "50011", "msg": "Too Many Requests"})

    def server(self, spot, perpetual, bars):
        def listed(one, market):
            base = one.ticker.removesuffix(".P").removesuffix("USDT")
            return {
                "instId": f"{base}-USDT" + ("-SWAP" if market == "SWAP" else ""),
                "instType": market,
                "tickSz": one.tick,
                "lotSz": one.lot,
                "ctVal": "0.01" if market == "SWAP" else "",
                "ctMult": "1" if market == "SWAP" else "",
                "state": "live" if one.trading else "suspend",
            }

        def serve(request):
            query = request.url.params
            if not self.is_bars(request):
                market = query["instType"]
                listings = spot if market == "SPOT" else perpetual
                return reply({"code": "0", "data": [listed(one, market) for one in listings]})
            assert query["bar"] == "1Dutc"
            opens = [ms for ms in reversed(milliseconds(bars)) if ms < int(query["after"])][: int(query["limit"])]
            newest = milliseconds(bars)[-1:]
            rows = [[str(ms), "1", "2", "0.5", "1.5", "10", "10", "15", "0" if [ms] == newest else "1"] for ms in opens]
            return reply({"code": "0", "msg": "", "data": rows})

        return serve

    async def test_a_candle_that_is_not_confirmed_is_dropped_whatever_the_time(self, tmp_path):
        sent = (await self._bars(self.server([Listing("BTCUSDT")], [], 5), tmp_path, "BTCUSDT"))["OKX:BTCUSDT"]
        assert len(sent.rows) == 4

    async def test_a_swaps_contract_is_value_times_multiplier(self, tmp_path):
        stated = await self._limits(self.server([], [Listing("BTCUSDT.P")], 0), tmp_path, "BTCUSDT.P")
        assert str(stated["OKX:BTCUSDT.P"].contract_size) == "0.01"


class TestBybit(VenueConformance):
    exchange = "BYBIT"

    def connect(self, wiring):
        return bybit.connect(wiring, URL)

    def is_bars(self, request):
        return request.url.path.endswith("/kline")

    def too_many_requests(self):
        return reply({"retCode": 10006, "retMsg": "Too many visits!", "result": {}})

    def server(self, spot, perpetual, bars):
        def listed(one, market):
            symbol = one.ticker.removesuffix(".P")
            spot_lots = {"basePrecision": one.lot, "minOrderAmt": one.min_notional}
            linear_lots = {"qtyStep": one.lot, "minNotionalValue": one.min_notional}
            return {
                "symbol": symbol,
                "contractType": "LinearPerpetual",
                "status": "Trading" if one.trading else "Settling",
                "baseCoin": symbol.removesuffix("USDT"),
                "quoteCoin": "USDT",
                "priceFilter": {"tickSize": one.tick},
                "lotSizeFilter": spot_lots if market == "spot" else linear_lots,
            }

        def serve(request):
            query = request.url.params
            market = query["category"]
            if not self.is_bars(request):
                listings = {"spot": spot, "linear": perpetual}.get(market, [])
                # Always a next page, the same again: a cursor that repeats must end the listing.
                result = {"list": [listed(one, market) for one in listings], "nextPageCursor": "again"}
                return reply({"retCode": 0, "retMsg": "OK", "result": result})
            inside = [ms for ms in reversed(milliseconds(bars)) if int(query["start"]) <= ms <= int(query["end"])]
            rows = [[str(ms), "1", "2", "0.5", "1.5", "10", "15"] for ms in inside[: int(query["limit"])]]
            return reply({"retCode": 0, "retMsg": "OK", "result": {"category": market, "list": rows}})

        return serve

    async def test_a_cursor_that_repeats_ends_the_listing(self, tmp_path):
        asked = []
        server = self.server([Listing("BTCUSDT")], [], 0)

        def counting(request):
            asked.append(request.url.params["category"])
            return server(request)

        assert len(await self._limits(counting, tmp_path, "BTCUSDT")) == 1
        assert asked == ["spot", "spot"]

    async def test_a_403_stops_for_ten_minutes(self, tmp_path):
        stated = await self._limits(lambda request: answer(b"", 403), tmp_path, "BTCUSDT")
        assert stated["BYBIT:BTCUSDT"].code == "banned"
        assert stated["BYBIT:BTCUSDT"].retry_after == 600
