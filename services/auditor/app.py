"""The auditor: expected against arrived, the ledger, the gate. This file is where everything is wired together."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import httpx

from services.auditor.adapters.alert_file import AlertFile
from services.auditor.adapters.bookmark import BookmarkFile
from services.auditor.adapters.channels import AlertLog, AppriseChannel, Stdout, Webhook
from services.auditor.adapters.coverage_metrics import CoverageMetrics
from services.auditor.adapters.keys import ApproverKeys, ledger_signer
from services.auditor.adapters.lag import RedisGroups
from services.auditor.adapters.ledger_file import LedgerFile
from services.auditor.adapters.repair_notes import RepairNotes
from services.auditor.adapters.report_data import HtmlReports
from services.auditor.adapters.run_files import RunFolders
from services.auditor.adapters.schedule_files import ScheduleFiles, is_session
from services.auditor.adapters.server import RedisState
from services.auditor.adapters.tables import LakehouseTables
from services.auditor.domain.notes import NOTED
from services.auditor.domain.waivers import Approvals
from services.auditor.handlers import commands, lagging, notify, runs, scheduling, server, watch
from services.auditor.handlers.desk import Desk
from services.auditor.ports import Channel
from services.auditor.settings import Settings
from shared.bus import Job, Service, Subscription
from shared.clock import Clock, system_clock
from shared.paths import Home

if TYPE_CHECKING:
    from shared.bus import Bus


def create_app(settings: Settings, *, clock: Clock = system_clock) -> Service:
    home = Home.at(settings.home)
    desk = open_desk(settings, home, clock)
    client = httpx.AsyncClient(trust_env=False)
    notifier = notify.Notifier(open_channels(settings, client, clock))
    lag = lagging.LagWatch(timedelta(seconds=settings.stuck_s))
    looks = server.ServerWatch()
    look_s = min(5.0, settings.stuck_s / 2)
    jobs = [
        Job("tick", settings.tick_s, partial(watch.tick, desk=desk)),
        Job("notify", settings.tick_s, partial(notify.notify, desk=desk, notifier=notifier)),
        Job("lag", look_s, partial(lagging.watch_lag, desk=desk, watch=lag)),
        Job("server", look_s, partial(server.watch_server, desk=desk, watch=looks)),
    ]
    if settings.schedules_file is not None:
        schedules = ScheduleFiles(home, settings.schedules_file)
        keep = partial(scheduling.keep_schedule, desk=desk, schedules=schedules, is_session=is_session)
        jobs.append(Job("schedule", settings.schedule_s, keep))

    async def on_start(bus: Bus) -> None:
        lag.groups = RedisGroups(bus.redis)
        looks.server = RedisState(bus.redis)
        bus.registry.register(CoverageMetrics(lambda: desk.memory.newest))

    return Service(
        name="auditor",
        subscriptions=(
            Subscription("run-candidates", partial(runs.open_, desk=desk)),
            Subscription("commands", partial(commands.obey, desk=desk)),
            *(Subscription(stream, partial(runs.note, desk=desk), batch=True, max_records=256) for stream in NOTED),
        ),
        jobs=tuple(jobs),
        state=home.state / "auditor",
        on_start=on_start,
        on_stop=client.aclose,
    )


def open_desk(settings: Settings, home: Home, clock: Clock) -> Desk:
    """What the handlers work with. Raises ContractError for a key file that cannot be read or is none."""
    return Desk(
        runs=RunFolders(home),
        ledger=LedgerFile(home, signer=ledger_signer(settings.ledger_key_file) if settings.ledger_key_file else None),
        tables=LakehouseTables(home),
        bookmark=BookmarkFile(home.state / "auditor" / "published"),
        reporter=HtmlReports(home),
        alerts=AlertFile(home, repeat=timedelta(seconds=settings.alert_repeat_s)),
        repairs=RepairNotes(home),
        clock=clock,
        deadline_policy=settings.deadlines(),
        attempts_grace=timedelta(seconds=settings.attempts_grace_s),
        stale_after=timedelta(seconds=settings.promotion_stale_s),
        default_exchange=settings.default_exchange,
        approvals=Approvals(needed=settings.approvals),
        approvers=ApproverKeys.read(settings.approvers_file) if settings.approvers_file else None,
    )


def open_channels(settings: Settings, client: httpx.AsyncClient, clock: Clock) -> list[Channel]:
    """The channels that the settings name. Raises ContractError for a secret that cannot be read or is none."""
    channels: list[Channel] = []
    if settings.alert_stdout:
        channels.append(Stdout())
    if settings.alert_file is not None:
        channels.append(AlertLog(settings.alert_file))
    if settings.webhook_url is not None:
        channels.append(Webhook(str(settings.webhook_url), settings.secret("webhook_secret_file"), client, clock))
    if settings.apprise_file is not None:
        channels.append(AppriseChannel(settings.secret("apprise_file").splitlines()))
    return channels
