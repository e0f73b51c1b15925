"""Facts in, versions out: compared with the brute-force oracle over every order, duplication and known instant."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.catalog.adapters.book import Book
from services.catalog.adapters.deriving import derive
from services.catalog.adapters.facts import micros, to_rows
from services.catalog.adapters.frames import panel_frame
from services.catalog.domain.decide import Batch, decide
from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import Timeline, violations
from tests.oracles.catalog_bruteforce import Told, holding, versions

SCHEMA = Schema("symbol", {"sector": str, "tick_size": float, "pricescale": int, "timezone": str, "session": str,
                           "type": str, "subtype": str, "active": bool})  # fmt: skip
ATTRIBUTES = list(SCHEMA.attributes)
KEY = "PSE:JFC"
DAY0 = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = {"timezone": "Asia/Manila", "session": "0930-1530"}


def day(number: int) -> datetime:
    return DAY0 + timedelta(days=number)


PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "sector": st.sampled_from(["Food", "Banks", None]),
        "tick_size": st.sampled_from([0.1, 0.1 + 1e-17, 0.1 * (1 + 5e-10), 0.1 * (1 + 1.2e-9), 0.2, None]),
        "pricescale": st.sampled_from([100, 2**53, 2**53 + 1]),
        "timezone": st.sampled_from(["Asia/Manila", "Asia/Tokyo", None]),
        "active": st.booleans(),
    },
)
RECORDS = st.builds(lambda at, fields: Told(day(at), DAY0, fields), st.integers(0, 8), PATCHES)
RETIRES = st.builds(lambda at: Told(day(at), DAY0, {}, "retire"), st.integers(0, 8))
EVENTS = st.lists(st.one_of(RECORDS, RECORDS, RETIRES), min_size=1, max_size=9)


class Shelf:
    """What a decision sees, kept in a dict."""

    def __init__(self, schema: Schema = SCHEMA) -> None:
        self.schema = schema
        self.held: dict[str, Timeline] = {}
        self.asked: list[str] = []
        self.taken: set[str] = set()
        self.facts: list[Any] = []

    @property
    def newest_known(self) -> datetime | None:
        return max((fact.known for fact in self.facts), default=None)

    def timelines(self, keys: Iterable[str]) -> dict[str, Timeline]:
        keys = [*keys]
        self.asked += keys
        return {key: self.held[key] for key in keys if key in self.held}

    def keys_of(self, exchange: str | None) -> list[str]:
        return [key for key in self.held if exchange is None or key.startswith(f"{exchange}:")]

    def has_snapshot(self, event_id: str) -> bool:
        return event_id in self.taken

    def take(self, batch: Batch) -> Any:
        outcome = decide(self, batch, self.schema)
        self.held.update(outcome.timelines)
        self.facts += outcome.facts
        self.taken |= {fact.event_id for fact in outcome.facts if fact.kind == "snapshot"}
        return outcome.result


def tell(shelf: Shelf, told: Told, known: datetime) -> None:
    kind = "upsert" if told.kind == "record" else "retire"
    shelf.take(Batch(kind, [{"symbol": KEY, **told.fields}], known, told.effective, "set"))


def shown(timeline: Timeline) -> list[tuple[datetime, datetime | None, dict[str, Any]]]:
    return [(one.valid_from, one.valid_until, dict(one.fields)) for one in timeline.versions]


FIRST = Told(day(0), DAY0, {"sector": "Food", "tick_size": 0.1, "pricescale": 100})


@given(EVENTS, st.randoms(use_true_random=False), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_order_and_any_duplication_of_the_same_events_gives_one_valid_time_table(
    events: list[Told], chance: random.Random, times: int
) -> None:
    tables = []
    for shuffled in (events, chance.sample(events, len(events)), [*events, *chance.choices(events, k=times)]):
        shelf = Shelf()
        for one in (FIRST, *shuffled):
            tell(shelf, one, day(20))
        tables.append(shown(shelf.held[KEY]))
    expected = versions([FIRST, *events], ATTRIBUTES, defaults=HOURS)
    assert tables[0] == [(one.valid_from, one.valid_until, one.fields) for one in expected]
    assert tables[1] == tables[0]
    assert tables[2] == tables[0]


def learned(events: Sequence[Told], gaps: Sequence[int]) -> list[Told]:
    """The same events, learned one after another; a gap of 0 means at the same instant."""
    known, told = day(20), []
    for one, gap in zip(events, gaps, strict=False):
        known += timedelta(hours=gap)
        told.append(Told(one.effective, known, one.fields, one.kind))
    return told


def distinct(events: Sequence[Told]) -> list[Told]:
    """Without redeliveries, which are no-ops."""
    kept: dict[tuple[datetime, str], Told] = {}
    for one in events:
        kept.setdefault((one.effective, one.content), one)
    return list(kept.values())


@given(EVENTS, st.lists(st.integers(0, 2), min_size=9, max_size=9))
@settings(max_examples=60, deadline=None)
@example([Told(day(3), DAY0, {"tick_size": 0.1}), Told(day(2), DAY0, {"tick_size": 0.2})], [0] * 9)
def test_a_replay_at_each_known_instant_shows_the_table_as_it_stood_then_and_it_is_sound(
    events: list[Told], gaps: list[int]
) -> None:
    told = distinct([FIRST, *learned(events, gaps)])
    shelf, stood = Shelf(), {}
    for one in told:
        tell(shelf, one, one.known)
        timeline = shelf.held[KEY]
        assert violations(timeline.versions) == []
        assert sum(version.valid_until is None for version in timeline.versions) == 1
        stood[one.known] = timeline
    for known, then in stood.items():
        replayed = shelf.held[KEY].known_by(known)
        assert shown(replayed) == shown(then)
        expected = versions(told, ATTRIBUTES, known, HOURS)
        for timeline in (replayed, then):
            found = timeline.versions
            assert [(one.valid_from, one.fields) for one in found] == [(one.valid_from, one.fields) for one in expected]
            assert [one.updated_at for one in found] == [one.updated_at for one in expected]
            assert [one.last_confirmed for one in found] == [one.last_confirmed for one in expected]


@given(st.lists(EVENTS, min_size=1, max_size=4), st.lists(st.integers(0, 2), min_size=9, max_size=9), st.booleans())
@settings(max_examples=40, deadline=None)
@example(
    [[Told(day(3), DAY0, {"pricescale": 100}), Told(day(2), DAY0, {"pricescale": 2**53})]], [1, 0, *[0] * 7], False
)
def test_what_is_stored_and_read_again_by_column_or_by_key_is_what_was_decided(
    symbols: list[list[Told]], gaps: list[int], merged: bool
) -> None:
    shelf, book, told = Shelf(), Book(SCHEMA), {}
    for number, events in enumerate(symbols):
        key = f"PSE:S{9 - number}"
        told[key] = distinct([FIRST, *learned(events, gaps)])
    for place in range(10):
        for key, events in told.items():
            if place < len(events):
                one = events[place]
                batch = Batch("upsert" if one.kind == "record" else "retire", [{"symbol": key, **one.fields}],
                              one.known, one.effective, "set")  # fmt: skip
                outcome = decide(shelf, batch, SCHEMA)
                shelf.held.update(outcome.timelines)
                shelf.facts += outcome.facts
                if outcome.facts:
                    book.add(to_rows(outcome.facts, SCHEMA))
    if merged:
        book._merge()
    for known in (None, *sorted({fact.known for fact in shelf.facts})):
        panel = derive(book, None if known is None else micros(known))
        frame = panel_frame(panel, None, SCHEMA)
        expected = []
        for key in sorted(told):
            timeline = shelf.held[key] if known is None else shelf.held[key].known_by(known)
            again = book.timelines([key])[key]
            assert shown(again if known is None else again.known_by(known)) == shown(timeline)
            expected += timeline.versions
        assert frame["symbol"].tolist() == [one.key for one in expected]
        for name, values in (
            ("valid_from", [one.valid_from for one in expected]),
            ("updated_at", [one.updated_at for one in expected]),
            ("last_confirmed", [one.last_confirmed for one in expected]),
        ):
            assert [stamp.to_pydatetime() for stamp in frame[name]] == values
        for name in ATTRIBUTES:
            values = [None if value is not value or str(value) in {"nan", "<NA>"} else value for value in frame[name]]
            assert values == [one.fields[name] for one in expected]
        for key in told:
            stored = [one for one in shelf.facts if one.key == key and (known is None or one.known <= known)]
            again = [Told(one.effective, one.known, one.fields, one.kind) for one in stored]
            intervals = versions(again, ATTRIBUTES, defaults=HOURS)
            asked = [day(number) for number in range(-1, 10)]
            codes = np.full(len(asked), book.codes[key], np.int32)
            places = panel.find(codes, np.array([micros(instant) for instant in asked]))
            for instant, place in zip(asked, places, strict=True):
                there = holding(intervals, instant)
                start = None if there is None else micros(there.valid_from)
                assert (None if place < 0 else panel.start[place]) == start
