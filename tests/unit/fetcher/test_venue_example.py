"""The worked example of docs/venues.md, taken from there as it stands, under the conformance suite."""

from __future__ import annotations

import json
import re
import types
from datetime import datetime
from pathlib import Path

from services.fetcher.conformance import VenueConformance, answer, daily_opens

DOC = Path(__file__).parents[3] / "docs" / "venues.md"


def example():
    code = re.search(r"```python\n(\"\"\"Coinbase.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)[1]
    module = types.ModuleType("coinbase")
    exec(compile(code, str(DOC), "exec"), module.__dict__)
    return module


def reply(data, status=200):
    return answer(json.dumps(data).encode(), status)


class TestCoinbase(VenueConformance):
    exchange = "COINBASE"
    perpetuals = False

    def connect(self, wiring):
        return example().connect(wiring, "http://127.0.0.1:9")

    def is_bars(self, request):
        return request.url.path.endswith("/candles")

    def too_many_requests(self):
        return reply({"message": "Public rate limit exceeded"}, 400)

    def names_symbol(self, request, base):
        return f"/{base}-" in request.url.path

    def server(self, spot, perpetual, bars):
        def listed(one):
            base = one.ticker.removesuffix("USDT")
            return {
                "id": f"{base}-USDT",
                "base_currency": base,
                "quote_currency": "USDT",
                "base_increment": one.lot,
                "quote_increment": one.tick,
                "min_market_funds": one.min_notional,
                "status": "online" if one.trading else "delisted",
            }

        def serve(request):
            if not self.is_bars(request):
                return reply([listed(one) for one in spot])
            query = request.url.params
            first, last = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
            inside = [one for one in reversed(daily_opens(bars)) if first <= one <= last]
            assert len(inside) <= 300
            return reply([[int(one.timestamp()), 0.5, 2, 1, 1.5, 10] for one in inside])

        return serve
