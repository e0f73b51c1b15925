"""A note: what the auditor keeps of one event about one run. Notes and turns are the lines of a run's journal."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from shared.clock import format_instant
from shared.events import DeadLetter, Event, Payload, SymbolMetadata

ClosedBy = Literal["complete", "deadline", "strict", "promote"]
NOTED = (
    "symbol-metadata",
    "catalog-updated",
    "bars-hydrated",
    "fetch-attempted",
    "ratings-computed",
    "features-promoted",
    "dead-letters",
)


@dataclass(frozen=True, slots=True)
class Note:
    """`time` is the event's own; `data` its payload, without records and raw bytes."""

    id: str
    stream: str
    time: datetime
    data: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "stream": self.stream, "time": format_instant(self.time), "data": self.data}


@dataclass(frozen=True, slots=True)
class Closed:
    """Outcomes are counted up to here; `by` says why."""

    at: datetime
    by: ClosedBy

    def as_json(self) -> dict[str, Any]:
        return {"closed": {"at": format_instant(self.at), "by": self.by}}


@dataclass(frozen=True, slots=True)
class Reopened:
    """The metadata and the bars of these symbols are asked for once more, until `deadline_at`; `by` is who asked."""

    at: datetime
    by: str
    deadline_at: datetime
    metadata: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "reopened": {
                "at": format_instant(self.at),
                "by": self.by,
                "deadline_at": format_instant(self.deadline_at),
                "metadata": list(self.metadata),
                "bars": list(self.bars),
            }
        }


Line = Note | Closed | Reopened


def read_line(fields: Mapping[str, Any]) -> Line:
    """A line of the journal. Raises KeyError, TypeError or ValueError for one that is none."""
    if closed := fields.get("closed"):
        return Closed(datetime.fromisoformat(closed["at"]), closed["by"])
    if reopened := fields.get("reopened"):
        return Reopened(
            at=datetime.fromisoformat(reopened["at"]),
            by=reopened["by"],
            deadline_at=datetime.fromisoformat(reopened["deadline_at"]),
            metadata=tuple(reopened["metadata"]),
            bars=tuple(reopened["bars"]),
        )
    return Note(fields["id"], fields["stream"], datetime.fromisoformat(fields["time"]), fields["data"])


def note_of(event: Event[Any]) -> Note:
    payload: Payload = event.data
    if isinstance(payload, SymbolMetadata):
        data = payload.model_dump(mode="json", exclude_none=True, exclude={"record", "sources"})
    elif isinstance(payload, DeadLetter):
        data = payload.model_dump(mode="json", exclude_none=True, exclude={"fields"})
        kind, symbols = _inside(payload)
        data |= {"symbols": symbols, **({"kind": kind} if kind else {})}
    else:
        data = payload.model_dump(mode="json", exclude_none=True)
    return Note(event.id, event.stream, event.time, data)


def _inside(letter: DeadLetter) -> tuple[str | None, list[str]]:
    """Which symbols a dead letter took with it, and a fetch task's kind; nothing when its bytes cannot be read."""
    try:
        fields = {base64.b64decode(key): base64.b64decode(value) for key, value in letter.fields.items()}
        event = json.loads(fields[b"data"])
        data = event.get("data", event)
        return data.get("kind"), sorted(set(_symbols(data)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Unreadable bytes are why many letters are dead; which symbols are missing then shows as silence.
        return None, []


def _symbols(data: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(data.get("symbol"), str):
        yield data["symbol"]
    for group in ("symbols", "inserted", "changed", "unchanged"):
        yield from (item for item in data.get(group, ()) if isinstance(item, str))
    for group in ("hydrated", "staged"):
        yield from (item["symbol"] for item in data.get(group, ()))
    for group in ("failures", "rejected"):
        yield from data.get(group, {})
