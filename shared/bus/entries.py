"""What the bus knows about an entry while it is in hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.bus.outbox import Outgoing
from shared.events import Event, Payload


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivery of one entry. `consumer` is who holds it in the group's pending list."""

    id: bytes
    fields: Mapping[bytes, bytes]
    consumer: str
    deliveries: int = 1


@dataclass(slots=True)
class Held:
    """An entry that this process works on, or keeps until `retry_at`; times are time.monotonic()."""

    consumer: str
    since: float
    deliveries: int
    retry_at: float | None = None


# How many runs and events of a batch its log lines spell out.
_NAMED = 8

# An entry that was validated, and its event.
Pair = tuple[Entry, Event[Payload]]


@dataclass(slots=True)
class Done:
    """Entries whose effects are made but not yet acknowledged, and what they cause to be published."""

    pairs: list[Pair] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    since: float = 0.0


def named(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What log lines of a batch carry: the first `event_ids`, and `run_id` when it is of one run, else `run_ids`."""
    runs = list(dict.fromkeys(event.runid for _, event in pairs))
    of_runs = {"run_id": runs[0]} if len(runs) == 1 else {"run_ids": [run for run in runs if run is not None][:_NAMED]}
    return {"event_ids": [event.id for _, event in pairs[:_NAMED]], **of_runs}
