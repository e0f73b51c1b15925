"""Reading back the spans that `tracing` wrote: what happened in a run, in the order of cause and time.

Needs neither Redis nor OpenTelemetry: the files are enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.errors import IntegrityError, NotFoundError


@dataclass(frozen=True, slots=True)
class Span:
    """One handler call. Times are ns since the epoch, on the clock of its machine; `depth` counts its causes."""

    id: str
    parent: str | None
    service: str
    stream: str
    start_ns: int
    end_ns: int
    events: int
    deliveries: int
    error: str | None
    depth: int = 0

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


def spans_of_run(state: Path, run_id: str) -> list[Span]:
    """The handler calls of a run as a waterfall: each cause before its effects, and by start among siblings.

    `state` is the folder that holds the services' own (`Home.state`). Raises NotFoundError when there are none.
    """
    found = [span for path in sorted(state.glob("*/traces/*.jsonl")) for span in _read(path, run_id)]
    if not found:
        raise NotFoundError(
            f"no trace of run {run_id}",
            cause="services write traces only when told to, and those of a running one come seconds later",
            fix="ASOF_BUS_TRACES=true asof run …",
        )
    known = {span.id for span in found}
    children: dict[str | None, list[Span]] = {}
    for span in sorted(found, key=lambda span: (span.start_ns, span.id)):
        children.setdefault(span.parent if span.parent in known else None, []).append(span)
    ordered: list[Span] = []
    waiting = [(span, 0) for span in reversed(children.get(None, []))]
    while waiting:
        span, depth = waiting.pop()
        ordered.append(replace(span, depth=depth))
        waiting += [(child, depth + 1) for child in reversed(children.get(span.id, []))]
    return ordered


def _read(path: Path, run_id: str) -> Iterator[Span]:
    *lines, last = path.read_bytes().split(b"\n")
    # A process that was killed may have left its last line unfinished.
    for number, line in enumerate([*lines, last] if last.endswith(b"}") else lines, start=1):
        try:
            row: dict[str, Any] = json.loads(line)
            attributes = row["attributes"]
            if attributes["asof.run_id"] == run_id:
                yield _span(row, attributes)
        except (ValueError, KeyError, TypeError) as fault:
            raise IntegrityError(f"{path}:{number} is no span", cause=str(fault), fix="move the file away") from fault


def _span(row: dict[str, Any], attributes: dict[str, Any]) -> Span:
    return Span(
        id=row["span"],
        parent=row["parent"],
        service=attributes["asof.service"],
        stream=attributes["messaging.destination.name"],
        start_ns=int(row["start_ns"]),
        end_ns=int(row["end_ns"]),
        events=int(attributes["messaging.batch.message_count"]),
        deliveries=int(attributes["asof.deliveries"]),
        error=row["error"],
    )
