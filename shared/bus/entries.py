"""What the bus knows about an entry while it is in hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


# An entry that was validated, and its event.
Pair = tuple[Entry, Event[Payload]]


@dataclass(slots=True)
class Done:
    """Entries whose effects are made but not yet acknowledged, and what they cause to be published."""

    pairs: list[Pair] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    since: float = 0.0
