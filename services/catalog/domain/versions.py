"""What the catalog means: facts in, versions out. Pure.

The valid-time table is a function of the set of facts: apply them in order of effective time (those of one instant in
order of known time, then content), and start a version wherever a meaningful field changes. Replaying only the facts
known by an instant gives the table exactly as it stood then.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, NamedTuple

from services.catalog.domain.schema import Schema, same

Kind = Literal["record", "retire", "snapshot"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One event about one key: `fields` are those it states, a None meaning that it clears the field.

    asked     the instant it was asked to hold from, where a clock that stood still made it `effective` later
    confirms  what it states stood already, bit by bit, so that nothing but its field names has to be stored
    """

    key: str
    effective: datetime
    known: datetime
    kind: Kind
    fields: Mapping[str, Any]
    event_id: str | None = None
    run_id: str | None = None
    source: str | None = None
    sources: str | None = None
    asked: datetime | None = None
    confirms: bool = False

    @property
    def content(self) -> str:
        """What it says, as canonical text: two deliveries of one event have the same."""
        return json.dumps([self.kind, self.fields], sort_keys=True, default=str)


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


class Row(NamedTuple):
    """A version while it is made: what events stated (`raw`), and what is shown, the defaults filled in."""

    start: datetime
    raw: Mapping[str, Any]
    shown: Mapping[str, Any]
    maker: Fact
    confirmed: datetime
    updated: datetime


class Timeline:
    """One key's facts in order of commit, and the versions they make. Never changed: `after` makes another.

    A fact later than all others costs the same whatever was there before; one that comes late costs a replay.
    """

    __slots__ = ("_stood", "facts", "key", "last", "rows", "schema")

    def __init__(
        self,
        key: str,
        schema: Schema,
        facts: tuple[Fact, ...] = (),
        rows: tuple[Row, ...] = (),
        stood: tuple[Row, ...] = (),
        last: datetime | None = None,
    ) -> None:
        self.key = key
        self.schema = schema
        self.facts = facts
        self.rows = rows
        self._stood = stood  # every row that was ever shown, to know since when
        self.last = last  # the newest effective instant

    @classmethod
    def of(cls, key: str, facts: Iterable[Fact], schema: Schema) -> Timeline:
        """From facts in order of commit; those that only confirm are given the values that stood."""
        made = cls(key, schema)
        for _, group in groupby(facts, key=lambda fact: fact.known):
            made = made._with([*group])
        return made

    def after(self, fact: Fact) -> Timeline:
        """With one more fact, learned after or at the same instant as the last."""
        at_once = bool(self.facts) and self.facts[-1].known == fact.known
        if (
            at_once and self.last is not None and fact.effective <= self.last
        ):  # nobody ever saw the one without the other
            return Timeline.of(self.key, [*self.facts, fact], self.schema)
        return self._with([fact])

    def known_by(self, instant: datetime) -> Timeline:
        """As it stood at that instant."""
        facts = [fact for fact in self.facts if fact.known <= instant]
        return self if len(facts) == len(self.facts) else Timeline.of(self.key, facts, self.schema)

    def left_by(self, event_id: str) -> Version | None:
        """The version at an event's instant as that event left it: whatever was learned later, or of other events
        together with it, has no say. None for an event that is not among the facts."""
        place = next((at for at in reversed(range(len(self.facts))) if self.facts[at].event_id == event_id), None)
        if place is None:
            return None
        fact = self.facts[place]
        then = self if place + 1 == len(self.facts) else Timeline.of(self.key, self.facts[: place + 1], self.schema)
        at = bisect_right(then.rows, fact.effective, key=lambda row: row.start)
        if not at:
            return None
        row, end = then.rows[at - 1], then.rows[at].start if at < len(then.rows) else None
        if place and self.facts[place - 1].known == fact.known:
            before = Timeline.of(self.key, self.facts[:place], self.schema).row_at(fact.effective)
            raw = _applied(None if before is None else before.raw, fact, self.schema)
            shown = row.shown if raw is None else self.schema.shown(self.key, raw)
            if raw is not None and not equal(row.shown, shown):
                row = Row(fact.effective, raw, shown, fact, fact.effective, fact.known)
        return _version(self.key, row, end)

    def row_at(self, instant: datetime) -> Row | None:
        place = bisect_right(self.rows, instant, key=lambda row: row.start)
        return self.rows[place - 1] if place else None

    def confirmed_by(self, fact: Fact) -> bool:
        """Whether all that it states stands at its instant, bit by bit, and no other event has a say there.

        Never for a fact that was learned at the same instant as the one before it: storage need not know their order.
        """
        row = self.row_at(fact.effective)
        return (
            row is not None
            and fact.kind == "record"
            and self.facts[-1].known != fact.known
            and all(_is_identical(row.raw[name], value) for name, value in fact.fields.items())
            and not any(other.effective == fact.effective for other in self.facts)
        )

    @property
    def versions(self) -> list[Version]:
        """Oldest first, contiguous, no two equal neighbours."""
        ends = [*(row.start for row in self.rows[1:]), None] if self.rows else []
        return [_version(self.key, row, end) for row, end in zip(self.rows, ends, strict=True)]

    def is_same_table(self, other: Timeline) -> bool:
        return len(self.rows) == len(other.rows) and all(
            one.start == two.start and equal(one.shown, two.shown)
            for one, two in zip(self.rows, other.rows, strict=True)
        )

    def _with(self, group: Sequence[Fact]) -> Timeline:
        """With the facts that were learned at one instant, together."""
        group = [self._resolved(fact) for fact in group]
        if len(group) == 1 and (self.last is None or group[0].effective > self.last):
            return self._followed_by(group[0])
        facts = (*self.facts, *group)
        is_newest = self.last is None or all(fact.effective > self.last for fact in group)
        rows = _replay(group, self.schema, self.rows) if is_newest else _replay(facts, self.schema)
        stood = self._stood
        for place in range(max(0, len(self.rows) - 1) if is_newest else 0, len(rows)):
            row = rows[place]
            old = self.rows[place] if place < len(self.rows) else None
            if row is old:
                continue
            if old is not None and _is_same_row(row, old):
                rows[place] = row._replace(updated=old.updated)
                continue
            before = next((one for one in stood if _is_same_row(one, row)), None)
            rows[place] = row._replace(updated=before.updated if before is not None else group[-1].known)
            stood = stood if before is not None else (*stood, rows[place])
        instants = [fact.effective for fact in group]
        last = max(instants if self.last is None else [self.last, *instants])
        return Timeline(self.key, self.schema, facts, tuple(rows), stood, last)

    def _followed_by(self, fact: Fact) -> Timeline:
        """With one fact that is later than all others: nearly every fact is, and nothing has to be replayed for it."""
        rows, stood = self.rows, self._stood
        old = rows[-1].raw if rows else None
        raw = _applied(old, fact, self.schema)
        if raw is not None:
            shown = self.schema.shown(self.key, raw)
            if old is not None and equal(rows[-1].shown, shown):
                rows = (*rows[:-1], _confirmed(rows[-1], raw, fact.effective))
            else:
                row = Row(fact.effective, raw, shown, fact, fact.effective, fact.known)
                rows, stood = (*rows, row), (*stood, row)
        return Timeline(self.key, self.schema, (*self.facts, fact), rows, stood, fact.effective)

    def _resolved(self, fact: Fact) -> Fact:
        if not fact.confirms:
            return fact
        row = self.row_at(fact.effective)
        assert row is not None, "a confirmation follows what it confirms"
        return replace(fact, fields={name: row.raw[name] for name in fact.fields})


def _version(key: str, row: Row, end: datetime | None) -> Version:
    maker = row.maker
    return Version(
        key, row.shown, row.start, end, row.updated, row.confirmed, maker.run_id, maker.source, maker.sources
    )


def _replay(facts: Iterable[Fact], schema: Schema, before: Sequence[Row] = ()) -> list[Row]:
    rows = [*before]
    ordered = sorted(facts, key=lambda fact: (fact.effective, fact.known))
    for effective, group in groupby(ordered, key=lambda fact: fact.effective):
        one, *others = group
        old = raw = rows[-1].raw if rows else None
        for fact in sorted([one, *others], key=lambda fact: (fact.known, fact.content)) if others else (one,):
            raw, one = _applied(raw, fact, schema), fact
        if raw is None:
            continue  # retired before anything was known of it
        shown = schema.shown(one.key, raw)
        if old is not None and equal(rows[-1].shown, shown):
            rows[-1] = _confirmed(rows[-1], raw, effective)
        else:
            rows.append(Row(effective, raw, shown, one, effective, one.known))
    return rows


def _confirmed(row: Row, raw: Mapping[str, Any], at: datetime) -> Row:
    """A row that was met again with the same meaning."""
    return row._replace(confirmed=at, raw=row.raw if raw == row.raw else _settled(row.raw, raw))


def _applied(before: Mapping[str, Any] | None, fact: Fact, schema: Schema) -> Mapping[str, Any] | None:
    """The attributes after `fact`: stated fields change, the others stay."""
    if fact.kind == "retire":
        return None if before is None else {**before, "active": False}
    return {**(schema.blank if before is None else before), **fact.fields}


def _settled(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored stays where the new value means the same, so that small steps cannot add up unseen."""
    return {name: old[name] if same(old[name], value) else value for name, value in new.items()}


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one is other:
        return True
    for name, value in one.items():  # a loop, because this is most of what a decision does
        stored = other[name]
        if value is not stored and value != stored and not same(value, stored):
            return False
    return True


def _is_same_row(one: Row, other: Row) -> bool:
    return one.start == other.start and equal(one.shown, other.shown)


def _is_identical(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def violations(versions: Sequence[Version]) -> list[str]:
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
        if equal(one.fields, following.fields):
            found.append(f"{one.key}: two equal neighbours at {following.valid_from}")
    return found
