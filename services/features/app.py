"""The features service: ratings, their validation, the feature store. This file is where everything is wired."""

from __future__ import annotations

import threading
from functools import partial

from services.features import commands, handlers
from services.features.adapters.adjustments import LakehouseAdjustments
from services.features.adapters.bars import LakehouseBars
from services.features.adapters.calendars import ExchangeCalendars
from services.features.adapters.histories import LakehouseHistories
from services.features.adapters.store import LakehouseFeatures
from services.features.adapters.warm import warm
from services.features.adapters.workspace import RunWorkspace
from services.features.settings import Settings
from services.features.staging import Stage
from services.features.takeover import FeaturesReport, import_features
from shared.bus import Bus, Service, Subscription
from shared.clock import Clock, system_clock
from shared.paths import Home, ensure_safe_path


def create_app(settings: Settings, *, clock: Clock = system_clock) -> Service:
    home = Home.at(settings.home)
    workspace = RunWorkspace(home)
    book = LakehouseAdjustments(home, clock)
    store = LakehouseFeatures(home, clock)
    stage = Stage(LakehouseBars(home), ExchangeCalendars(), workspace, book, LakehouseHistories(home))

    def take(folder: str, apply: bool) -> FeaturesReport:
        return import_features(ensure_safe_path(folder, [home.root], must_exist=True), home, apply=apply, clock=clock)

    async def on_start(bus: Bus) -> None:
        # A daemon: a command that ends before the kernel is warm does not wait for it.
        threading.Thread(target=warm, name="warm-ratings", daemon=True).start()

    return Service(
        name="features",
        subscriptions=(
            Subscription(
                "run-candidates",
                partial(
                    handlers.open_run,
                    stage=stage,
                    clock=clock,
                    default_exchange=settings.default_exchange,
                    batch_size=settings.batch,
                ),
            ),
            Subscription("bars-hydrated", partial(handlers.rate_batch, stage=stage, clock=clock)),
            Subscription(
                "promotion-decided",
                partial(handlers.promote, workspace=workspace, store=store, clock=clock),
            ),
            Subscription("commands", partial(commands.carry_out, book=book, store=store, take=take, clock=clock)),
        ),
        state=home.state / "features",
        on_start=on_start,
    )
