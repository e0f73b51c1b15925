"""Which fault meets which request: decided by the seed and the request, so that the same seed finds the same faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from asof.upstream.faults.catalogue import BY_NAME, GROUPS, Fault
from shared.errors import ContractError

_FINAL_SHARE = 0.05


@dataclass(frozen=True)
class Faults:
    """`names`: faults of the catalogue, or `matrix` or `hostile`; `rate`: the part of requests that meets one.

    A single fault always meets the first request that it can happen to. The durations are what the faults name or
    take.
    """

    names: tuple[str, ...]
    seed: int = 0
    rate: float = 0.3
    retry_after_s: float = 1.0
    ban_s: float = 3.0
    bybit_pause_s: float = 600.0
    hold_s: float = 30.0

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Faults:
        """From names with commas between them. Raises ContractError for one that is not known."""
        return cls(tuple(name.strip() for name in text.split(",") if name.strip()), seed)

    def chosen(self) -> tuple[Fault, ...]:
        chosen: dict[str, Fault] = {}
        for name in self.names:
            if name not in BY_NAME and name not in GROUPS:
                known = ", ".join([*GROUPS, *BY_NAME])
                raise ContractError(f"there is no fault {name!r}", fix=f"choose of: {known}")
            chosen |= {fault.name: fault for fault in GROUPS.get(name, (BY_NAME.get(name),)) if fault is not None}
        return tuple(chosen.values())


class Plan:
    def __init__(self, faults: Faults | None) -> None:
        self.faults = faults or Faults(())
        chosen = self.faults.chosen()
        self.lasting = tuple(fault for fault in chosen if fault.lasting)
        self._passing = tuple(fault for fault in chosen if not fault.lasting)
        self._attempts: Counter[tuple[str, str, str]] = Counter()
        self._done: set[tuple[str, str]] = set()
        self._lasting_choice: dict[str, str] = {}
        self._turns = 0

    def choose(self, venue: str, kind: str, identity: str) -> Fault | None:
        """The fault that this request meets, or None. `identity` is what makes a second attempt the same request."""
        possible = [fault for fault in self._passing if fault.can_happen(venue, kind)]
        if not possible:
            return None
        key = (venue, kind, identity)
        self._attempts[key] += 1
        draw = self.draw(*key, str(self._attempts[key]))
        if len(self._passing) == 1:
            fault = possible[0]
            return self._remember(fault, venue) if draw < self.faults.rate or not self._has_done(fault, venue) else None
        if draw >= self.faults.rate:
            return None
        may_end = draw < self.faults.rate * _FINAL_SHARE
        possible = [fault for fault in possible if fault.final == may_end] or possible
        fresh = [fault for fault in possible if not self._has_done(fault, venue)]
        return self._remember(
            min(fresh or possible, key=lambda fault: self.draw(*key, str(self._attempts[key]), fault.name)), venue
        )

    def lasting_choice(self, name: str, offered: Iterable[str]) -> str | None:
        """The one thing a lasting fault has settled on, chosen from the first offer that has any."""
        if name not in self._lasting_choice:
            candidates = sorted(offered)
            if not candidates:
                return None
            self._lasting_choice[name] = min(candidates, key=lambda item: self.draw(name, item))
        return self._lasting_choice[name]

    def turn(self, of: int) -> int:
        """0, 1, … of - 1 and again, for a fault that has several forms."""
        self._turns += 1
        return (self._turns - 1) % of

    def draw(self, *parts: str) -> float:
        """A number in [0, 1) that is the same for the same seed and parts."""
        text = "\x1f".join((str(self.faults.seed), *parts)).encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64

    def some(self, items: Sequence[Any], share: float, *parts: str) -> set[int]:
        """The indexes of about `share` of the items, one at least where there are any."""
        if not items:
            return set()
        draws = [self.draw(*parts, str(index)) for index in range(len(items))]
        return {index for index, draw in enumerate(draws) if draw < share} or {draws.index(min(draws))}

    def _has_done(self, fault: Fault, venue: str) -> bool:
        return (fault.name, venue) in self._done

    def _remember(self, fault: Fault, venue: str) -> Fault:
        self._done.add((fault.name, venue))
        return fault
