"""What a replay serves: instruments, bars as recorded, and the exchanges' own payloads. Pure data, cut by a clock."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from shared.errors import ContractError


class Bar(NamedTuple):
    """One bar: when it opens (seconds since 1970 UTC) and `open,high,low,close[,volume]` as recorded decimal text."""

    opens: int
    values: str


@dataclass(frozen=True)
class Series:
    """The bars of one symbol at one interval, oldest first.

    `opens` has one entry a bar, `rows` one line of text a bar; `span_s` is the time from a bar's open to its close.
    Text, because every venue sends numbers in another wrapping, and a decimal that was never a float cannot change.
    """

    span_s: int
    opens: array[int]
    rows: bytes

    @classmethod
    def of(cls, bars: Iterable[Bar], *, span_s: int) -> Series:
        listed = list(bars)
        rows = "\n".join(bar.values for bar in listed).encode("ascii")
        return cls(span_s, array("q", (bar.opens for bar in listed)), rows)

    @cached_property
    def _lines(self) -> list[str]:
        return self.rows.decode("ascii").split("\n") if self.rows else []

    def closed(self, now: float) -> list[Bar]:
        """Every bar whose close is not later than `now`."""
        count = bisect_right(self.opens, now - self.span_s)
        return list(map(Bar, self.opens[:count], self._lines[:count]))

    def forming(self, now: float) -> Bar | None:
        """The bar that is open at `now`, or None between bars.

        Only its open is known by then: high, low and close stand at the open, the volume at zero.
        """
        index = bisect_right(self.opens, now) - 1
        if index < 0 or self.opens[index] + self.span_s <= now:
            return None
        first = self._lines[index].split(",", 1)[0]
        return Bar(self.opens[index], f"{first},{first},{first},{first},0")

    def last(self, now: float) -> Bar | None:
        """The newest bar by `now`, the forming one included; None before the first."""
        forming = self.forming(now)
        if forming is not None:
            return forming
        count = bisect_right(self.opens, now - self.span_s)
        return Bar(self.opens[count - 1], self._lines[count - 1]) if count else None


@dataclass(frozen=True)
class Instrument:
    """A symbol of the scanner. `columns` are the values that were recorded; one that is absent is null on the wire.

    It is in the universe from the second `listed` (None: from the beginning) until `delisted` (None: to the end).
    `resolved` is what the websocket adds when it resolves the symbol, its time zone and session for example.
    """

    symbol: str
    market: str
    columns: Mapping[str, Any]
    listed: float | None = None
    delisted: float | None = None
    resolved: Mapping[str, Any] = field(default_factory=dict)

    def is_listed(self, now: float) -> bool:
        return (self.listed is None or self.listed <= now) and (self.delisted is None or now < self.delisted)


@dataclass(frozen=True)
class Payload:
    """One recorded answer of an exchange. It is served from `since` (seconds; None: always) until a newer one is."""

    body: Mapping[str, Any]
    since: float | None = None


@dataclass(frozen=True)
class Source:
    """Everything a replay can serve.

    `series` is keyed by (symbol as the scanner writes it, interval such as `1d`), `payloads` by the exchange and its
    list: `binance/spot`, `binance/usdm`, `okx/SPOT`, `okx/SWAP`, `okx/FUTURES`, `bybit/spot`, `bybit/linear`,
    `bybit/inverse`.
    """

    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    series: Mapping[tuple[str, str], Series] = field(default_factory=dict)
    payloads: Mapping[str, tuple[Payload, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        instruments: Iterable[Instrument],
        series: Mapping[tuple[str, str], Series] | None = None,
        payloads: Mapping[str, tuple[Payload, ...]] | None = None,
    ) -> Source:
        by_symbol = {instrument.symbol: instrument for instrument in instruments}
        return cls(by_symbol, dict(series or {}), dict(payloads or {}))

    def __or__(self, other: Source) -> Source:
        """Both sources as one. Refuses two that state the same thing: a replay has one truth."""
        for kind in ("instruments", "series", "payloads"):
            twice = getattr(self, kind).keys() & getattr(other, kind).keys()
            if twice:
                raise ContractError(
                    f"two sources both serve {sorted(map(str, twice))[0]} ({len(twice)} {kind} twice)",
                    fix="serve one of them alone, or remove the doubled files",
                )
        return Source(
            {**self.instruments, **other.instruments},
            {**self.series, **other.series},
            {**self.payloads, **other.payloads},
        )


@dataclass(frozen=True)
class View:
    """A source at one instant: nothing later is reachable through it.

    `spoil` is what a fault does to bars, given their span.
    """

    source: Source
    now: float
    spoil: Callable[[list[Bar], int], list[Bar]] | None = None

    def instrument(self, symbol: str) -> Instrument | None:
        found = self.source.instruments.get(symbol)
        return found if found is not None and found.is_listed(self.now) else None

    def instruments(self) -> list[Instrument]:
        return [instrument for instrument in self.source.instruments.values() if instrument.is_listed(self.now)]

    def series(self, symbol: str, interval: str) -> Series | None:
        return self.source.series.get((symbol, interval))

    def last_bar(self, symbol: str) -> Bar | None:
        daily = self.series(symbol, "1d")
        return daily.last(self.now) if daily is not None else None

    def bars(self, symbol: str, interval: str) -> list[Bar]:
        """Every bar by now, oldest first, the forming one last; empty when none were recorded."""
        recorded = self.series(symbol, interval)
        if recorded is None:
            return []
        forming = recorded.forming(self.now)
        bars = [*recorded.closed(self.now), *([forming] if forming is not None else [])]
        return self.spoil(bars, recorded.span_s) if self.spoil is not None else bars

    def span_s(self, symbol: str, interval: str) -> int:
        recorded = self.series(symbol, interval)
        return recorded.span_s if recorded is not None else 0

    def payload(self, name: str) -> Mapping[str, Any] | None:
        """The newest answer recorded by now, or None: an answer from the future is not served."""
        known = [item for item in self.source.payloads.get(name, ()) if item.since is None or item.since <= self.now]
        return max(known, key=lambda item: item.since or float("-inf")).body if known else None
