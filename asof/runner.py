"""The embedded runner: composes the services into one process, with a real Redis-compatible server when none is set."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any

from asof.logs import log_to_file, log_to_stderr
from asof.session import Session
from asof.settings import HouseSettings
from shared.bus import BusSettings, Service, run_services
from shared.errors import ContractError
from shared.streams import SERVICES

# A command has its answer by now; what is still in flight is delivered again to whoever runs next.
_GRACE_S = 3.0

Overrides = Mapping[str, Mapping[str, Any]]


def import_services() -> None:
    """Import all services, which takes a second or two: for whoever has to wait for something else anyway."""
    for name in SERVICES:
        import_module(f"services.{name}.app")


def create_service(name: str, settings: HouseSettings, overrides: Overrides = MappingProxyType({})) -> Service:
    """Build one service through its own `create_app`, with this house's home; `overrides` are settings by service."""
    if name not in SERVICES:
        raise ContractError(f"no service is called {name!r}", fix=f"asof up [{'|'.join(SERVICES)}]")
    own = import_module(f"services.{name}.settings").Settings(home=settings.home, **overrides.get(name, {}))
    service = import_module(f"services.{name}.app").create_app(own)
    assert isinstance(service, Service)
    return service


@asynccontextmanager
async def house_at_work(
    settings: HouseSettings, services: Sequence[str] = SERVICES, *, overrides: Overrides = MappingProxyType({})
) -> AsyncIterator[Session]:
    """A session of this house. Without `ASOF_REDIS_URL` the named services run in this process for its length; with
    none named, only the server does.

    Leaving waits until the services have applied what the streams hold for them, so that no command ends between a
    verdict and the files that it promised.
    """
    async with AsyncExitStack() as stack:
        secret = settings.redis()
        if secret is not None:
            yield Session(settings.paths(), secret.get_secret_value(), _person())
            return
        from asof.embedded import embedded_redis

        log_to_file(settings.paths().state / "services.log")
        url = await stack.enter_async_context(embedded_redis(settings.paths()))
        session = Session(settings.paths(), url, _person())
        if services:
            built = [create_service(name, settings, overrides) for name in services]
            await stack.enter_async_context(_running(built, url))
        yield session
        if services:
            await session.settle()


@asynccontextmanager
async def _running(services: Sequence[Service], url: str) -> AsyncIterator[None]:
    stop, ready = asyncio.Event(), asyncio.Event()
    bus = BusSettings().model_copy(update={"grace_s": _GRACE_S})
    task = asyncio.create_task(run_services(services, url, settings=bus, stop=stop, ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    try:
        # A service that cannot start must end the command with its own error, not leave it waiting.
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield
    finally:
        waiting.cancel()
        stop.set()
        await task


def run_until_stopped(settings: HouseSettings, names: Sequence[str]) -> None:
    """`asof up`: run until SIGINT or SIGTERM, then finish and acknowledge what is in flight."""
    log_to_stderr(settings.log)
    asyncio.run(_up(settings, names or SERVICES))


async def _up(settings: HouseSettings, names: Sequence[str]) -> None:
    services = [create_service(name, settings) for name in names]
    async with AsyncExitStack() as stack:
        secret = settings.redis()
        if secret is None:
            from asof.embedded import embedded_redis

            url = await stack.enter_async_context(embedded_redis(settings.paths()))
        else:
            url = secret.get_secret_value()
        await run_services(services, url, settings=BusSettings(port=settings.port))


def _person() -> str:
    """Who asks: the login name, as the ledger will show it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"
