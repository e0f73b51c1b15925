"""A worker process that can be killed, and guards that can be taken off: `python -m tests.faults.bus_worker …`.

The fetcher applies each fetch-task by making one file and answers with one fetch-attempted. `--crash` says where it
kills itself the first time it meets batch 7; `--without` takes one guard of the bus off, for negative controls.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from redis.exceptions import ResponseError

from shared.bus import (
    Job,
    Service,
    Subscription,
    outbox,
    publishing,
    reclaim,
    run_services,
    runner,
    watch,
    wire,
    worker,
)
from shared.errors import ContractError, TerminalError, TransientError
from shared.events import Event
from tests.integration.bus_parts import QUICK, attempted

CRASHES_AT = 7
# Symbols that tell a chaotic worker what to do with an event.
POISON, FAILS, SLOW = "PSE:POISON", "PSE:FAILS", "PSE:SLOW"


def take_off(guard: str, put: Callable[[object, str, object], None] = setattr) -> None:
    """Replace one guard by what a plain consumer would do. `put` is monkeypatch.setattr inside a test process."""

    async def nothing(*_: object, **__: object) -> None:
        return None

    async def until_stopped(_: object, stopping: asyncio.Event) -> None:
        await stopping.wait()

    async def at_the_end(redis: Any, wanted: Any) -> None:
        for stream, group in wanted:
            with suppress(ResponseError):  # it exists
                await redis.xgroup_create(stream, group, id="$", mkstream=True)

    async def one_by_one(self: Any, outgoing: Sequence[Any], finish: Any = None) -> None:
        async with self.redis.pipeline(transaction=False) as pipe:
            for item in outgoing:
                pipe.xadd(item.stream, dict(item.fields))
            if finish is not None:
                finish(pipe)
            await pipe.execute(raise_on_error=False)

    async def all_or_nothing(self: Any, entries: Sequence[Any]) -> None:
        try:
            for entry in entries:
                wire.decode(self.stream, entry.id, entry.fields, cap=1 << 30)
        except ContractError:
            return  # as a typed batch does: the fault is logged, the whole batch stays pending
        await handle(self, entries)

    handle = worker.Worker.handle

    async def all_of_it(_: object, pairs: list[Any]) -> list[Any]:
        return pairs

    match guard:
        case "reclaimer":
            put(reclaim.Reclaimer, "run", until_stopped)
        case "heartbeat":
            put(watch, "beat", nothing)
        case "regrouping":
            put(watch, "revive", nothing)
        case "groups at 0":
            put(runner, "ensure_groups", at_the_end)
        case "transaction":
            put(publishing.Bus, "commit", one_by_one)
        case "dedupe":
            put(worker.Worker, "_drop_repeated", all_of_it)
            put(worker.Worker, "_without_twins", lambda _, pairs: pairs)
        case "outbox":
            put(outbox.Outbox, "write", lambda self, _: self._folder / "unwritten")
            put(outbox.Outbox, "sent", staticmethod(lambda path: path.unlink(missing_ok=True)))
        case "validation one by one":
            put(worker.Worker, "handle", all_or_nothing)
        case "graceful stop":
            put(runner, "_stopped_by_signals", lambda: nullcontext(asyncio.Event()))
        case "ownership":
            put(worker.Worker, "_still_held", lambda *_: asyncio.sleep(0, True))
        case _:
            raise ValueError(guard)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def apply(event: Event[Any], *, folder: Path, crash: str | None, slow_s: float) -> list[Event[Any]]:
    batch = event.data.batch
    first = not list((folder / "attempts").glob(f"{batch}.*"))
    (folder / "attempts" / f"{batch}.{os.getpid()}.{uuid4().hex}").touch()
    if crash == "before the effect" and batch == CRASHES_AT and first:
        die()
    await asyncio.sleep(slow_s)
    with (folder / "appended").open("a") as lines:
        lines.write(f"{batch}\n")
    (folder / "effects" / str(batch)).touch()
    if crash in ("in the transaction", "between publication and acknowledgement") and batch == CRASHES_AT and first:
        die_before_acknowledging(transaction=crash == "in the transaction")
    if crash == "after the effect" and batch == CRASHES_AT and first:
        die()
    return [attempted(event.data.run_id, batch)]


def die_before_acknowledging(*, transaction: bool) -> None:
    """From now on a commit adds its events and dies before it acknowledges: within a transaction or without one."""

    async def commit(self: Any, outgoing: Sequence[Any], finish: Any = None) -> None:
        connection = await self.redis.connection_pool.get_connection()
        commands = [("XADD", item.stream, "*", *chain.from_iterable(item.fields.items())) for item in outgoing]
        for command in [("MULTI",), *commands] if transaction else commands:
            await connection.send_command(*command)
            await connection.read_response()
        die()

    publishing.Bus.commit = commit  # type: ignore[method-assign, assignment]


async def announce(*, folder: Path, crash: str | None) -> list[Event[Any]]:
    """A job with an effect of its own: nothing would make it return these events a second time."""
    if (folder / "announced").exists():
        return []
    (folder / "announced").touch()
    if crash == "after the outbox":
        kept = publishing.Bus.commit

        async def die_before_publishing(self: Any, outgoing: Sequence[Any], finish: Any = None) -> None:
            self._outbox.write(outgoing)
            die()
            await kept(self, outgoing, finish)

        publishing.Bus.commit = die_before_publishing  # type: ignore[method-assign]
    return [attempted("announced", batch) for batch in range(5)]


async def suffer(event: Event[Any], *, folder: Path) -> list[Event[Any]]:
    """For chaos: most events are quick; some are poison, some fail twice, some outlast the takeover time."""
    batch, symbol = event.data.batch, event.data.symbols[0]
    with (folder / "calls" / str(os.getpid())).open("a") as calls:
        calls.write(".")
    if symbol == POISON:
        raise TerminalError(f"batch {batch} is poison")
    if symbol == FAILS:
        (folder / "attempts" / f"{batch}.{os.getpid()}.{uuid4().hex}").touch()
        if len(list((folder / "attempts").glob(f"{batch}.*"))) <= 2:
            raise TransientError("not yet")
    if symbol == SLOW:
        await asyncio.sleep(QUICK.min_idle_s * 2)
    put(folder / "effects" / str(batch), event.id)
    return [attempted(event.data.run_id, batch)]


def put(path: Path, content: str) -> None:
    """The effect of an event: the same one again changes nothing, another one is kept beside it."""
    try:
        with path.open("x") as file:
            file.write(content)
    except FileExistsError:
        found = path.read_text()
        if not found:  # its writer was killed, or is at it
            path.write_text(content)
        elif found != content:
            path.with_name(f"{path.name}.double").write_text(content)


async def audit(events: Sequence[Event[Any]], *, folder: Path) -> list[Event[Any]]:
    for event in events:
        (folder / "audited" / str(event.data.batch)).touch()
    return []


def chaotic(folder: Path) -> list[Service]:
    for name in ("attempts", "calls", "effects", "audited"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    fetching = Subscription("fetch-tasks", partial(suffer, folder=folder), concurrency=2)
    auditing = Subscription("fetch-attempted", partial(audit, folder=folder), batch=True)
    return [
        Service("fetcher", (fetching,), folder / "state" / "fetcher"),
        Service("auditor", (auditing,), folder / "state" / "auditor"),
    ]


def fetcher(folder: Path, *, crash: str | None = None, slow_s: float = 0, job: bool = False) -> Service:
    for name in ("attempts", "effects"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Service(
        "fetcher",
        (Subscription("fetch-tasks", partial(apply, folder=folder, crash=crash, slow_s=slow_s), max_records=16),),
        folder / "state",
        jobs=(Job("announce", 0.2, partial(announce, folder=folder, crash=crash)),) if job else (),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crash")
    parser.add_argument("--without")
    parser.add_argument("--slow", type=float, default=0)
    parser.add_argument("--job", action="store_true")
    parser.add_argument("--chaos", action="store_true")
    wanted = parser.parse_args()
    # Standard output is a pipe that nobody empties: a worker that logs there stops when it is full.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    if wanted.without:
        take_off(wanted.without)
    services = [fetcher(wanted.folder, crash=wanted.crash, slow_s=wanted.slow, job=wanted.job)]
    if wanted.chaos:
        services = chaotic(wanted.folder)
    asyncio.run(run_services(services, wanted.url, settings=QUICK, ready=partial(print, "ready", flush=True)))


if __name__ == "__main__":
    main()
