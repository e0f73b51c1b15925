"""The pace of one process, for tests: a fleet shares `redis_pace`."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from services.fetcher.domain.faults import UpstreamError
from services.fetcher.ports import Turn


class LocalPace:
    """At most `at_once` requests to a venue at a time; `asked` counts their weight."""

    def __init__(self, at_once: int = 5) -> None:
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(at_once))
        self.asked: Counter[str] = Counter()

    async def acquire(self, venue: str, weight: int = 1) -> Turn:
        await self._slots[venue].acquire()
        self.asked[venue] += weight
        return Turn(venue, str(self.asked[venue]))

    async def served(self, turn: Turn) -> None:
        """Nothing here depends on how a venue is."""

    async def release(self, turn: Turn, fault: UpstreamError | None, *, used: int | None = None) -> None:
        self._slots[turn.venue].release()


class LocalBudget:
    def __init__(self, retries: int = 1_000_000) -> None:
        self._left: defaultdict[str, int] = defaultdict(lambda: retries)

    async def take(self, run_id: str, retries: int) -> bool:
        if self._left[run_id] < retries:
            return False
        self._left[run_id] -= retries
        return True
