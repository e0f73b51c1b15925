"""The bus: at-least-once delivery of events over Redis streams. Handlers see events and return events.

contract.py    what a service hands over          wire.py        the fields of an entry, and what people may type
runner.py      running services                   publishing.py  publishing, and the transaction that ends an entry
reader.py      FastStream reads                   outbox.py      events on disk until Redis has them
worker.py      what happens to an entry           dead_letters.py  what cannot be applied
reclaim.py     what failed or was abandoned       watch.py       heartbeats, lost groups
letterbox.py   what operators do with those       traces.py      the spans of a run, read back
upkeep.py      trimming, archives, the dead       health.py      readiness and metrics
access.py      what each user of the server may   settings.py    every figure
address.py     the URL of Redis, one server's or a Sentinel's
client.py      for the command line: publish and follow, without a group
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shared.bus.contract import BatchHandler, Handler, Job, Service, Subscription
from shared.bus.settings import BusSettings

if TYPE_CHECKING:
    import asyncio

    from shared.bus.publishing import Bus as Bus

__all__ = ["BatchHandler", "Bus", "BusSettings", "Handler", "Job", "Service", "Subscription", "run_services"]


async def run_services(
    services: Sequence[Service],
    redis_url: str,
    *,
    settings: BusSettings,
    stop: asyncio.Event | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Run until `stop` is set, or without one until SIGTERM or SIGINT; then finish what is in flight.

    `ready` is called once every reader reads. Raises what a service cannot go on with: TransientError when Redis does
    not answer, and any fault of the bus itself or of a job.
    """
    # FastStream takes half a second to import; a client that only publishes and follows does not need it.
    from shared.bus import runner

    await runner.run_services(services, redis_url, settings=settings, stop=stop, ready=ready)


def __getattr__(name: str) -> object:
    if name == "Bus":
        from shared.bus.publishing import Bus

        return Bus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
