"""Current values: what a screener said, in every spelling that it comes in."""

from __future__ import annotations

import math

import pytest

from services.features.domain.current import current_values, stated_tick
from shared.candidates import Candidate, parse_candidates
from tests.unit.features.made import instant

NOW = instant("2021-12-15T12:00:00")


def read(metadata, observed_at=None):
    return current_values((Candidate("X:A", metadata, observed_at),), observed_at=NOW)


def values_of(metadata):
    found = read(metadata)
    assert not found.refused
    return found.current["X:A"].values if found.current else None


@pytest.mark.parametrize(
    "metadata",
    [
        {"Recommend.All": 0.5},
        {"recommend_all": 0.5},
        {"recommendAll": 0.5},
        {"RECOMMEND_ALL": 0.5},
        {"Recommend": {"All": 0.5}},
        {"recommend": {"all": 0.5}},
        {"ratings": {"Recommend.All": 0.5}},
        {"technicals": {"Recommend": {"All": 0.5}}},
        {"values": {"daily": {"recommend_all": 0.5}}},
    ],
)
def test_every_spelling_of_a_rating_is_read(metadata):
    values = values_of({**metadata, "name": "A", "close": 17.25})
    assert values["recommend_all"] == 0.5
    assert all(math.isnan(value) for name, value in values.items() if name != "recommend_all")


def test_all_five_features_are_read():
    metadata = {"Recommend.All": 0.1, "Recommend.MA": -0.2, "Recommend.Other": 0.4, "RSI": 55, "ADX": 20.5}
    assert values_of(metadata) == {
        "recommend_ma": -0.2, "recommend_other": 0.4, "recommend_all": 0.1, "rsi": 55.0, "adx": 20.5,
    }  # fmt: skip


@pytest.mark.parametrize("other", ["Recommend.All|60", "RSI[1]", "RSI7", "ADX+DI", "Rec.Stoch.RSI", "Recommend.All.W"])
def test_what_is_called_almost_so_is_something_else(other):
    assert values_of({other: 0.3}) is None


def test_the_shallowest_of_several_counts():
    assert values_of({"weekly": {"Recommend.All": -1}, "Recommend.All": 0.5})["recommend_all"] == 0.5
    assert values_of({"a": {"b": {"recommend_all": -1}}, "Recommend": {"All": 0.5}})["recommend_all"] == 0.5


def test_a_null_is_no_value_and_does_not_hide_one_that_is_deeper():
    assert values_of({"Recommend.All": None, "RSI": 50}) is None
    assert values_of({"Recommend.All": None, "ratings": {"Recommend.All": 0.5}})["recommend_all"] == 0.5


def test_indicators_alone_make_no_current_row():
    assert values_of({"RSI": 55, "ADX": 20}) is None


@pytest.mark.parametrize("metadata", [{}, {"name": "A"}, {"a": {"b": {"c": {"d": {"e": {"Recommend.All": 0.5}}}}}}])
def test_metadata_without_ratings_brings_none(metadata):
    assert values_of(metadata) is None


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"Recommend.All": "0.5"}, "recommend_all is '0.5', which is no number"),
        ({"Recommend.All": True}, "recommend_all is True, which is no number"),
        ({"Recommend.All": [0.5]}, "recommend_all is [0.5], which is no number"),
        ({"Recommend.All": math.nan}, "recommend_all is nan, outside [-1, 1]"),
        ({"Recommend.All": math.inf}, "recommend_all is inf, outside [-1, 1]"),
        ({"Recommend.All": 1.00000001}, "recommend_all is 1.00000001, outside [-1, 1]"),
        ({"Recommend.All": 10**400}, "outside [-1, 1]"),
        ({"Recommend.All": 0.5, "RSI": 101}, "rsi is 101, outside [0, 100]"),
        ({"Recommend.All": 0.5, "Recommend.MA": -1.5}, "recommend_ma is -1.5, outside [-1, 1]"),
    ],
)
def test_garbage_refuses_the_symbols_values_and_says_why(metadata, words):
    found = read(metadata)
    assert not found.current
    assert words in found.refused["X:A"]


def test_rounding_over_a_bound_is_clipped():
    assert values_of({"Recommend.All": 1 + 5e-10})["recommend_all"] == 1.0


def test_a_value_is_of_when_it_was_seen_else_of_the_event():
    assert read({"Recommend.All": 0.5}).current["X:A"].observed_at == NOW
    seen = instant("2021-12-14T22:00:00")
    assert read({"Recommend.All": 0.5}, seen).current["X:A"].observed_at == seen


def test_the_files_meta_gives_the_instant_for_those_that_have_none():
    sent = {
        "meta": {"observed_at": "2021-12-14T22:00:00Z"},
        "data": [
            {"symbol": "X:A", "metadata": {"Recommend.All": 0.5}},
            {"symbol": "X:B", "metadata": {"Recommend.All": 0.5}, "observed_at": "2021-12-14T23:00:00Z"},
        ],
    }
    found = current_values(parse_candidates(sent).items, observed_at=NOW).current
    assert {symbol: one.observed_at.hour for symbol, one in found.items()} == {"X:A": 22, "X:B": 23}


def test_one_candidates_garbage_takes_nothing_from_another():
    candidates = (Candidate("X:A", {"Recommend.All": "?"}), Candidate("X:B", {"Recommend.All": 0.5}))
    found = current_values(candidates, observed_at=NOW)
    assert list(found.current) == ["X:B"]
    assert list(found.refused) == ["X:A"]


@pytest.mark.parametrize(
    ("metadata", "tick"),
    [
        ({"tick_size": 0.05}, 0.05),
        ({"limits": {"tickSize": 0.01}}, 0.01),
        ({"tick_size": 0}, None),
        ({"tick_size": -0.01}, None),
        ({"tick_size": math.nan}, None),
        ({"tick_size": math.inf}, None),
        ({"tick_size": 10**400}, None),
        ({"tick_size": "0.01"}, None),
        ({"tick_size": True}, None),
        ({"ticks": 0.05}, None),
    ],
)
def test_a_tick_is_taken_where_the_metadata_states_one(metadata, tick):
    assert stated_tick(Candidate("X:A", metadata)) == tick
