"""The decision behind every write: what is stored and a batch in, facts to append out. Pure.

An event that was stored before is recognised before any instant is moved, and appends nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Fact, Version, equal, versions_of
from shared.errors import ContractError

_TICK = timedelta(microseconds=1)
Book = Mapping[str, Sequence[Fact]]


@dataclass(frozen=True, slots=True)
class Batch:
    """One call, or one event: records to upsert, keys to retire, or a full universe.

    Without `effective` the writer's clock says when, and a clock that stands still or goes back takes the next instant.
    """

    kind: Literal["upsert", "retire", "snapshot"]
    records: Sequence[Mapping[str, Any]]
    known: datetime
    effective: datetime | None = None
    nulls: Literal["keep", "set"] = "keep"
    event_id: str | None = None
    run_id: str | None = None
    source: str | None = None


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
    facts: tuple[Fact, ...]
    result: UpsertResult


def decide(book: Book, batch: Batch, schema: Schema) -> Outcome:
    """The facts that `batch` adds to `book`, and what they make of each key."""
    stated, rejected = _stated(book, batch, schema)
    known = max([batch.known, *(fact.known for facts in book.values() for fact in facts[-1:])])
    appended: list[Fact] = []
    groups: dict[str, list[str]] = {"inserted": [], "changed": [], "unchanged": []}
    for key, (kind, fields, sources) in stated.items():
        before = book.get(key, ())
        fact = _fact(key, kind, fields, sources, batch, known, before)
        if fact is None:
            groups["unchanged"].append(key)
            continue
        old = versions_of(before, schema)
        new = versions_of([*before, fact], schema)
        group = "inserted" if not old else "unchanged" if _are_same(old, new, schema) else "changed"
        groups[group].append(key)
        appended.append(fact)
    result = UpsertResult(tuple(groups["inserted"]), tuple(groups["changed"]), tuple(groups["unchanged"]), rejected)
    return Outcome(tuple(appended), result)


Stated = dict[str, tuple[Literal["record", "retire"], dict[str, Any], str | None]]


def _stated(book: Book, batch: Batch, schema: Schema) -> tuple[Stated, dict[str | int, str]]:
    """What the batch says of each key, the last word winning, and what it cannot say."""
    stated: Stated = {}
    rejected: dict[str | int, str] = {}
    for index, record in enumerate(batch.records):
        key: str | int = index
        try:
            key = schema.read_key(record)
            fields = schema.read_record(record)
        except ContractError as fault:
            rejected[key] = fault.what
            continue
        if batch.kind == "retire":
            if not book.get(key):
                rejected[key] = "the catalog does not know it"
                continue
            stated[key] = ("retire", {}, None)
            continue
        if batch.kind == "snapshot":
            fields = {**dict.fromkeys(schema.attributes), "active": True, **fields}
        elif batch.nulls == "keep":
            fields = {name: value for name, value in fields.items() if value is not None}
        stated[key] = ("record", fields, _sources(record))
    if batch.kind == "snapshot":
        for key, facts in book.items():
            versions = versions_of(facts, schema)
            if key not in stated and versions and versions[-1].fields["active"]:
                stated[key] = ("retire", {}, None)
    return stated, rejected


def _fact(
    key: str,
    kind: Literal["record", "retire"],
    fields: dict[str, Any],
    sources: str | None,
    batch: Batch,
    known: datetime,
    before: Sequence[Fact],
) -> Fact | None:
    """The fact, or None when it was stored before or says nothing."""
    if kind == "record" and not fields and before:
        return None
    event_id = batch.event_id or _content_id(kind, fields)
    twins = [fact for fact in before if fact.event_id == event_id]
    if batch.event_id is not None and twins:
        return None
    if batch.effective is not None:
        effective = batch.effective
        if any(fact.effective == effective for fact in twins):
            return None
    else:
        # An announced future change does not count: the present may still be observed before it.
        newest = max((fact.effective for fact in before if fact.effective <= fact.known), default=None)
        effective = batch.known if newest is None or batch.known > newest else newest + _TICK
    return Fact(key, effective, known, kind, fields, event_id, batch.run_id, batch.source, sources)


def _content_id(kind: str, fields: Mapping[str, Any]) -> str:
    text = json.dumps([kind, fields], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sources(record: Mapping[str, Any]) -> str | None:
    sources = record.get("sources")
    return json.dumps(sources, sort_keys=True) if isinstance(sources, Mapping) and sources else None


def _are_same(one: Sequence[Version], other: Sequence[Version], schema: Schema) -> bool:
    return len(one) == len(other) and all(
        a.valid_from == b.valid_from and equal(a.fields, b.fields, schema) for a, b in zip(one, other, strict=True)
    )
