"""The server's clock: what `Date` says, and the instant after which nothing is served."""

from __future__ import annotations

from datetime import datetime

from shared.clock import Clock, system_clock


class ReplayClock:
    """Stands still at an instant until it is set to another one; without an instant it is the system's clock.

    Standing still keeps a replay exact: two runs at one instant see the same bars, however long they take.
    """

    def __init__(self, instant: datetime | None = None, *, system: Clock = system_clock) -> None:
        self._instant = instant
        self._system = system

    def now(self) -> datetime:
        return self._instant or self._system()

    def seconds(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self.now().timestamp()

    def set(self, instant: datetime | None) -> None:
        self._instant = instant
