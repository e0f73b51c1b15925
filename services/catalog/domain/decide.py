"""The decision behind every write: what is stored and a batch in, facts to append out. Pure.

It looks at the keys that the batch names and at no others; a snapshot also names those that it leaves out. An event
that was stored before is recognised before any instant is moved, and appends nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact, Row, Timeline
from shared.errors import ContractError
from shared.symbols import split_symbol

_TICK = timedelta(microseconds=1)
EVERY_KEY = "*"  # no key looks like this; the fact that a snapshot was applied is stored under it


class Book(Protocol):
    """What is stored, as a decision needs it."""

    @property
    def newest_known(self) -> datetime | None: ...

    def timelines(self, keys: Iterable[str]) -> Mapping[str, Timeline]:
        """Of those keys that are known at all."""
        ...

    def keys_of(self, exchange: str | None) -> Iterable[str]:
        """Every known key, or those of one exchange."""
        ...

    def has_snapshot(self, event_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One call, or one event: records to upsert, keys to retire, a full universe (of one `exchange`, or of all), or
    keys that are called otherwise from then on (`renamed_to` beside the key).

    Without `effective` the writer's clock says when, and a clock that stands still or goes back takes the next instant.
    """

    kind: Literal["upsert", "retire", "snapshot", "rename"]
    records: Sequence[Mapping[str, Any]]
    known: datetime
    effective: datetime | None = None
    nulls: Literal["keep", "set"] = "keep"
    event_id: str | None = None
    run_id: str | None = None
    source: str | None = None
    exchange: str | None = None


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """What became of each key: in exactly one of the groups. `version` is the manifest that holds it."""

    inserted: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    rejected: Mapping[str | int, str] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Facts to append, the timelines that they make, and what to tell the caller."""

    facts: tuple[Fact, ...]
    timelines: Mapping[str, Timeline]
    result: UpsertResult


Stated = tuple[Literal["record", "retire"], Mapping[str, Any], str | None]
_RETIRED: Stated = ("retire", {}, None)


def decide(book: Book, batch: Batch, schema: Schema) -> Outcome:
    """The facts that `batch` adds to `book`, and what they make of each key."""
    known = max(batch.known, book.newest_known or batch.known)
    stated, rejected = _renamed(book, batch, schema) if batch.kind == "rename" else _read(batch, schema)
    before = dict(book.timelines(stated))
    facts: list[Fact] = []
    if batch.kind == "retire":
        rejected |= {key: "the catalog does not know it" for key in stated if key not in before}
        stated = {key: one for key, one in stated.items() if key in before}
    elif batch.kind == "snapshot":
        marker = _marker(batch, stated, known)
        if marker.event_id is not None and book.has_snapshot(marker.event_id):
            return Outcome((), {}, UpsertResult(unchanged=tuple(stated), rejected=rejected))
        facts.append(marker)
        named = {*stated, *rejected}  # a record that was rejected is no absence
        absent = book.timelines(key for key in book.keys_of(batch.exchange) if key not in named)
        live = {key: one for key, one in absent.items() if _is_live(one, _instant(batch, one))}
        stated |= dict.fromkeys(live, _RETIRED)
        before |= live

    groups: dict[str, list[str]] = {"inserted": [], "changed": [], "unchanged": []}
    after: dict[str, Timeline] = {}
    for key, one in stated.items():
        old = before.get(key) or Timeline(key, schema)
        fact = _fact(key, one, batch, known, old)
        if fact is None:
            groups["unchanged"].append(key)
            continue
        new = after[key] = old.after(fact)
        groups["inserted" if not old.rows else "unchanged" if new.is_same_table(old) else "changed"].append(key)
        facts.append(fact)
    result = UpsertResult(tuple(groups["inserted"]), tuple(groups["changed"]), tuple(groups["unchanged"]), rejected)
    return Outcome(tuple(facts), after, result)


def _read(batch: Batch, schema: Schema) -> tuple[dict[str, Stated], dict[str | int, str]]:
    """What the batch says of each key, the last word winning, and what it cannot say."""
    stated: dict[str, Stated] = {}
    rejected: dict[str | int, str] = {}
    for index, record in enumerate(batch.records):
        name: str | int = index
        try:
            key = name = schema.read_key(record)
            if batch.kind == "retire":
                stated[key] = _RETIRED
                continue
            fields = schema.read_record(record)
            if batch.exchange is not None and split_symbol(key).exchange != batch.exchange:
                raise ContractError(f"it is not of {batch.exchange}")
        except ContractError as fault:
            rejected[name] = fault.what
            continue
        if batch.kind == "snapshot":
            fields = {**schema.blank, **fields}
        elif batch.nulls == "keep":
            fields = {field: value for field, value in fields.items() if value is not None}
        if fields.get("active", True) is None:  # there is no third state
            fields = {**fields, "active": True} if batch.kind == "snapshot" else _without_active(fields)
        stated.pop(key, None)
        stated[key] = ("record", fields, _sources(record))
    return stated, rejected


def _fact(key: str, stated: Stated, batch: Batch, known: datetime, before: Timeline) -> Fact | None:
    """The fact, or None when it was stored before."""
    kind, fields, sources = stated
    asked, effective = _asked(batch), _instant(batch, before)
    fact = Fact(key, asked, known, kind, fields, batch.event_id, batch.run_id, batch.source, sources)
    if fact.event_id is not None:
        if any(other.event_id == fact.event_id for other in before.facts):
            return None
    elif any((other.asked or other.effective) == asked and _is_redelivery(fact, other) for other in before.facts):
        return None
    if effective != asked:
        fact = replace(fact, effective=effective, asked=asked)
    return replace(fact, confirms=True) if before.confirmed_by(fact) else fact


def _asked(batch: Batch) -> datetime:
    return batch.known if batch.effective is None else batch.effective


def _instant(batch: Batch, before: Timeline) -> datetime:
    """From when the batch holds for a key: the writer's live clock never goes back behind what it said of that key."""
    asked = _asked(batch)
    if batch.effective is not None:
        return asked
    # An announced future change does not count: the present may still be observed before it.
    newest = max((one.effective for one in before.facts if one.effective <= one.known or one.asked), default=None)
    return asked if newest is None or newest < asked else newest + _TICK


def _renamed(book: Book, batch: Batch, schema: Schema) -> tuple[dict[str, Stated], dict[str | int, str]]:
    """Of each pair the old key, retired, and the new one with all that the old one had; of a wrong pair, neither."""
    stated: dict[str, Stated] = {}
    rejected: dict[str | int, str] = {}
    for index, record in enumerate(batch.records):
        name: str | int = index
        try:
            old = name = schema.read_key(record)
            new = schema.read_key({schema.key: record.get("renamed_to")})
        except ContractError as fault:
            rejected[name] = fault.what
            continue
        timelines = book.timelines([old, new])
        source, target = (timelines.get(key, Timeline(key, schema)) for key in (old, new))
        if batch.event_id is not None and any(fact.event_id == batch.event_id for fact in target.facts):
            stated |= {new: ("record", {}, None), old: _RETIRED}  # stored before: both are recognised as that
            continue
        row = source.row_at(_instant(batch, source))
        if flaw := _no_rename(old, new, row, target, batch):
            rejected[old] = flaw
            continue
        assert row is not None
        fields = {**row.raw, "renamed_from": old, "active": True}
        stated[new] = ("record", {name: fields[name] for name in schema.attributes}, row.maker.sources)
        stated[old] = _RETIRED
    return stated, rejected


def _no_rename(old: str, new: str, row: Row | None, target: Timeline, batch: Batch) -> str | None:
    if new == old:
        return "it is called that already"
    if row is None:
        return "the catalog does not know it"
    if not row.shown["active"]:
        return "it is retired"
    return f"{new} is another symbol, and active" if _is_live(target, _instant(batch, target)) else None


def _is_redelivery(fact: Fact, stored: Fact) -> bool:
    """Without an id: the same instant, before any clock moved it, and the same content."""
    return (
        fact.effective == (stored.asked or stored.effective)
        and fact.kind == stored.kind
        and fact.content == stored.content
    )


def _is_live(timeline: Timeline, instant: datetime) -> bool:
    row = timeline.row_at(instant)
    return row is not None and bool(row.shown["active"])


def _marker(batch: Batch, stated: Mapping[str, Stated], known: datetime) -> Fact:
    effective = _asked(batch)
    text = json.dumps([batch.exchange, str(effective), {key: one[1] for key, one in stated.items()}], sort_keys=True)
    event_id = batch.event_id or hashlib.sha256(text.encode()).hexdigest()[:32]
    return Fact(EVERY_KEY, effective, known, "snapshot", {}, event_id, batch.run_id, batch.source)


def _without_active(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "active"}


def _sources(record: Mapping[str, Any]) -> str | None:
    sources = record.get("sources")
    return json.dumps(sources, sort_keys=True) if isinstance(sources, Mapping) and sources else None
