"""The catalog's meaning once more, as slowly and plainly as possible, to compare the real one with.

Nothing is kept from step to step: each question is answered from the list of events alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True)
class Told:
    """One event about one symbol. A retire states nothing."""

    effective: datetime
    known: datetime
    fields: Mapping[str, Any]
    kind: Literal["record", "retire"] = "record"

    @property
    def content(self) -> str:
        return json.dumps([self.kind, dict(self.fields)], sort_keys=True, default=str)


@dataclass
class Interval:
    fields: dict[str, Any]
    valid_from: datetime
    valid_until: datetime | None
    updated_at: datetime
    last_confirmed: datetime


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=0)
    return type(one) is type(other) and one == other


def are_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(is_same(one[name], other[name]) for name in one)


def bare(
    told: Sequence[Told], attributes: Sequence[str], defaults: Mapping[str, Any]
) -> list[tuple[datetime, dict[str, Any]]]:
    """Starts and contents, as they are shown: apply everything in order of effective time."""
    table: list[tuple[datetime, dict[str, Any]]] = []
    stored: dict[str, Any] | None = None
    for instant in sorted({one.effective for one in told}):
        new = None if stored is None else dict(stored)
        for one in sorted((one for one in told if one.effective == instant), key=lambda one: (one.known, one.content)):
            if one.kind == "retire":
                if new is not None:
                    new["active"] = False
                continue
            if new is None:
                new = dict.fromkeys(attributes) | {"active": True}
            new.update(one.fields)
        if new is None:
            continue
        shown = {name: defaults.get(name) if value is None else value for name, value in new.items()}
        if stored is None or not are_same(table[-1][1], shown):
            table.append((instant, shown))
            stored = new
    return table


def versions(
    told: Sequence[Told],
    attributes: Sequence[str],
    known_at: datetime | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> list[Interval]:
    """The table as it stands, or as it stood at `known_at`. `defaults`: what is shown where nothing is known."""
    defaults = defaults or {}
    if known_at is not None:
        told = [one for one in told if one.known <= known_at]
    table = bare(told, attributes, defaults)
    moments = sorted({one.known for one in told})
    then = {moment: bare([one for one in told if one.known <= moment], attributes, defaults) for moment in moments}
    found = []
    for place, (start, fields) in enumerate(table):
        end = table[place + 1][0] if place + 1 < len(table) else None
        updated = next(
            moment
            for moment in moments
            if any(other == start and are_same(content, fields) for other, content in then[moment])
        )
        within = [one.effective for one in told if start <= one.effective and (end is None or one.effective < end)]
        found.append(Interval(fields, start, end, updated, max(within)))
    return found


def holding(intervals: Sequence[Interval], instant: datetime) -> Interval | None:
    for one in intervals:
        if one.valid_from <= instant and (one.valid_until is None or instant < one.valid_until):
            return one
    return None
