"""The fetcher: the only service that talks to the internet. This file is where everything is wired together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

import httpx
from redis.asyncio import Redis

from services.fetcher import commands, handlers, importing
from services.fetcher.adapters.bar_store import LakehouseBars
from services.fetcher.adapters.calendars import ExchangeCalendars
from services.fetcher.adapters.documents import CachedDocuments
from services.fetcher.adapters.http import Caps, HttpUpstream
from services.fetcher.adapters.memory import FileMemory
from services.fetcher.adapters.presets import read_presets
from services.fetcher.adapters.pse import PseRules
from services.fetcher.adapters.redis_pace import RedisBudget, RedisPace
from services.fetcher.adapters.scanner import Scanner
from services.fetcher.adapters.scanner_ws import ScannerBars, SocketCaps
from services.fetcher.adapters.venue import Wiring
from services.fetcher.adapters.venues import VenueUrls, connect_venues
from services.fetcher.describe import attempt_metadata
from services.fetcher.domain.attempts import Backoff
from services.fetcher.domain.pace import PACES, VenuePace
from services.fetcher.domain.plan import BatchSizes
from services.fetcher.hydrate import BarsFrom, attempt_bars
from services.fetcher.ports import LimitsSource
from services.fetcher.settings import Settings
from services.fetcher.takeover import BarsReport, import_bars
from shared.bus import Bus, Handler, Service, Subscription
from shared.clock import Clock, system_clock
from shared.paths import Home, ensure_safe_path


@dataclass(frozen=True, slots=True)
class Fetcher:
    """The fetcher's handlers with everything they need but a broker; `connect` comes first, `close` last."""

    plan: Handler
    fetch: Handler
    command: Handler
    connect: Callable[[Redis], None]
    close: Callable[[], Awaitable[None]]


def create_app(settings: Settings, *, clock: Clock = system_clock) -> Service:
    fetcher = wire(settings, clock)

    async def connect(bus: Bus) -> None:
        fetcher.connect(bus.redis)

    return Service(
        name="fetcher",
        subscriptions=(
            Subscription("run-candidates", fetcher.plan),
            Subscription("fetch-tasks", fetcher.fetch, concurrency=settings.tasks_in_flight),
            Subscription("commands", fetcher.command),
        ),
        state=Home.at(settings.home).state / "fetcher",
        on_start=connect,
        on_stop=fetcher.close,
    )


def wire(settings: Settings, clock: Clock, paces: Mapping[str, VenuePace] = PACES) -> Fetcher:
    home = Home.at(settings.home)
    memory = FileMemory(home.state / "fetcher" / "runs")
    documents = CachedDocuments(home)
    random = Random()  # noqa: S311  # jitter, not a secret
    known_paces = dict(paces)
    pace = RedisPace(known_paces, patience_s=settings.patience_s, outage_s=settings.outage_s, random=random)
    budget = RedisBudget(settings.retry_budget)
    client = http_client(settings)
    caps = Caps(settings.body_cap, settings.connect_timeout_s, settings.read_timeout_s, settings.request_timeout_s)
    scanner = Scanner(
        HttpUpstream(client, Scanner.name, str(settings.scanner_url), pace, clock, caps), settings.scanner_market
    )
    chart = ScannerBars(
        str(settings.ws_url), pace, clock, socket_caps(settings), origin=settings.ws_origin, token=settings.ws_token()
    )
    wiring = Wiring(
        client,
        pace,
        clock,
        caps,
        home.cache / "fetcher",
        settings.instruments_fresh_s,
        settings.overlap_bars,
        known_paces,
    )
    venues = connect_venues(wiring, venue_urls(settings))
    stating: tuple[LimitsSource, ...] = (PseRules(), *venues)
    limits = {exchange: source for source in stating for exchange in source.exchanges}
    metadata = partial(
        attempt_metadata,
        descriptions=scanner,
        limits=limits,
        memory=memory,
    )
    bars = partial(
        attempt_bars,
        sources=BarsFrom({exchange: venue for venue in venues for exchange in venue.exchanges}, chart),
        store=LakehouseBars(home),
        calendars=ExchangeCalendars(),
        memory=memory,
        workers=settings.workers,
    )
    backoff = Backoff(settings.attempts, settings.backoff_s, settings.backoff_cap_s, settings.patience_s)
    attempts = handlers.Attempts(backoff, clock, random, budget)
    batch_sizes: BatchSizes = {"metadata": settings.metadata_batch, "bars": settings.bars_batch}

    def take(folder: str, apply: bool) -> list[BarsReport]:
        return import_bars(ensure_safe_path(folder, [home.root], must_exist=True), home, apply=apply, clock=clock)

    acts: dict[str, commands.Act] = {
        "discover": partial(
            commands.discover,
            universe=scanner,
            limits=limits,
            documents=documents,
            presets=read_presets(),
            clock=clock,
        ),
        "audit-metadata": partial(
            commands.audit_metadata,
            descriptions=scanner,
            limits=limits,
            documents=documents,
            batch_size=settings.metadata_batch,
        ),
        "import-bars": partial(importing.import_bars, take=take),
        "retry": partial(commands.retry, batch_sizes=batch_sizes, clock=clock),
    }

    def connect(redis: Redis) -> None:
        pace.connect(redis)
        budget.connect(redis)

    async def close() -> None:
        await pace.close()
        await client.aclose()

    return Fetcher(
        plan=partial(
            handlers.plan_run,
            memory=memory,
            clock=clock,
            batch_sizes=batch_sizes,
            default_exchange=settings.default_exchange,
        ),
        fetch=partial(handlers.fetch, memory=memory, attempts=attempts, metadata=metadata, bars=bars),
        command=partial(commands.carry_out, acts=acts, clock=clock),
        connect=connect,
        close=close,
    )


def venue_urls(settings: Settings) -> VenueUrls:
    return VenueUrls(
        binance=str(settings.binance_url),
        binance_futures=str(settings.binance_futures_url),
        okx=str(settings.okx_url),
        bybit=str(settings.bybit_url),
    )


def http_client(settings: Settings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
        headers={"User-Agent": "asof"},
        follow_redirects=False,
        trust_env=False,
    )


def socket_caps(settings: Settings) -> SocketCaps:
    return SocketCaps(
        open_s=settings.connect_timeout_s,
        silence_s=settings.read_timeout_s,
        series_s=settings.series_timeout_s,
        history=settings.history_bars,
        overlap=settings.overlap_bars,
        connections=settings.connections,
    )
