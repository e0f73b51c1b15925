"""Small services for tests of the bus, and what they did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from shared.bus import BusSettings, Service, Subscription, run_services
from shared.events import Event, FetchAttempted, FetchTask, RunCandidates

T0 = datetime(2024, 5, 1, tzinfo=UTC)
QUICK = BusSettings(min_idle_s=0.4, reclaim_every_s=0.1, retry_first_s=0.05, retry_most_s=0.2, grace_s=5, block_s=0.5)


def run(name: str, *candidates: str) -> Event[Any]:
    return Event.of(RunCandidates(candidates=list(candidates or ("PSE:JFC",)), run_id=name), source="test", time=T0)


def task(name: str, batch: int = 0, symbol: str = "PSE:JFC") -> Event[Any]:
    data = FetchTask(
        run_id=name, kind="bars", batch=batch, batches=10_000_000, symbols=(symbol,), interval="1d", as_of=T0
    )
    return Event.of(data, source="test", time=T0)


def attempted(name: str, batch: int = 0) -> Event[Any]:
    data = FetchAttempted(
        run_id=name, kind="bars", batch=batch, idx=1, fetched=1, failed=0, started_at=T0, duration_s=0.5
    )
    return Event.of(data, source="test", time=T0)


class Seen:
    """A handler that notes what it got; `then` is called with each event and its number of calls so far."""

    def __init__(self, then: Callable[[Event[Any], int], Awaitable[Sequence[Event[Any]]]] | None = None) -> None:
        self.events: list[Event[Any]] = []
        self.applied: list[Event[Any]] = []
        self._then = then
        self._news = asyncio.Event()

    async def __call__(self, event: Event[Any]) -> Sequence[Event[Any]]:
        self.events.append(event)
        outputs: Sequence[Event[Any]] = ()
        if self._then is not None:
            outputs = await self._then(event, sum(other.id == event.id for other in self.events))
        self.applied.append(event)
        self._news.set()
        return outputs

    async def until(self, count: int, timeout_s: float = 10) -> list[Event[Any]]:
        async with asyncio.timeout(timeout_s):
            while len(self.applied) < count:
                self._news.clear()
                await self._news.wait()
        return self.applied


def service(name: str, state: Path, *subscriptions: Subscription, **more: Any) -> Service:
    return Service(name, subscriptions, state / name, **more)


@asynccontextmanager
async def running(*services: Service, url: str, settings: BusSettings = QUICK) -> AsyncIterator[None]:
    stop, ready = asyncio.Event(), asyncio.Event()
    work = asyncio.create_task(run_services(services, url, settings=settings, stop=stop, ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        await work
    try:
        yield
    finally:
        stop.set()
        await work


async def pending(url: str, stream: str, group: str) -> int:
    async with Redis.from_url(url) as redis:
        return (await redis.xpending(stream, group))["pending"]


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 60) -> None:
    """Wait for what has to come; long, because a machine may stand still for seconds and that is no fault of ours."""
    deadline = time.monotonic() + timeout_s
    async with asyncio.timeout(timeout_s):
        while not await condition():
            # A client may swallow the cancellation that a timeout is made of.
            if time.monotonic() > deadline:
                raise TimeoutError
            await asyncio.sleep(0.01)
