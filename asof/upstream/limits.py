"""The limits a venue publishes, counted by the server for itself: the client's own limiter is what is being tested."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Rule:
    """`allowance` of weight in any `window_s` (or in each `fixed` one), for the host or each of its endpoints.

    `at_once` bounds the requests in flight. Past the allowance the host says no for `penalty_s` seconds (0: until
    the window has room). `names_the_wait` is whether it tells how long. Who comes more than `ban_after` times in a
    window although told to wait is banned for `ban_s`.
    """

    allowance: int
    window_s: float
    fixed: bool = False
    each_endpoint: bool = False
    at_once: int | None = None
    penalty_s: float = 0.0
    names_the_wait: bool = True
    ban_after: int | None = None
    ban_s: float = 120.0


@dataclass(frozen=True)
class Over:
    """A refusal: `slow_down` or `banned`, how long it lasts (None when the venue does not say), and when it ends."""

    reason: Literal["rate", "at_once", "paused"]
    banned: bool
    wait_s: float | None
    until: float


class _Pause(NamedTuple):
    until: float
    banned: bool
    heard_at: float | None  # None: the client was not told how long


class Meter:
    """Counts one venue.

    `timer` gives seconds that only grow; `wall` gives the served clock, for answers that name an instant. `hearing_s`
    is how long an answer takes to reach its client: what was on its way by then did not break its word.
    """

    def __init__(self, rule: Rule, *, timer: Callable[[], float], wall: Callable[[], float], hearing_s: float) -> None:
        self.rule = rule
        self.factor = 1.0
        self.enforced = True
        self.in_flight = 0
        self.peak_in_flight = 0
        self._timer = timer
        self._wall = wall
        self._hearing_s = hearing_s
        self._started = timer()
        self._spent: dict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._insisted: deque[float] = deque()
        self._pause: _Pause | None = None

    def enter(self, endpoint: str, weight: int) -> Over | None:
        """Take `weight`, or say why not. A request that was let in calls `leave` when it is answered."""
        now = self._timer()
        paused = self._paused(now)
        if paused is not None:
            return self._banned_for_insisting(now) or paused
        if self.enforced:
            if self.rule.at_once is not None and self.in_flight >= self._scaled(self.rule.at_once):
                return Over("at_once", False, None, self._wall())
            room_at = self._room_at(endpoint, weight, now)
            if room_at > now:
                return self._refuse(room_at - now)
        self._spent[self._window_of(endpoint)].append((now, weight))
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return None

    def leave(self) -> None:
        self.in_flight -= 1

    def pause(self, seconds: float, *, banned: bool, told: bool = True) -> Over:
        """Say no to everything for `seconds`; `told`: the client hears how long, so coming back before is its fault."""
        now = self._timer()
        self._pause = _Pause(now + seconds, banned, now + self._hearing_s if told else None)
        return Over("rate", banned, seconds if told else None, self._wall() + seconds)

    def was_told_to_wait(self) -> bool:
        """Whether a client that sends a request now does so against what it was told."""
        pause, now = self._pause, self._timer()
        return pause is not None and pause.heard_at is not None and pause.heard_at < now < pause.until

    def used(self, endpoint: str) -> int:
        """The weight spent in the present window."""
        window = self._spent[self._window_of(endpoint)]
        self._forget(window, self._timer())
        return sum(weight for _, weight in window)

    def _paused(self, now: float) -> Over | None:
        pause = self._pause
        if pause is None or now >= pause.until:
            return None
        left = pause.until - now
        return Over("paused", pause.banned, None if pause.heard_at is None else left, self._wall() + left)

    def _refuse(self, until_room_s: float) -> Over:
        wait = self.rule.penalty_s or until_room_s
        if self.rule.penalty_s or self.rule.names_the_wait:
            return self.pause(wait, banned=False, told=self.rule.names_the_wait)
        return Over("rate", False, None, self._wall() + wait)

    def _banned_for_insisting(self, now: float) -> Over | None:
        """A longer pause for a client that keeps coming against what it was told; None while that is bearable."""
        if self.rule.ban_after is None or not self.enforced or not self.was_told_to_wait():
            return None
        self._insisted.append(now)
        while self._insisted[0] <= now - self.rule.window_s:
            self._insisted.popleft()
        return self.pause(self.rule.ban_s, banned=True) if len(self._insisted) > self.rule.ban_after else None

    def _room_at(self, endpoint: str, weight: int, now: float) -> float:
        """The first moment with room for `weight`: now, or later."""
        window = self._spent[self._window_of(endpoint)]
        self._forget(window, now)
        allowance = self._scaled(self.rule.allowance)
        spent = sum(weight for _, weight in window)
        if spent + weight <= allowance:
            return now
        if self.rule.fixed:
            return self._window_start(now) + self.rule.window_s
        for at, gone in window:
            spent -= gone
            if spent + weight <= allowance:
                return at + self.rule.window_s
        return now + self.rule.window_s  # more than a whole window's allowance at once

    def _forget(self, window: deque[tuple[float, int]], now: float) -> None:
        # A fixed window that began at `start` still counts what was spent exactly then; a sliding one has just lost it.
        start = self._window_start(now) if self.rule.fixed else now - self.rule.window_s
        while window and (window[0][0] < start if self.rule.fixed else window[0][0] <= start):
            window.popleft()

    def _window_start(self, now: float) -> float:
        elapsed = now - self._started
        return self._started + elapsed // self.rule.window_s * self.rule.window_s

    def _window_of(self, endpoint: str) -> str:
        return endpoint if self.rule.each_endpoint else ""

    def _scaled(self, allowance: int) -> int:
        return max(1, int(allowance * self.factor))
