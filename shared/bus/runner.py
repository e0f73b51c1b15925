"""Running services: one broker for the process, and for each service an outbox, readers, reclaimers and jobs.

Start: groups at 0 → what dead processes left in their outboxes → `on_start` → readers. Stop: readers finish what they
read → jobs and reclaimers end → what is left pending is given back → `on_stop`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from shared.bus.connection import connect
from shared.bus.contract import Job, Service
from shared.bus.groups import ensure_groups
from shared.bus.health import create_health_app, serving
from shared.bus.leaving import leave
from shared.bus.metrics import Metrics
from shared.bus.names import consumer_name
from shared.bus.outbox import Outbox
from shared.bus.publishing import Blocked, Bus
from shared.bus.reader import Reader
from shared.bus.reclaim import Reclaimer
from shared.bus.server_check import check_server
from shared.bus.settings import BusSettings
from shared.bus.tracing import tracing
from shared.bus.upkeep import keep_up
from shared.bus.watch import watch
from shared.bus.worker import Worker
from shared.clock import Clock, system_clock
from shared.errors import TransientError

if TYPE_CHECKING:
    from faststream.redis import RedisBroker
    from redis.asyncio import Redis

log = structlog.get_logger("asof.bus")

_ANSWER_S = 0.25


@dataclass(frozen=True)
class Running:
    """One service at work."""

    service: Service
    bus: Bus
    readers: tuple[Reader, ...]
    reclaimers: tuple[Reclaimer, ...]


async def run_services(
    services: Sequence[Service],
    redis_url: str,
    *,
    settings: BusSettings,
    stop: asyncio.Event | None = None,
    ready: Callable[[], None] | None = None,
    clock: Clock = system_clock,
) -> None:
    """Run until `stop` is set, or without one until SIGTERM or SIGINT; then finish what is in flight.

    `ready` is called once every reader reads. Raises what a service cannot go on with: TransientError when Redis does
    not answer, and any fault of the bus itself or of a job.
    """
    async with AsyncExitStack() as stack:
        if stop is None:
            stop = stack.enter_context(_stopped_by_signals())
        broker, redis = await stack.enter_async_context(connect(redis_url, settings))
        readers_are_seen = await check_server(redis)
        fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def fail(fault: BaseException) -> None:
            if not fatal.done():
                fatal.set_exception(fault)

        build = _Builder(broker, redis, settings, clock, fail, stack)
        running = [build.service(service) for service in services]
        readers = [reader for one in running for reader in one.readers]
        buses = [one.bus for one in running]
        await _start(running, redis)
        health = create_health_app(redis, readers, buses, build.metrics, settings)
        await stack.enter_async_context(serving(health, settings))
        stopping = asyncio.Event()
        stopped = asyncio.create_task(stop.wait())
        jobs: list[asyncio.Task[None]] = []
        loops: list[asyncio.Task[None]] = []
        try:
            await asyncio.gather(*(reader.start() for reader in readers))
            jobs += (
                asyncio.create_task(_run_job(job, one.bus, stopping)) for one in running for job in one.service.jobs
            )
            loops += map(asyncio.create_task, _loops(running, build.metrics, settings, stopping))
            watching = asyncio.create_task(
                watch(redis, readers, buses, settings, stopping, readers_are_seen=readers_are_seen)
            )
            stack.callback(watching.cancel)
            if ready is not None:
                ready()
            ends: list[asyncio.Future[Any]] = [fatal, watching, *jobs, *loops]
            await asyncio.wait([stopped, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            stopped.cancel()
            deadline = time.monotonic() + settings.grace_s
            await asyncio.gather(*(reader.stop() for reader in readers))
            await _finish(jobs, lambda: True, deadline)
            await _finish(loops, lambda: any(reader.worker.busy for reader in readers), deadline)
            await leave(redis, readers, buses, settings)
            for one in running:
                if one.service.on_stop is not None:
                    await one.service.on_stop()
        for end in ends:
            if end.done() and not end.cancelled():
                end.result()


class _Builder:
    def __init__(
        self,
        broker: RedisBroker,
        redis: Redis,
        settings: BusSettings,
        clock: Clock,
        fail: Callable[[BaseException], None],
        stack: AsyncExitStack,
    ) -> None:
        self._broker = broker
        self._redis = redis
        self._settings = settings
        self._clock = clock
        self._fail = fail
        self._stack = stack
        self._process = consumer_name(uuid4())
        self.metrics = Metrics()

    def service(self, service: Service) -> Running:
        outbox = self._stack.enter_context(Outbox(service.state / "outbox", self._process))
        bus = Bus(self._redis, outbox, Blocked(), self.metrics.registry)
        traces = service.state / "traces" if self._settings.traces else None
        tracer = self._stack.enter_context(tracing(traces, service.name, self._process))
        readers, reclaimers = [], []
        for subscription in service.subscriptions:
            worker = Worker(
                service.name,
                subscription,
                bus,
                self._settings,
                self._clock,
                self.metrics.of(service.name, subscription.stream),
                tracer,
            )
            for number in range(subscription.concurrency):
                consumer = f"{self._process}.{number}"
                readers.append(Reader(self._broker, worker, consumer, self._settings, self._fail))
            reclaimers.append(Reclaimer(worker, f"{self._process}.0", self._redis, self._settings))
        return Running(service, bus, tuple(readers), tuple(reclaimers))


async def _start(running: Sequence[Running], redis: Redis) -> None:
    wanted = {(subscription.stream, one.service.name) for one in running for subscription in one.service.subscriptions}
    await Blocked().until_accepted(partial(ensure_groups, redis, wanted))
    for one in running:
        await one.bus.adopt(one.service.state / "outbox")
        if one.service.on_start is not None:
            await one.service.on_start(one.bus)


def _loops(
    running: Sequence[Running], metrics: Metrics, settings: BusSettings, stopping: asyncio.Event
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside the readers and ends by itself once `stopping` is set, if Redis answers."""
    return [
        *(reclaimer.run(stopping) for one in running for reclaimer in one.reclaimers),
        *(keep_up(one.service, one.bus, metrics, settings, stopping) for one in running),
    ]


async def _run_job(job: Job, bus: Bus, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            events = await job.run()
        except TransientError as fault:
            log.warning("a job failed; it runs again at its next time", job=job.name, cause=str(fault))
        else:
            await bus.publish(events)
        with suppress(TimeoutError):
            async with asyncio.timeout(job.every_s):
                await stopping.wait()


async def _finish(tasks: Sequence[asyncio.Task[None]], busy: Callable[[], bool], deadline: float) -> None:
    """Wait until they have ended: up to the deadline while there is work in them, else just for an answer."""
    left = set(tasks)
    while left:
        _, left = await asyncio.wait(left, timeout=_ANSWER_S)
        if time.monotonic() >= deadline or not busy():
            for task in left:
                task.cancel()
            return


@contextmanager
def _stopped_by_signals() -> Iterator[asyncio.Event]:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
