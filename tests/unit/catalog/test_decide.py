"""The one decision: what it looks at, what it returns, and that it changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.catalog.adapters.book import Book
from services.catalog.adapters.facts import to_rows
from services.catalog.domain.decide import Batch, decide
from services.catalog.domain.schema import SYMBOLS
from tests.unit.catalog.test_timeline import Shelf

T = datetime(2024, 1, 1, tzinfo=UTC)


def test_a_decision_looks_at_the_keys_of_its_batch_and_at_no_others() -> None:
    shelf = Shelf(SYMBOLS)
    shelf.take(Batch("upsert", [{"symbol": f"PSE:S{number}"} for number in range(1000)], T))
    shelf.asked.clear()
    shelf.take(Batch("upsert", [{"symbol": "PSE:S1", "sector": "Food"}, {"symbol": "PSE:NEW"}], T + timedelta(1)))
    shelf.take(Batch("retire", [{"symbol": "PSE:S2"}], T + timedelta(2)))
    assert sorted(shelf.asked) == ["PSE:NEW", "PSE:S1", "PSE:S2"]


def test_a_decision_changes_nothing_of_what_it_was_given() -> None:
    shelf = Shelf(SYMBOLS)
    shelf.take(Batch("upsert", [{"symbol": "PSE:JFC", "sector": "Food"}], T))
    before = shelf.held["PSE:JFC"]
    facts, rows = before.facts, before.rows
    outcome = decide(shelf, Batch("upsert", [{"symbol": "PSE:JFC", "sector": "Banks"}], T + timedelta(1)), SYMBOLS)
    assert (before.facts, before.rows) == (facts, rows)
    assert shelf.held["PSE:JFC"] is before
    assert len(outcome.timelines["PSE:JFC"].rows) == 2


def test_every_key_of_a_batch_is_in_exactly_one_group() -> None:
    shelf = Shelf(SYMBOLS)
    shelf.take(Batch("upsert", [{"symbol": "PSE:A", "sector": "x"}, {"symbol": "PSE:B", "sector": "x"}], T))
    result = shelf.take(
        Batch(
            "upsert",
            [
                {"symbol": "PSE:A", "sector": "x"},
                {"symbol": "PSE:B", "sector": "y"},
                {"symbol": "PSE:C"},
                {"symbol": "D"},
            ],
            T + timedelta(1),
        )
    )
    assert (result.inserted, result.changed, result.unchanged) == (("PSE:C",), ("PSE:B",), ("PSE:A",))
    assert list(result.rejected) == [3]


def test_a_confirmation_is_stored_without_values_and_read_back_with_them() -> None:
    shelf, book = Shelf(SYMBOLS), Book(SYMBOLS)
    for number, fields in enumerate(({"sector": "Food", "tick_size": 0.1}, {"sector": "Food", "tick_size": 0.1})):
        outcome = decide(shelf, Batch("upsert", [{"symbol": "PSE:JFC", **fields}], T + timedelta(number)), SYMBOLS)
        shelf.held.update(outcome.timelines)
        shelf.facts += outcome.facts
        rows = to_rows(outcome.facts, SYMBOLS)
        book.add(rows)
    assert rows["kind"].to_pylist() == ["seen"]
    assert "tick_size" not in rows.column_names
    assert book.timelines(["PSE:JFC"])["PSE:JFC"].facts[1].fields == {"sector": "Food", "tick_size": 0.1}


def test_a_float_whose_bits_differ_is_stored_with_its_value() -> None:
    shelf = Shelf(SYMBOLS)
    shelf.take(Batch("upsert", [{"symbol": "PSE:JFC", "tick_size": 0.3}], T))
    later = Batch("upsert", [{"symbol": "PSE:JFC", "tick_size": 0.1 + 0.2}], T + timedelta(1))
    outcome = decide(shelf, later, SYMBOLS)
    assert outcome.result.unchanged == ("PSE:JFC",)
    assert to_rows(outcome.facts, SYMBOLS)["tick_size"].to_pylist() == [0.1 + 0.2]


def test_remembering_that_nothing_changed_takes_at_most_sixteen_bytes_a_symbol() -> None:
    count = 20_000
    names = [f"PSE:S{number}" for number in range(count)]
    shelf, book = Shelf(SYMBOLS), Book(SYMBOLS)
    sizes = []
    for number in range(3):
        batch = Batch("upsert", [{"symbol": name, "sector": "Food"} for name in names], T + timedelta(number))
        outcome = decide(shelf, batch, SYMBOLS)
        shelf.held.update(outcome.timelines)
        shelf.facts = list(outcome.facts)
        book.add(to_rows(outcome.facts, SYMBOLS))
        sizes.append(book.nbytes)
    assert (sizes[2] - sizes[1]) / count <= 16.1


def test_a_late_fact_costs_a_replay_and_one_in_order_does_not() -> None:
    shelf = Shelf(SYMBOLS)
    for number in range(50):
        shelf.take(Batch("upsert", [{"symbol": "PSE:JFC", "sector": f"S{number}"}], T + timedelta(number)))
    before = shelf.held["PSE:JFC"].rows
    shelf.take(Batch("upsert", [{"symbol": "PSE:JFC", "sector": "last"}], T + timedelta(99)))
    after = shelf.held["PSE:JFC"].rows
    assert all(one is two for one, two in zip(before, after, strict=False))
