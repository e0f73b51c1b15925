"""What the catalog means: facts in, versions out. Pure.

The valid-time table is a function of the set of facts: apply them in order of effective time (those of one instant in
order of known time, then content), and start a version wherever a meaningful field changes. Replaying only the facts
known by an instant gives the table exactly as it stood then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

from services.catalog.domain.schema import Schema, same

Kind = Literal["record", "retire"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One event about one key: `fields` are those it states, a None meaning that it clears the field."""

    key: str
    effective: datetime
    known: datetime
    kind: Kind
    fields: Mapping[str, Any]
    event_id: str
    run_id: str | None = None
    source: str | None = None
    sources: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One interval of one key, half-open `[valid_from, valid_until)`; the open one ends in None.

    `updated_at` is when this start and content first stood in the table, `last_confirmed` the newest observation of it.
    """

    key: str
    fields: Mapping[str, Any]
    valid_from: datetime
    valid_until: datetime | None
    updated_at: datetime
    last_confirmed: datetime
    run_id: str | None
    source: str | None
    sources: str | None

    def holds_at(self, instant: datetime) -> bool:
        return self.valid_from <= instant and (self.valid_until is None or instant < self.valid_until)


def versions_of(facts: Sequence[Fact], schema: Schema) -> list[Version]:
    """The versions of one key, oldest first, contiguous, no two equal neighbours."""
    final = _replay(facts, schema)
    first_known: dict[int, datetime] = {}
    for known in sorted({fact.known for fact in facts}):
        then = _replay([fact for fact in facts if fact.known <= known], schema)
        for position, version in enumerate(final):
            if position not in first_known and any(_is_same_row(version, other, schema) for other in then):
                first_known[position] = known
        if len(first_known) == len(final):
            break
    return [replace(version, updated_at=first_known[position]) for position, version in enumerate(final)]


def _replay(facts: Iterable[Fact], schema: Schema) -> list[Version]:
    versions: list[Version] = []
    ordered = sorted(facts, key=lambda fact: (fact.effective, fact.known, fact.event_id))
    for effective, group in groupby(ordered, key=lambda fact: fact.effective):
        before = versions[-1].fields if versions else None
        after, last = before, None
        for fact in group:
            after, last = _applied(after, fact, schema), fact
        if after is None or last is None:
            continue  # retired before anything was known of it
        if before is not None and equal(before, after, schema):
            versions[-1] = replace(versions[-1], last_confirmed=effective)
            continue
        if versions:
            versions[-1] = replace(versions[-1], valid_until=effective)
        versions.append(
            Version(last.key, after, effective, None, last.known, effective, last.run_id, last.source, last.sources)
        )
    return versions


def _applied(before: Mapping[str, Any] | None, fact: Fact, schema: Schema) -> Mapping[str, Any] | None:
    """The attributes after `fact`: stated fields change, the others stay."""
    if fact.kind == "retire":
        return None if before is None else {**before, "active": False}
    if before is None:
        before = {**dict.fromkeys(schema.attributes), "active": True}
    stated = {name: value for name, value in fact.fields.items() if name != "active" or value is not None}
    return {**before, **stated}


def equal(one: Mapping[str, Any], other: Mapping[str, Any], schema: Schema) -> bool:
    return all(same(one[name], other[name]) for name in schema.attributes)


def _is_same_row(one: Version, other: Version, schema: Schema) -> bool:
    return one.valid_from == other.valid_from and equal(one.fields, other.fields, schema)


def violations(versions: Sequence[Version], schema: Schema) -> list[str]:
    """What is wrong with one key's versions: gaps, overlaps, empty intervals, equal neighbours."""
    found = []
    for one, following in zip(versions, [*versions[1:], None], strict=True):
        if following is None:
            if one.valid_until is not None:
                found.append(f"{one.key}: the last version ends at {one.valid_until}")
            continue
        if one.valid_until != following.valid_from:
            found.append(f"{one.key}: {one.valid_until} is not followed at once by {following.valid_from}")
        if one.valid_from >= following.valid_from:
            found.append(f"{one.key}: the interval from {one.valid_from} is empty or inverted")
        if equal(one.fields, following.fields, schema):
            found.append(f"{one.key}: two equal neighbours at {following.valid_from}")
    return found
