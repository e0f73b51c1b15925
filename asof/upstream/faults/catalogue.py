"""Every fault a replay can commit: its name, where it can happen, and what a client sees."""

from __future__ import annotations

from dataclasses import dataclass

SCAN = frozenset(("scan",))
LISTS = frozenset(("exchangeInfo", "instruments", "instruments-info"))
BARS = frozenset(("klines", "history-candles", "kline"))
HTTP = SCAN | LISTS | BARS | {"symbol"}
SERIES = frozenset(("series",))
CONNECT = frozenset(("connect",))


@dataclass(frozen=True)
class Fault:
    """`kinds` and `venues` (empty: all) say where it can happen.

    `lasting`: it does not come and go but stays, as a new format does. `final`: a client should not try again,
    so that in the whole matrix it is rare: one of these ends what all the others would have been tried on.
    """

    name: str
    says: str
    kinds: frozenset[str]
    venues: frozenset[str] = frozenset()
    lasting: bool = False
    final: bool = False

    def can_happen(self, venue: str, kind: str) -> bool:
        return kind in self.kinds and (not self.venues or venue in self.venues)


_BINANCE = frozenset(("binance", "binance-usdm"))
_BYBIT = frozenset(("bybit",))

MATRIX = (
    Fault("429-retry-after", "429, and the host answers nothing else for so many seconds", HTTP),
    Fault("429-retry-after-date", "the same, the wait as a date of the served clock", HTTP),
    Fault("429-bare", "429 that names no wait; its code a text, a number or absent", HTTP | CONNECT),
    Fault("418-ban", "banned until an instant", HTTP, _BINANCE),
    Fault("451", "not available in this region", HTTP, final=True),
    Fault("403-html", "a page instead of JSON", HTTP, final=True),
    Fault("bybit-403", "refused for ten minutes", HTTP, _BYBIT, final=True),
    Fault("empty-200", "200 with an empty body", HTTP),
    Fault("no-bytes", "accepted, and nothing ever comes", HTTP | SERIES),
    Fault("error-200", "200 with an error payload; a critical_error on the websocket", HTTP | SERIES),
    Fault("unknown-column", "one column is unknown from now on: 400", SCAN, lasting=True),
    Fault("unknown-column-200", "one column is unknown from now on: 200 with the error", SCAN, lasting=True),
    Fault("notional", "MIN_NOTIONAL has become NOTIONAL", LISTS, frozenset(("binance",)), lasting=True),
    Fault("missing-symbol", "one asked symbol is not in the answer", SCAN | LISTS),
    Fault("bad-symbol", "some symbols fail the whole list they are asked in, and are not named", SCAN, lasting=True),
    Fault("data-null", "data is null", SCAN),
    Fault("nulls", "values are null here and there", SCAN | LISTS | BARS | SERIES),
    Fault("short-rows", "some rows end early", SCAN | BARS | SERIES),
    Fault("reordered", "rows in another order", SCAN | LISTS),
    Fault("empty-numerics", "tick and lot sizes empty or zero", LISTS),
    Fault("gaps", "bars are missing in the middle", BARS | SERIES),
    Fault("duplicates", "bars come twice", BARS | SERIES),
    Fault("unaligned", "bars open at odd times", BARS | SERIES),
    Fault("forming-candle", "a candle that is not over comes last", BARS | SERIES),
    Fault("truncated-json", "the JSON ends in the middle", HTTP | SERIES),
    Fault("wrong-length", "fewer bytes than announced", HTTP | SERIES),
    Fault("502-page", "a proxy's page", HTTP),
    Fault("503-page", "a proxy's page", HTTP),
    Fault("slow-drip", "byte by byte, slower than anyone waits", HTTP | SERIES),
    Fault("reset", "the connection is reset", HTTP | SERIES),
    Fault("cursor-repeats", "the next page is this page", LISTS, _BYBIT),
    Fault(
        "count-changes", "there is less on the next page than was said", SCAN | LISTS, frozenset(("scanner", "bybit"))
    ),
)

HOSTILE = (
    Fault("huge-body", "a hundred megabytes", HTTP),
    Fault("endless-drip", "a body without an end", HTTP),
    Fault("redirect", "302 to another host", HTTP),
    Fault("wrong-content-type", "JSON that says it is a picture", HTTP),
    Fault("deep-json", "a hundred thousand nested arrays", HTTP),
    Fault("control-characters", "a symbol and a text with control characters", SCAN),
)

BY_NAME = {fault.name: fault for fault in (*MATRIX, *HOSTILE)}
GROUPS = {"matrix": MATRIX, "hostile": HOSTILE}
