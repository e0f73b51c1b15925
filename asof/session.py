"""A house at work for the length of one command: its Redis, and the services when nobody else runs them.

With `ASOF_REDIS_URL` the services run elsewhere and a command only talks to their streams. Without it a real server is
started (or a running one of the same home is joined) and the services run in this process until the command is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from shared.clock import Clock, system_clock
from shared.errors import TransientError
from shared.events import Command, CommandKind, CommandResult, Event, Payload, RunCandidates
from shared.paths import Home

if TYPE_CHECKING:
    from asof.lakehouse import Lakehouse


@dataclass(frozen=True)
class Session:
    """What a command needs to talk to the house."""

    home: Home
    redis_url: str
    requested_by: str
    clock: Clock = system_clock

    def lake(self) -> Lakehouse:
        from asof.lakehouse import Lakehouse

        return Lakehouse(self.home.root)

    async def publish(self, *payloads: Payload) -> list[str]:
        """Publish and return the stream entry ids."""
        from shared.bus import client

        return await client.publish(
            self.redis_url, [Event.of(payload, source="cli", time=self.clock()) for payload in payloads]
        )

    async def start(self, run: RunCandidates) -> str:
        """Publish a run and return its id: the one it states, else the id of its stream entry."""
        (entry_id,) = await self.publish(run)
        return run.run_id or entry_id

    async def follow(
        self, positions: Mapping[str, str], *, timeout_s: float | None = None
    ) -> AsyncIterator[Event[Payload]]:
        """Every event of these streams after the given entry ids, as it arrives."""
        from shared.bus import client

        async for followed in client.follow(self.redis_url, positions, timeout_s=timeout_s):
            yield followed.event

    async def newest(self, *streams: str) -> dict[str, str]:
        """Each stream's newest entry id: the position to follow from before publishing."""
        from shared.bus import client

        return await client.newest(self.redis_url, streams)

    async def ask(
        self, kind: CommandKind, arguments: Mapping[str, Any], *, run_id: str | None = None, timeout_s: float = 60
    ) -> CommandResult:
        """Publish a command and wait for its result. Raises TransientError when no service answers in time."""
        positions = await self.newest("command-results")
        command = Command(
            command_id=uuid4().hex, kind=kind, run_id=run_id, arguments=dict(arguments), requested_by=self.requested_by
        )
        await self.publish(command)
        async for event in self.follow(positions, timeout_s=timeout_s):
            if isinstance(event.data, CommandResult) and event.data.command_id == command.command_id:
                return event.data
        raise TransientError(
            f"no service answered `{kind}` within {timedelta(seconds=timeout_s)}",
            cause="the service that carries it out is not running, or is behind",
            fix="asof doctor",
        )

    async def settle(self, *, timeout_s: float = 30) -> None:
        """Wait until the services that keep what a run made have nothing left to read or to finish.

        The fetcher is not waited for: what it still tries after a verdict changes nothing of it, and is taken up again.
        """
        from shared.bus import client

        await client.settle(self.redis_url, timeout_s=timeout_s, services=("catalog", "features", "auditor"))
