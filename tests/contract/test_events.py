"""The wire form of every event is pinned by a golden file: a change there is one for all who read the streams."""

from __future__ import annotations

import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.errors import ContractError
from shared.events import EVENTS, Event, Payload, RunCandidates, SymbolMetadata, parse_event
from shared.streams import STREAMS

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "events"
NOW = datetime(2021, 12, 15, 9, 0, tzinfo=UTC)


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLES = load(HERE / "event_samples.py").SAMPLES


def test_every_stream_has_a_sample():
    assert [sample.stream for sample in SAMPLES] == list(EVENTS) == list(STREAMS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stream)
def test_the_wire_form_is_the_golden_one_and_reads_back(sample: Payload):
    event = Event.of(sample, source="golden", time=NOW)
    golden = (HERE / "events" / f"{sample.stream}.json").read_text()
    assert json.loads(event.to_json()) == json.loads(golden)
    assert parse_event(sample.stream, golden) == event


@pytest.mark.parametrize("name", [f"{stream}.schema.json" for stream in EVENTS])
def test_the_published_schema_is_current(name: str):
    assert (DOCS / name).read_text() == load(DOCS / "export.py").schemas()[name], "run `make schemas`"


def test_equal_content_has_one_id_whoever_sends_it_and_whenever():
    data = RunCandidates(candidates=["PSE:JFC"], run_id="r1")
    later = NOW.replace(year=2022)
    assert Event.of(data, source="a", time=NOW).id == Event.of(data, source="b", time=later).id
    assert Event.of(data, source="a", time=NOW).id != Event.of(data, source="a", time=NOW, salt="1-0").id


def test_the_order_in_which_a_record_was_filled_does_not_change_the_id():
    one = SymbolMetadata(run_id="r", symbol="PSE:JFC", observed_at=NOW, record={"a": 1, "b": None})
    two = SymbolMetadata(run_id="r", symbol="PSE:JFC", observed_at=NOW, record={"b": None, "a": 1})
    assert Event.of(one, source="x", time=NOW).to_json() == Event.of(two, source="x", time=NOW).to_json()


def test_an_explicit_null_in_a_record_survives_the_wire():
    data = SymbolMetadata(run_id="r", symbol="PSE:JFC", observed_at=NOW, record={"sector": None})
    assert parse_event("symbol-metadata", Event.of(data, source="x", time=NOW).to_json()).data == data


def edited(**changes) -> bytes:
    event = json.loads(Event.of(RunCandidates(candidates=["PSE:JFC"], run_id="r1"), source="x", time=NOW).to_json())
    for key, value in changes.items():
        target = event["data"] if key in event["data"] else event
        target[key] = value
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "JSON"),
        (b"[]", "event"),
        (edited(unknown=1), "unknown"),
        (edited(runid="other"), "runid"),
        (edited(run_id="a/b"), "run_id"),
        (edited(run_id="a\n", runid="a\n"), "run"),
        (edited(type="asof.alerts"), "type"),
        (
            edited(dataschema="urn:asof:event:run-candidates:2"),
            "this version of asof knows 'urn:asof:event:run-candidates:1'",
        ),
        (edited(time="2021-12-15T09:00:00"), "time"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(raw: bytes, words: str):
    with pytest.raises(ContractError, match=words):
        parse_event("run-candidates", raw)


def test_a_symbol_that_is_not_in_its_normal_form_is_refused():
    with pytest.raises(ValueError, match="normal form"):
        SymbolMetadata(run_id="r", symbol="PSE:JFC\n", observed_at=NOW, record={})
