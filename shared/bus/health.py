"""/live, /ready and /metrics. Ready means: every reader moves, every lag is known, and Redis takes writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.bus.groups import group_name
from shared.bus.metrics import Metrics
from shared.bus.publishing import Bus
from shared.bus.reader import Reader
from shared.bus.settings import BusSettings
from shared.errors import TransientError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_ANSWER_S = 2.0
# A lost group means lost entries, so somebody has to look; a probe every few seconds must not miss it.
_RED_AFTER_LOSS_S = 30.0


async def unready(redis: Redis, readers: Sequence[Reader], buses: Sequence[Bus], settings: BusSettings) -> list[str]:
    """Every reason why this process is not ready, for a person; empty when it is."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reasons = [reason for reader in readers for reason in await _standstill(redis, reader, settings)]
    except TimeoutError:
        return [f"redis does not answer within {_ANSWER_S:.0f} s"]
    except (RedisError, OSError) as fault:
        return [f"redis: {fault}"]
    reasons += [f"redis refuses writes for {bus.blocked_s:.1f} s" for bus in buses if bus.blocked_s is not None]
    return reasons


async def _standstill(redis: Redis, reader: Reader, settings: BusSettings) -> list[str]:
    worker = reader.worker
    where = f"{worker.group} on {worker.stream}"
    if worker.lost_at is not None and time.monotonic() - worker.lost_at < _RED_AFTER_LOSS_S:
        return [f"{where}: the consumer group was lost and made again"]
    if not reader.running:
        return [f"{where}: not reading"]
    if worker.group not in map(group_name, await redis.xinfo_groups(worker.stream)):
        return [f"{where}: its consumer group does not exist, so its lag is unknown"]
    now = time.monotonic()
    busy = [
        now - held.since for held in worker.held.values() if held.consumer == reader.consumer and held.retry_at is None
    ]
    if busy and max(busy) < settings.handler_timeout_s:
        return []
    if (silent_s := reader.silent_s) > settings.block_s + _ANSWER_S:
        return [f"{where}: {reader.consumer} has not read for {silent_s:.1f} s"]
    return []


def create_health_app(
    redis: Redis, readers: Sequence[Reader], buses: Sequence[Bus], metrics: Metrics, settings: BusSettings
) -> Starlette:
    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        reasons = await unready(redis, readers, buses, settings)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    async def figures(_: Request) -> Response:
        metrics.blocked.set(any(bus.blocked_s is not None for bus in buses))
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/live", live), Route("/ready", ready), Route("/metrics", figures)])


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the runner's: they stop the readers first


@asynccontextmanager
async def serving(app: Any, settings: BusSettings) -> AsyncIterator[int | None]:
    """Serve `app` while the block runs, when a port is set; yields the port (0 lets the system choose one)."""
    if settings.port is None:
        yield None
        return
    server = _Server(
        uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None, access_log=False, lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            raise TransientError(f"port {settings.port} cannot be opened", fix="set another ASOF_PORT")
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
