"""The catalog: symbols and exchanges, versioned. This file is where everything is wired together."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

from services.catalog import handlers
from services.catalog.adapters.catalog import ExchangeCatalog, MetadataCatalog
from services.catalog.adapters.lease import RedisLease
from services.catalog.adapters.views import ExportFiles, RunViewFiles, read_universe
from services.catalog.settings import Settings
from services.catalog.takeover import plan_import
from shared.bus import Bus, Service, Subscription
from shared.clock import Clock, system_clock
from shared.paths import Home, ensure_safe_path


def create_app(settings: Settings, *, clock: Clock = system_clock) -> Service:
    home = Home.at(settings.home)
    symbols = MetadataCatalog.open(home.symbols_table, clock=clock)
    exchanges = ExchangeCatalog.open(home.exchanges_table, clock=clock)
    lease = RedisLease(lambda: uuid4().hex, lasts_s=settings.lease_s)
    desk = handlers.Desk(
        symbols=symbols,
        exchanges=exchanges,
        views=RunViewFiles(home),
        exports=ExportFiles(home, symbols, exchanges),
        clock=clock,
        read_universe=lambda ref: read_universe(home, ref),
        plan_import=lambda folder: plan_import(
            ensure_safe_path(folder, [home.root], must_exist=True), symbols, exchanges, clock
        ),
        lease=lease,
        writing=asyncio.Lock(),
    )

    async def on_start(bus: Bus) -> None:
        lease.connect(bus.redis)
        for catalog in (symbols, exchanges):  # a table that cannot be read stops the service before it takes an event
            await asyncio.to_thread(catalog.follow)

    return Service(
        name="catalog",
        subscriptions=(
            Subscription(
                "symbol-metadata", partial(handlers.observe, desk=desk), batch=True, max_records=settings.batch
            ),
            Subscription("exchange-metadata", partial(handlers.observe_exchanges, desk=desk)),
            Subscription("universe-snapshot", partial(handlers.take_snapshot, desk=desk)),
            Subscription("commands", partial(handlers.obey, desk=desk)),
            Subscription("promotion-decided", partial(handlers.close_run, desk=desk)),
        ),
        state=home.state / "catalog",
        on_start=on_start,
    )
