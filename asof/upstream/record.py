"""What the server saw: one entry a request, and sums that let a test ask whether a limit was crossed."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass
from typing import Any

# Enough for every test and benchmark; the sums go on counting past it.
_KEPT = 200_000


@dataclass(frozen=True)
class Seen:
    """One request as it was answered. `at_s` counts from the server's start, `clock` is the served time.

    `status` 0: no answer was sent. `refused`: rate, at_once or paused, when the server's own limits said no.
    `told_to_wait`: it came although the venue had said how long to stay away. `fault`: what was done to the answer on
    purpose.
    """

    at_s: float
    clock: str
    venue: str
    kind: str
    method: str
    path: str
    symbols: tuple[str, ...]
    weight: int
    status: int
    duration_s: float
    refused: str | None = None
    told_to_wait: bool = False
    fault: str | None = None


@dataclass
class _Sums:
    requests: int = 0
    weight: int = 0
    limit_crossed: int = 0
    contacted_while_paused: int = 0


class Record:
    def __init__(self) -> None:
        self._seen: deque[Seen] = deque(maxlen=_KEPT)
        self._sums: dict[str, _Sums] = defaultdict(_Sums)
        self._statuses: dict[str, Counter[str]] = defaultdict(Counter)
        self._kinds: dict[str, Counter[str]] = defaultdict(Counter)
        self._faults: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, seen: Seen) -> None:
        self._seen.append(seen)
        sums = self._sums[seen.venue]
        sums.requests += 1
        sums.weight += seen.weight
        sums.limit_crossed += seen.refused in ("rate", "at_once")
        sums.contacted_while_paused += seen.told_to_wait
        self._statuses[seen.venue][str(seen.status)] += 1
        self._kinds[seen.venue][seen.kind] += 1
        if seen.fault is not None:
            self._faults[seen.venue][seen.fault] += 1

    def clear(self) -> None:
        self._seen.clear()
        for sums in (self._sums, self._statuses, self._kinds, self._faults):
            sums.clear()

    def entries(self, *, venue: str | None = None, last: int | None = None) -> list[Seen]:
        """Oldest first; `last` keeps only the newest so many."""
        chosen = [seen for seen in self._seen if venue is None or seen.venue == venue]
        return chosen if last is None else chosen[-last:] if last else []

    def stats(self) -> dict[str, dict[str, Any]]:
        """By venue: requests, weight, limit_crossed, contacted_while_paused, and counts by status, kind and fault."""
        return {
            venue: asdict(sums)
            | {
                "statuses": dict(self._statuses[venue]),
                "kinds": dict(self._kinds[venue]),
                "faults": dict(self._faults[venue]),
            }
            for venue, sums in self._sums.items()
        }
