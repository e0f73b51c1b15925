"""What happens to the entries of one subscription, wherever they come from: a reader, or the reclaimer.

validate each → drop what was applied before → handler → one transaction {outputs, acknowledgement, id remembered}.
An entry whose handler failed stays pending and is delivered again by the reclaimer; one that cannot be applied is
dead-lettered and acknowledged in one transaction. Entries in hand are listed in `held`, for the heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from shared.bus.contract import BatchHandler, Handler, Subscription
from shared.bus.dead_letters import dead_letter
from shared.bus.entries import Done, Entry, Held, Pair, named
from shared.bus.metrics import StreamMetrics
from shared.bus.names import failures_key, seen_key
from shared.bus.outbox import Outgoing
from shared.bus.publishing import Bus
from shared.bus.settings import BusSettings
from shared.bus.tracing import handling
from shared.bus.wire import decode, encode
from shared.clock import Clock
from shared.errors import DamagedState, TerminalError, TransientError
from shared.events import Event, Payload

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from redis.asyncio.client import Pipeline

log = structlog.get_logger("asof.bus")

# Single events are committed together while they take no longer than this, so that a burst costs few round trips.
_TOGETHER_S = 0.002


class Worker:
    def __init__(
        self,
        group: str,
        subscription: Subscription,
        bus: Bus,
        settings: BusSettings,
        clock: Clock,
        metrics: StreamMetrics,
        tracer: Tracer | None = None,
    ) -> None:
        self.group = group
        self.stream = subscription.stream
        self.subscription = subscription
        self.metrics = metrics
        self.held: dict[bytes, Held] = {}
        self.call_s = 0.0
        """A running mean of the time that one handler call takes."""
        self.failed = asyncio.Event()
        """Set when an entry has to be delivered again: the reclaimer looks when."""
        self.lost_at: float | None = None
        """When its consumer group was last found to be gone, on the monotonic clock."""
        self._bus = bus
        self._tracer = tracer
        self._settings = settings
        self._clock = clock
        self._seen = seen_key(group, subscription.stream)
        self._failures = failures_key(group, subscription.stream)
        self._applying: set[str] = set()

    @property
    def busy(self) -> bool:
        """True while entries are being handled, not merely kept for another delivery."""
        return any(held.retry_at is None for held in self.held.values())

    def ahead(self) -> int:
        """How many entries to take at once: single events only as far as `read_ahead_s` of work goes."""
        most = self.subscription.max_records
        if self.subscription.batch:
            return most
        return max(1, min(most, int(self._settings.read_ahead_s / self.call_s))) if self.call_s else 1

    async def handle(self, entries: Sequence[Entry]) -> None:
        """Bring every entry to an end, or keep it for another delivery. Raises only what is fatal for the process."""
        now = time.monotonic()
        self.held.update((entry.id, Held(entry.consumer, now, entry.deliveries)) for entry in entries)
        try:
            valid = []
            for entry in entries:
                try:
                    event = decode(self.stream, entry.id, entry.fields, cap=self._settings.event_cap)
                except TerminalError as fault:
                    await self._give_up(entry, None, fault)
                else:
                    valid.append((entry, event))
            single = self._without_twins(valid)
            ids = {event.id for _, event in single}
            self._applying |= ids
            try:
                fresh = await self._drop_repeated(single)
                await (self._apply_batch(fresh) if self.subscription.batch else self._apply_each(fresh))
            finally:
                self._applying -= ids
        finally:
            # What is kept for another delivery stays listed; all else is over or will be taken over when it lapses.
            for entry in entries:
                held = self.held.get(entry.id)
                if held is not None and held.retry_at is None:
                    del self.held[entry.id]

    async def _drop_repeated(self, valid: list[Pair]) -> list[Pair]:
        if not valid:
            return []
        scores = await self._bus.redis.zmscore(self._seen, [event.id for _, event in valid])
        repeated = [entry.id for (entry, _), score in zip(valid, scores, strict=True) if score is not None]
        if repeated:
            await self._bus.redis.xack(self.stream, self.group, *repeated)
            self.metrics.repeated.inc(len(repeated))
        return [pair for pair, score in zip(valid, scores, strict=True) if score is None]

    def _without_twins(self, pairs: list[Pair]) -> list[Pair]:
        """One entry of each event: a twin is kept until the fate of the first is known."""
        first: dict[str, Pair] = {}
        for entry, event in pairs:
            if event.id in self._applying or event.id in first:
                self._keep(entry, self._settings.retry_first_s)
            else:
                first[event.id] = (entry, event)
        return list(first.values())

    async def _apply_batch(self, fresh: list[Pair]) -> None:
        if not fresh:
            return
        if len(fresh) > 1:
            with structlog.contextvars.bound_contextvars(stream=self.stream, events=len(fresh), **named(fresh)):
                try:
                    outgoing = await self._call(fresh)
                except DamagedState:
                    raise
                except Exception as fault:  # noqa: BLE001  (one of them is to blame: the loop below finds out which)
                    log.warning("a batch failed; trying its events one by one", cause=str(fault) or repr(fault))
                else:
                    await self._commit(Done(fresh, outgoing))
                    return
        for pair in fresh:
            caused = await self._attempt(pair)
            if caused is not None:
                await self._commit(Done([pair], caused))

    async def _apply_each(self, fresh: list[Pair]) -> None:
        done = Done()
        for pair in fresh:
            caused = await self._attempt(pair)
            if caused is not None:
                done.since = done.since or time.monotonic()
                done.pairs.append(pair)
                done.outgoing += caused
            if done.pairs and time.monotonic() - done.since >= _TOGETHER_S:
                await self._commit(done)
                done = Done()
        await self._commit(done)

    async def _attempt(self, pair: Pair) -> list[Outgoing] | None:
        """What the handler wants published, or None when it failed and the entry was dealt with."""
        entry, event = pair
        # bound_contextvars would copy the whole context each time.
        bound = structlog.contextvars.bind_contextvars(run_id=event.runid, event_id=event.id, stream=self.stream)
        try:
            return await self._call([pair])
        except DamagedState:
            raise
        except TerminalError as fault:
            await self._give_up(entry, event, fault)
        except Exception as fault:  # noqa: BLE001  (a handler's fault of any kind: delivered again, then dead-lettered)
            failures = await self._bus.count(self._failures, entry.id)
            if failures >= self._settings.max_deliveries:
                await self._give_up(entry, event, fault, failures)
            else:
                self._deliver_again(entry, fault, failures)
        finally:
            structlog.contextvars.reset_contextvars(**bound)
        return None

    async def _call(self, pairs: list[Pair]) -> list[Outgoing]:
        handler: Handler | BatchHandler = self.subscription.handler
        argument: Any = [event for _, event in pairs] if self.subscription.batch else pairs[0][1]
        limit = self._settings.handler_timeout_s
        started = time.monotonic()
        try:
            with handling(self._tracer, self.group, self.stream, pairs) as trace_of:
                async with asyncio.timeout(limit):
                    outputs = await handler(argument)
                return [Outgoing(event.stream, encode(event, trace=trace_of(event))) for event in outputs]
        except TimeoutError as fault:
            if time.monotonic() - started < limit:
                raise  # the handler's own
            raise TransientError(f"the handler of {self.stream} did not end within {limit:.0f} s") from fault
        finally:
            took = time.monotonic() - started
            self.call_s = took if self.call_s == 0.0 else 0.8 * self.call_s + 0.2 * took
            self.metrics.handler.observe(took)

    async def _commit(self, done: Done) -> None:
        if not done.pairs:
            return

        def acknowledge(pipe: Pipeline) -> None:
            pipe.xack(self.stream, self.group, *(entry.id for entry, _ in done.pairs))
            now = self._clock().timestamp()
            pipe.zadd(self._seen, {event.id: now for _, event in done.pairs})
            if again := [entry.id for entry, _ in done.pairs if entry.deliveries > 1]:
                pipe.hdel(self._failures, *again)

        started = time.monotonic()
        await self._bus.commit(done.outgoing, acknowledge)
        self.metrics.commit.observe(time.monotonic() - started)
        self.metrics.applied.inc(len(done.pairs))
        self.metrics.published.inc(len(done.outgoing))
        for entry, _ in done.pairs:
            self.held.pop(entry.id, None)

    def _deliver_again(self, entry: Entry, fault: BaseException, failures: int) -> None:
        # Bounded before it is multiplied: 3 to the power of 700 is no float.
        wait = min(self._settings.retry_most_s, self._settings.retry_first_s * 3 ** min(failures - 1, 30))
        known = isinstance(fault, TransientError)
        log.warning(
            "a handler failed; its event is delivered again",
            cause=str(fault) or repr(fault),
            failures=failures,
            again_in_s=wait,
            exc_info=None if known else fault,
        )
        self.metrics.failed.inc()
        self._keep(entry, wait)

    def _keep(self, entry: Entry, wait: float) -> None:
        now = time.monotonic()
        self.held[entry.id] = Held(entry.consumer, now, entry.deliveries, now + wait)
        self.failed.set()

    async def _give_up(
        self, entry: Entry, event: Event[Payload] | None, fault: BaseException, failures: int = 1
    ) -> None:
        if not await self._still_held(entry):
            # Another worker took it over while this one was stopped; its fate is decided there.
            log.warning("gave up on an entry that is no longer ours", stream=self.stream, entry=entry.id.decode())
            return
        if self.stream == "dead-letters":
            # It is where it belongs already; a letter about a letter would never end.
            log.error("a dead letter cannot be read; it stays in its stream", entry=entry.id.decode(), cause=str(fault))
            outgoing = []
        else:
            letter = dead_letter(
                stream=self.stream,
                entry_id=entry.id,
                fields=entry.fields,
                group=self.group,
                consumer=entry.consumer,
                deliveries=entry.deliveries,
                fault=fault,
                failures=failures,
                event=event,
                time=self._clock(),
                cap=self._settings.event_cap,
            )
            outgoing = [Outgoing(letter.stream, encode(letter))]
            log.error(
                "an entry was dead-lettered",
                stream=self.stream,
                entry=entry.id.decode(),
                deliveries=entry.deliveries,
                cause=str(fault) or repr(fault),
                exc_info=None if isinstance(fault, (TerminalError, TransientError)) else fault,
            )

        def acknowledge(pipe: Pipeline) -> None:
            pipe.xack(self.stream, self.group, entry.id)
            pipe.hdel(self._failures, entry.id)

        await self._bus.commit(outgoing, acknowledge)
        self.metrics.dead.inc()
        self.held.pop(entry.id, None)

    async def give_up_unhandled(self, entry: Entry) -> None:
        """For an entry whose every delivery ended with its process: nobody is left to say why."""
        cause = TransientError(
            f"delivered {entry.deliveries} times and never finished: its handler may kill the process"
        )
        await self._give_up(entry, None, cause)

    async def _still_held(self, entry: Entry) -> bool:
        found = await self._bus.redis.xpending_range(
            self.stream, self.group, min=entry.id, max=entry.id, count=1, consumername=entry.consumer
        )
        return bool(found)
