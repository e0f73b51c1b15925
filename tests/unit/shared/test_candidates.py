from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.candidates import Candidate, Malformed, parse_candidates
from shared.errors import ContractError

JFC = Candidate("PSE:JFC")
NOON = datetime(2021, 12, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "data",
    [
        ["PSE:JFC"],
        [{"symbol": "PSE:JFC"}],
        [{"physical_symbol": "PSE:JFC"}],
        {"PSE:JFC": {}},
        {"PSE:JFC": None},
        {"meta": {}, "data": ["PSE:JFC"]},
        {"data": {"PSE:JFC": {}}},
        ["PSE:JFC", {"symbol": "PSE:JFC"}],
    ],
)
def test_every_shape_people_send_names_the_same_symbol(data):
    assert parse_candidates(data).items == (JFC,)


def test_metadata_and_its_observation_time_come_along():
    data = {
        "meta": {"observed_at": "2021-12-15T12:00:00Z"},
        "data": [
            {"symbol": "PSE:JFC", "metadata": {"Recommend.All": 0.5}},
            {"symbol": "PSE:BDO", "observed_at": "2021-12-14", "metadata": {}},
        ],
    }
    jfc, bdo = parse_candidates(data).items
    assert jfc == Candidate("PSE:JFC", {"Recommend.All": 0.5}, NOON)
    assert bdo.observed_at == datetime(2021, 12, 14, tzinfo=UTC)


def test_a_malformed_item_is_reported_by_its_index_and_stops_no_other():
    parsed = parse_candidates([1, "PSE:JFC", None, {"name": "x"}, "JFC", {"symbol": "PSE:BDO", "metadata": 3}])
    assert parsed.items == (JFC,)
    assert [item.index for item in parsed.malformed] == [0, 2, 3, 4, 5]
    assert all(item.reason for item in parsed.malformed)


def test_a_malformed_key_is_reported_by_the_key():
    assert parse_candidates({"PSE:JFC": {}, "nope": {}}).malformed[0].index == "nope"


@pytest.mark.parametrize("data", [None, [], {}, {"data": []}, {"data": None}, "PSE:JFC", 3])
def test_no_candidates_is_refused_and_the_message_names_refresh(data):
    with pytest.raises(ContractError, match="asof refresh"):
        parse_candidates(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.sampled_from(["PSE:JFC", {"symbol": "PSE:BDO"}]) | json_values, min_size=1, max_size=8))
def test_every_item_is_either_a_candidate_or_named(data):
    parsed = parse_candidates(data)
    named = {item.index for item in parsed.malformed}
    for index, item in enumerate(data):
        symbol = item if isinstance(item, str) else item.get("symbol") if isinstance(item, dict) else None
        assert index in named or symbol is None or symbol.strip() in parsed.symbols or isinstance(item, dict)
    assert len(parsed.items) + len(parsed.malformed) <= len(data)
    assert parsed.items or parsed.malformed
    assert all(isinstance(item, Malformed) for item in parsed.malformed)
