"""The suite that every exchange connector has to pass: subclass `VenueConformance` in a test, say how the venue writes.

A subclass speaks the venue's wire format (`server`, `too_many_requests`); the suite asks through the real connector and
real httpx, over an in-memory transport. See docs/venues.md for a worked example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from services.fetcher.adapters.http import Caps
from services.fetcher.adapters.local_pace import LocalPace
from services.fetcher.adapters.venue import Venue, Wiring
from services.fetcher.domain.faults import (
    Banned,
    EmptyAnswer,
    Forbidden,
    Garbled,
    NoBars,
    RateLimited,
    RegionBlocked,
    ServerFault,
    TimedOut,
    UnknownSymbol,
    Unreachable,
    Unsupported,
    Untrusted,
    UpstreamError,
)
from services.fetcher.domain.record import Described, Limits
from services.fetcher.domain.series import clean
from services.fetcher.domain.sessions import read_hours
from services.fetcher.ports import BarsSent, BarsWanted

Answer = Callable[[httpx.Request], httpx.Response]
NOW = datetime(2022, 1, 10, 12, tzinfo=UTC)
TODAY = datetime(2022, 1, 10, tzinfo=UTC)
_JSON = {"Content-Type": "application/json"}
_PAGE = {"Content-Type": "text/html"}
_CAPS = Caps(body_bytes=2**20, total_s=2)


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument as the suite wants it listed; figures as text, "" for what the venue does not state."""

    ticker: str
    tick: str = "0.01"
    lot: str = "0.001"
    min_notional: str = "5"
    trading: bool = True


class Body(httpx.AsyncByteStream):
    """A body as it comes off the wire: undecoded, in these chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def __aiter__(self):  # type: ignore[no-untyped-def]  # an async generator, as httpx asks for
        for chunk in self._chunks:
            yield chunk


def answer(body: bytes, status: int = 200, *, headers: Mapping[str, str] = _JSON) -> httpx.Response:
    return httpx.Response(status, stream=Body(body), headers={**_JSON, **headers})


def daily_opens(count: int) -> list[datetime]:
    """The last `count` daily bars by NOW, oldest first; the newest one is still forming."""
    return [TODAY - timedelta(days=age) for age in reversed(range(count))]


class VenueConformance:
    """Golden listings in, limits and bars out; faults in, our errors out."""

    exchange: str
    perpetuals: bool = True
    states_min_notional: bool = True

    def connect(self, wiring: Wiring) -> Venue:
        raise NotImplementedError

    def server(self, spot: Sequence[Listing], perpetual: Sequence[Listing], bars: int) -> Answer:
        """The venue with these listings, and `bars` daily bars of each (`daily_opens`): open 1, high 2, low 0.5,
        close 1.5, volume 10."""
        raise NotImplementedError

    def is_bars(self, request: httpx.Request) -> bool:
        raise NotImplementedError

    def names_symbol(self, request: httpx.Request, base: str) -> bool:
        """Whether a request for bars is about the instrument of this base currency."""
        return base.encode() in request.url.query

    def too_many_requests(self) -> httpx.Response:
        """The venue's own way to say so in a body, without a status of 429."""
        raise NotImplementedError

    # -- limits

    async def test_limits_are_exact(self, tmp_path: Path) -> None:
        stated = await self._limits(
            self.server([Listing("BTCUSDT", "0.10", "0.00001000", "5.0")], [], 0), tmp_path, "BTCUSDT"
        )
        limits = stated[self._symbol("BTCUSDT")]
        assert isinstance(limits, Limits)
        assert (limits.tick_size, limits.lot_size) == (Decimal("0.1"), Decimal("0.00001"))
        assert limits.min_notional == (Decimal(5) if self.states_min_notional else None)
        assert (limits.base, limits.quote, limits.active) == ("BTC", "USDT", True)

    @pytest.mark.parametrize("unknown", ["", "0", "0.00000000"])
    async def test_what_is_not_stated_is_unknown_and_never_zero(self, tmp_path: Path, unknown: str) -> None:
        server = self.server([Listing("BTCUSDT", unknown, unknown, unknown)], [], 0)
        limits = (await self._limits(server, tmp_path, "BTCUSDT"))[self._symbol("BTCUSDT")]
        assert isinstance(limits, Limits)
        assert (limits.tick_size, limits.lot_size, limits.min_notional) == (None, None, None)

    async def test_what_does_not_trade_is_inactive_with_its_limits_kept(self, tmp_path: Path) -> None:
        server = self.server([Listing("BTCUSDT", trading=False)], [], 0)
        limits = (await self._limits(server, tmp_path, "BTCUSDT"))[self._symbol("BTCUSDT")]
        assert isinstance(limits, Limits)
        assert limits.active is False
        assert limits.tick_size == Decimal("0.01")

    async def test_a_symbol_it_does_not_list_is_unknown_and_not_failed(self, tmp_path: Path) -> None:
        assert await self._limits(self.server([Listing("BTCUSDT")], [], 0), tmp_path, "NOPEUSDT") == {}

    async def test_a_perpetual_is_never_answered_from_spot_nor_spot_from_it(self, tmp_path: Path) -> None:
        spot_only = await self._limits(self.server([Listing("BTCUSDT")], [], 0), tmp_path / "a", "BTCUSDT.P")
        assert spot_only == {}
        if self.perpetuals:
            both = self.server([Listing("BTCUSDT", "0.01")], [Listing("BTCUSDT.P", "0.1")], 0)
            stated = await self._limits(both, tmp_path / "b", "BTCUSDT", "BTCUSDT.P")
            ticks = {symbol: one.tick_size for symbol, one in stated.items() if isinstance(one, Limits)}
            assert ticks == {
                self._symbol("BTCUSDT"): Decimal("0.01"),
                self._symbol("BTCUSDT.P"): Decimal("0.1"),
            }

    async def test_one_request_serves_all_who_ask_and_a_list_outlives_its_venue(self, tmp_path: Path) -> None:
        asked = 0
        healthy = self.server([Listing("BTCUSDT"), Listing("ETHUSDT")], [], 0)
        down = False

        def counting(request: httpx.Request) -> httpx.Response:
            nonlocal asked
            asked += 1
            return answer(b"", 503) if down else healthy(request)

        now = NOW
        venue = self._venue(counting, tmp_path, clock=lambda: now)
        described = self._described("BTCUSDT", "ETHUSDT")
        await venue.limits(described)
        once = asked
        await venue.limits(described)
        assert asked == once
        now, down = NOW + timedelta(hours=3), True
        stale = (await venue.limits(described))[self._symbol("BTCUSDT")]
        assert isinstance(stale, Limits)
        assert stale.stale_s == 3 * 3600

    # -- bars

    async def test_bars_come_whole_over_all_pages_without_the_forming_one(self, tmp_path: Path) -> None:
        server = self.server([Listing("BTCUSDT")], [], 2500)
        sent = (await self._bars(server, tmp_path, "BTCUSDT"))[self._symbol("BTCUSDT")]
        assert isinstance(sent, BarsSent)
        hours = read_hours(sent.timezone, sent.session)
        series = clean(sent.rows, interval="1d", hours=hours, cutoff=min(NOW, sent.observed_at))
        opens = [int(one.timestamp()) for one in daily_opens(2500)]
        assert series.index.tolist() == opens[:-1]
        assert series.values[0].tolist() == [1, 2, 0.5, 1.5, 10]
        assert not [warning for warning in series.warnings if not warning.startswith("duplicates")]

    async def test_bars_since_the_last_one_need_one_request(self, tmp_path: Path) -> None:
        asked: list[httpx.Request] = []
        server = self.server([Listing("BTCUSDT")], [], 2500)

        def counting(request: httpx.Request) -> httpx.Response:
            if self.is_bars(request):
                asked.append(request)
            return server(request)

        since = TODAY - timedelta(days=5)
        sent = (await self._bars(counting, tmp_path, "BTCUSDT", since=since))[self._symbol("BTCUSDT")]
        assert isinstance(sent, BarsSent)
        assert len(asked) == 1
        first = datetime.fromtimestamp(sent.rows[:, 0].min(), UTC)
        assert since - timedelta(days=10) <= first < since

    async def test_an_instrument_without_bars_is_named(self, tmp_path: Path) -> None:
        sent = await self._bars(self.server([Listing("BTCUSDT")], [], 0), tmp_path, "BTCUSDT")
        assert isinstance(sent[self._symbol("BTCUSDT")], NoBars)

    async def test_an_unknown_instrument_and_an_unknown_interval_are_named(self, tmp_path: Path) -> None:
        server = self.server([Listing("BTCUSDT")], [], 3)
        sent = await self._bars(server, tmp_path, "BTCUSDT", "NOPEUSDT")
        assert isinstance(sent[self._symbol("NOPEUSDT")], UnknownSymbol)
        assert isinstance(sent[self._symbol("BTCUSDT")], BarsSent)
        odd = await self._bars(server, tmp_path, "BTCUSDT", interval="7m")
        assert isinstance(odd[self._symbol("BTCUSDT")], Unsupported)

    # -- faults

    @pytest.mark.parametrize(
        ("response", "expected"),
        [
            (lambda: answer(b"{}", 429, headers={"Retry-After": "7"}), RateLimited),
            (lambda: answer(b"", 418, headers={"Retry-After": "7"}), Banned),
            (lambda: answer(b"<html>", 451, headers=_PAGE), RegionBlocked),
            (lambda: answer(b"<html>", 403, headers=_PAGE), (Forbidden, Banned)),
            (lambda: answer(b"<html>", 502, headers=_PAGE), ServerFault),
            (lambda: answer(b"", 302, headers={"Location": "https://elsewhere.example/"}), Untrusted),
            (lambda: answer(b""), EmptyAnswer),
            (lambda: answer(b'{"code":"0","data":[{"ins'), Garbled),
            (lambda: answer(b"[[1]]"), Garbled),
            (lambda: answer(b"<html></html>", headers=_PAGE), Untrusted),
            (lambda: answer(b"[" * 100_000), (Untrusted, Garbled)),
            (lambda: answer(b" " * (2**20 + 1)), Untrusted),
        ],
    )
    async def test_a_fault_of_the_bars_is_ours_and_costs_only_its_symbol(
        self,
        tmp_path: Path,
        response: Callable[[], httpx.Response],
        expected: type[UpstreamError] | tuple[type[UpstreamError], ...],
    ) -> None:
        server = self.server([Listing("BTCUSDT"), Listing("ETHUSDT")], [], 3)

        def faulty(request: httpx.Request) -> httpx.Response:
            return response() if self.is_bars(request) and self.names_symbol(request, "BTC") else server(request)

        sent = await self._bars(faulty, tmp_path, "BTCUSDT", "ETHUSDT")
        fault = sent[self._symbol("BTCUSDT")]
        assert isinstance(fault, expected)
        assert fault.host is not None
        assert isinstance(sent[self._symbol("ETHUSDT")], BarsSent)
        if isinstance(fault, RateLimited):
            assert fault.retry_after == 7

    async def test_push_back_in_a_body_is_push_back(self, tmp_path: Path) -> None:
        server = self.server([Listing("BTCUSDT")], [], 3)
        faulty: Answer = lambda request: self.too_many_requests() if self.is_bars(request) else server(request)  # noqa: E731
        assert isinstance((await self._bars(faulty, tmp_path, "BTCUSDT"))[self._symbol("BTCUSDT")], RateLimited)

    @pytest.mark.parametrize(
        ("raised", "expected"), [(httpx.ReadError("reset"), Unreachable), (httpx.ReadTimeout("silent"), TimedOut)]
    )
    async def test_a_broken_connection_is_transient(
        self, tmp_path: Path, raised: httpx.HTTPError, expected: type[UpstreamError]
    ) -> None:
        def broken(request: httpx.Request) -> httpx.Response:
            raise raised

        stated = await self._limits(broken, tmp_path, "BTCUSDT")
        fault = stated[self._symbol("BTCUSDT")]
        assert isinstance(fault, expected)
        assert fault.retryable

    # -- how the suite asks

    def _symbol(self, ticker: str) -> str:
        return f"{self.exchange}:{ticker}"

    def _described(self, *tickers: str) -> dict[str, Described]:
        symbols = map(self._symbol, tickers)
        return {symbol: Described(symbol, {}, None, NOW, "scanner") for symbol in symbols}

    def _venue(self, server: Answer, cache: Path, clock: Callable[[], datetime] = lambda: NOW) -> Venue:
        client = httpx.AsyncClient(transport=httpx.MockTransport(server))
        return self.connect(Wiring(client, LocalPace(), clock, _CAPS, cache, fresh_s=3600, overlap=10, paces={}))

    async def _limits(self, server: Answer, cache: Path, *tickers: str) -> dict[str, Limits | UpstreamError]:
        return dict(await self._venue(server, cache).limits(self._described(*tickers)))

    async def _bars(
        self, server: Answer, cache: Path, *tickers: str, since: datetime | None = None, interval: str = "1d"
    ) -> dict[str, BarsSent | UpstreamError]:
        got: dict[str, BarsSent | UpstreamError] = {}

        async def sink(symbol: str, outcome: BarsSent | UpstreamError) -> None:
            assert symbol not in got, f"{symbol} was delivered twice"
            got[symbol] = outcome

        wanted = [BarsWanted(self._symbol(ticker), interval, since, NOW) for ticker in tickers]
        await self._venue(server, cache).fetch(wanted, sink, workers=3)
        assert got.keys() == {want.symbol for want in wanted}
        return got
