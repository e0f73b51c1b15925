"""Run records: what a run's batches are rated by, the same for every replica and delivery."""

from __future__ import annotations

import pytest

from services.features.domain.runs import RunRecord, content_sha256, record_run
from shared.candidates import parse_candidates
from shared.errors import ContractError
from shared.events import RunCandidates
from tests.unit.features.made import instant

TIME = instant("2021-12-15T12:00:00")
CANDIDATES = [{"symbol": "X:B", "metadata": {"Recommend.All": 0.5, "tick_size": 0.05}}, "X:A", "no symbol"]


def record(event_time=TIME, pins=None, **asked):
    data = RunCandidates(**{"candidates": CANDIDATES, "run_id": "r1", **asked})
    found = parse_candidates(data.candidates)
    return record_run(data, found, run_id="r1", event_time=event_time, pins=pins or {}, unreadable={})


def test_a_record_says_by_what_its_batches_are_rated():
    made = record()
    assert made.symbols == ("X:B", "X:A")
    assert made.as_of == TIME
    assert made.rules.name == "screener"
    assert made.rules.version
    assert made.ticks == {"X:B": 0.05}
    assert made.current["X:B"].observed_at == TIME
    assert made.current["X:B"].values["recommend_all"] == 0.5
    assert made.current["X:B"].values["rsi"] is None
    assert made.rated


def test_as_of_is_the_events_time_unless_it_is_given():
    assert record(as_of=instant("2021-06-01T00:00:00")).as_of == instant("2021-06-01T00:00:00")


def test_a_run_without_ratings_is_not_rated():
    assert not record(stages=("metadata",)).rated


def test_unknown_rules_are_refused_by_name():
    with pytest.raises(ContractError, match="astrology"):
        record(rules="astrology")


def test_an_interval_of_unknown_length_is_refused_when_the_run_is_opened():
    with pytest.raises(ContractError, match="'1M' is not minutes"):
        record(interval="1M")


def test_refused_current_values_are_a_warning_of_their_symbol():
    made = record(candidates=[{"symbol": "X:A", "metadata": {"Recommend.All": "?"}}])
    assert "no number" in made.warnings["X:A"][0]
    assert not made.current


def test_a_record_comes_back_from_json_as_it_was():
    made = record(pins={"X:A": 3})
    assert RunRecord.model_validate_json(made.model_dump_json()) == made


def test_who_asked_is_no_content():
    assert record(requested_by="mia").content_sha256 == record(requested_by="jo").content_sha256


@pytest.mark.parametrize(
    "other",
    [
        {"candidates": ["X:A", "X:B"]},
        {"interval": "1h"},
        {"rules": "pine_v3"},
        {"as_of": TIME},
        {"stages": ("bars", "ratings")},
        {"bars": "lakehouse"},
        {"strict": True},
        {"strict_scope": True},
        {"profile": "canary"},
    ],
)
def test_everything_that_shapes_a_run_is_content(other):
    assert record(**other).content_sha256 != record().content_sha256


def test_content_does_not_depend_on_when_it_was_sent():
    asked = RunCandidates(candidates=CANDIDATES, run_id="r1")
    assert record(event_time=instant("2022-01-01T00:00:00")).content_sha256 == content_sha256(asked)
