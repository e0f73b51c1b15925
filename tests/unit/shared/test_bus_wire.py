"""What the fields of a stream entry mean, and what a person may type instead."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.wire import decode, encode, time_of
from shared.errors import ContractError
from shared.events import Command, Event, FetchTask, RunCandidates

T0 = datetime(2024, 5, 1, tzinfo=UTC)
ENTRY = b"1731999999999-0"
CAP = 10_000


def run(**fields: object) -> Event[RunCandidates]:
    return Event.of(RunCandidates(candidates=["PSE:JFC"], **fields), source="cli", time=T0)


def test_an_event_comes_back_as_it_was_sent() -> None:
    event = run(run_id="r1")
    assert decode("run-candidates", ENTRY, encode(event, trace="00-ab-cd-01"), cap=CAP) == event


def test_a_bare_payload_is_wrapped_with_the_time_and_the_run_id_of_its_entry() -> None:
    event = decode("run-candidates", ENTRY, {b"data": b'{"candidates":["PSE:JFC"]}'}, cap=CAP)
    assert (event.runid, event.data.run, event.source) == ("1731999999999-0", "1731999999999-0", "by-hand")
    assert event.time == datetime(2024, 11, 19, 7, 6, 39, 999000, tzinfo=UTC)


def test_the_same_bare_payload_tomorrow_is_another_event_and_another_run() -> None:
    fields = {b"data": b'{"candidates":["PSE:JFC"]}'}
    today, tomorrow = (decode("run-candidates", entry, fields, cap=CAP) for entry in (ENTRY, b"1732086399999-0"))
    assert today.id != tomorrow.id
    assert today.runid != tomorrow.runid
    assert today == decode("run-candidates", ENTRY, fields, cap=CAP), "every consumer has to agree"


def test_an_event_without_a_run_id_takes_the_entrys_in_an_envelope_too() -> None:
    first, second = (decode("run-candidates", entry, encode(run()), cap=CAP) for entry in (ENTRY, b"1732086399999-0"))
    assert first.data.run == "1731999999999-0"
    assert first.id != second.id


def test_a_replayed_dead_letter_keeps_the_run_id_of_its_first_entry() -> None:
    fields = {b"data": b'{"candidates":["PSE:JFC"]}'}
    replayed = decode("run-candidates", b"1732086399999-0", {**fields, b"replay-of": ENTRY}, cap=CAP)
    assert replayed == decode("run-candidates", ENTRY, fields, cap=CAP)


def test_flat_fields_are_read_as_the_payload() -> None:
    fields = {b"candidates": b'["PSE:JFC"]', b"run_id": b"17", b"deadline_s": b"30.5", b"strict": b"true"}
    data = decode("run-candidates", ENTRY, fields, cap=CAP).data
    assert isinstance(data, RunCandidates)
    assert (data.candidates, data.run_id, data.deadline_s, data.strict) == (["PSE:JFC"], "17", 30.5, True)


def test_a_command_by_hand_is_named_after_its_entry() -> None:
    data = decode("commands", ENTRY, {b"kind": b"retry", b"run_id": b"r1"}, cap=CAP).data
    assert isinstance(data, Command)
    assert (data.command_id, data.kind, data.run_id, data.requested_by) == ("1731999999999-0", "retry", "r1", "by-hand")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({b"data": b'["PSE:JFC"]'}, "no JSON object"),
        ({b"data": b'{"candidates":'}, "no JSON"),
        ({b"data": b"[" * 5000}, "no JSON"),
        ({b"data": b'{"candidates":["PSE:JFC"],"nonsense":1}'}, "nonsense"),
        ({b"candidates": b'["PSE:JFC"'}, "no JSON"),
        ({b"candidates": b"\xff"}, "not UTF-8"),
        ({b"candidates": b'["PSE:JFC"]', b"run_id": b"a/b"}, "run_id"),
        ({b"data": b'{"candidates":["PSE:JFC"]}', b"run_id": b"x"}, "nobody knows: run_id"),
        ({b"data": b'{"candidates":["PSE:JFC"]}', b"replay-of": b"../1"}, "no entry id"),
        ({b"data": b"x" * 10_001}, "more than 10,000"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_reason(fields: dict[bytes, bytes], reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        decode("run-candidates", ENTRY, fields, cap=CAP)


def test_services_streams_take_no_bare_payload() -> None:
    task = FetchTask(run_id="r", kind="bars", batch=0, batches=1, symbols=("PSE:JFC",), interval="1d", as_of=T0)
    with pytest.raises(ContractError, match="not an event of fetch-tasks"):
        decode("fetch-tasks", ENTRY, {b"data": task.model_dump_json().encode()}, cap=CAP)


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=200), max_size=4))
def test_no_entry_makes_anything_but_an_event_or_a_contract_error(fields: dict[bytes, bytes]) -> None:
    for stream in ("run-candidates", "commands", "fetch-tasks", "dead-letters"):
        with suppress(ContractError):
            assert decode(stream, ENTRY, fields, cap=CAP).stream == stream


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), st.lists, max_leaves=9))
def test_any_json_by_hand_is_an_event_or_a_contract_error(content: object) -> None:
    fields = {b"data": json.dumps({"candidates": content}).encode()}
    with suppress(ContractError):
        assert decode("run-candidates", ENTRY, fields, cap=CAP).stream == "run-candidates"


def test_an_impossible_entry_id_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match="no time"):
        time_of(b"99999999999999999999-0")
