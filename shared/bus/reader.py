"""FastStream's part: it reads a group in batches and calls the worker. Everything about an entry is the worker's.

Three of its habits are set aside (docs/adr/0010-bus-on-faststream.md): entries reach the worker as raw bytes, so that
they are parsed once and one by one; acknowledgement is manual; and how much a read takes may change between reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import FAKE_CONSUMER, RedisBatchStreamMessage

from shared.bus.entries import Entry
from shared.bus.publishing import Blocked
from shared.bus.settings import BusSettings
from shared.bus.worker import Worker


class PacedStream(StreamSub[Literal[True]]):
    """A StreamSub whose `max_records` may be changed while it is read, and that knows when it was read last.

    FastStream asks for `max_records` with each read. It works on a copy that `add_prefix` makes; there is no prefix
    here, and the copy would not see the change.
    """

    def __init__(self, name: str, *, group: str, consumer: str, max_records: int, polling_interval: int) -> None:
        self.read_at = time.monotonic()
        self._most = max_records
        super().__init__(
            name,
            group=group,
            consumer=consumer,
            batch=True,
            max_records=max_records,
            polling_interval=polling_interval,
        )

    @property
    def max_records(self) -> int:
        self.read_at = time.monotonic()
        return self._most

    @max_records.setter
    def max_records(self, most: int) -> None:
        self._most = most

    def add_prefix(self, prefix: str) -> PacedStream:
        assert not prefix, "streams of the bus have no prefix"
        return self


class Reader:
    """One reading loop of one subscription, under a consumer name of its own."""

    def __init__(
        self,
        broker: RedisBroker,
        worker: Worker,
        consumer: str,
        settings: BusSettings,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self.worker = worker
        self.consumer = consumer
        self._fatal = fatal
        self._longest_read_s = settings.block_s + 1
        self._stream = PacedStream(
            worker.stream,
            group=worker.group,
            consumer=consumer,
            max_records=worker.ahead(),
            polling_interval=int(settings.block_s * 1000),
        )
        self._subscriber = broker.subscriber(
            stream=self._stream, ack_policy=AckPolicy.MANUAL, parser=_unparsed, decoder=_raw, no_reply=True
        )
        self._subscriber(self._take)

    @property
    def silent_s(self) -> float:
        """How long ago it asked for entries."""
        return time.monotonic() - self._stream.read_at

    @property
    def running(self) -> bool:
        """False after FastStream stopped reading for good: the group was lost."""
        return self._subscriber.running

    async def start(self) -> None:
        # FastStream asks for the group again, which a full server refuses even for one that exists.
        await Blocked().until_accepted(self._subscriber.start)

    async def stop(self) -> None:
        """Stop reading; returns when what was read is handled and no read is under way any more.

        FastStream cancels its loop without waiting for it, and redis-py may swallow a cancellation while it connects:
        a read that outlives the stop would take entries for a consumer that nobody serves.
        """
        loops = tuple(self._subscriber.tasks)
        await self._subscriber.stop()
        if loops:
            await asyncio.wait(loops, timeout=self._longest_read_s)

    async def _take(self, message: dict[str, Any]) -> None:
        entries = [
            Entry(entry_id, fields, self.consumer)
            for entry_id, fields in zip(message["message_ids"], message["data"], strict=True)
        ]
        try:
            await self.worker.handle(entries)
        except Exception as fault:
            self._fatal(fault)  # FastStream would log it and read on
            raise
        self._stream.max_records = self.worker.ahead()


async def _unparsed(message: Any, _: Callable[..., Awaitable[Any]]) -> RedisBatchStreamMessage:
    return RedisBatchStreamMessage(raw_message=message, body=b"", consumer=FAKE_CONSUMER, group=None)


async def _raw(message: RedisBatchStreamMessage, _: Callable[..., Awaitable[Any]]) -> Any:
    return message.raw_message
