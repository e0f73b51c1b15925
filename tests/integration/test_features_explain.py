"""The client's explanation of a stored bar: what was known then, and what the store has for it."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from asof.lakehouse import Lakehouse
from shared.errors import ContractError, NotFoundError
from tests.integration.features_house import FeaturesHouse, good
from tests.unit.features.made import instant

THREE = ["recommend_ma", "recommend_other", "recommend_all"]


@pytest.fixture
def house(tmp_path):
    return FeaturesHouse(tmp_path / "data")


def lake(house):
    return Lakehouse(house.home.root)


def three(explained):
    return [getattr(explained, name) for name in THREE]


@pytest.mark.parametrize("rules", ["screener", "pine_v3", "institutional"])
def test_an_explanation_is_what_the_slice_of_that_instant_says(house, rules):
    house.run("r1", good("X:A", "X:B"), rules=rules)
    features = lake(house).features
    for at in ("2021-01-25", "2021-03-20", "2021-03-20T23:59", "2021-03-31", None):
        explained = features.explain("X:A", at, rules=rules)
        row = features.at(at or "2022-01-01", ["X:A"], rules=rules).loc["X:A"]
        assert (explained.at, explained.available_at) == (row["ts"], row["available_at"])
        assert three(explained) == [None if pd.isna(value) else value for value in row[THREE]]
        assert (explained.promoted.version, explained.promoted.same) == (1, True)
        assert (explained.symbol, explained.rules.id, len(explained.votes)) == ("X:A", rules, 26)


def test_bars_that_came_later_change_nothing(house):
    frame = good("X:A")["X:A"]
    house.write_bars({"X:A": frame[:60]})
    before = lake(house).features.explain("X:A", "2021-03-01")
    late = frame[60:].copy()
    late.iloc[:, :4] *= 40  # so much would keep a run's symbol out
    house.write_bars({"X:A": late})
    after = lake(house).features.explain("X:A", "2021-03-01")
    assert (before.bars_version, after.bars_version) == (1, 2)
    assert after.votes == before.votes
    assert three(after) == three(before)
    with pytest.raises(ContractError, match=r"X:A: its bars cannot be rated \(toxic.*asof adjust X:A"):
        lake(house).features.explain("X:A")


def test_a_bar_that_needs_a_split_is_explained_only_since_the_split_is_known(house):
    frame = good("X:A")["X:A"]
    split = frame.copy()
    split.iloc[40:, :4] *= 16
    house.adjustments.record(
        "X:A", date(2021, 2, 19), 16.0, recorded_by="mia", reason="16 into 1", known_at=instant("2021-03-01")
    )
    house.run("r1", {"X:A": split})
    features = lake(house).features
    for at, bar in (("2021-02-25", "2021-02-18"), ("2021-03-01", "2021-02-28")):
        explained = features.explain("X:A", at)
        assert explained.at == features.at(at, ["X:A"])["ts"].iloc[0] == instant(bar)
        assert explained.promoted.same
    assert explained.available_at == instant("2021-03-01")
    assert any("16 into 1" in warning for warning in explained.warnings)


def test_a_bar_that_was_revised_since_is_told_apart_from_what_is_promoted(house):
    frame = good("X:A")["X:A"]
    house.run("r1", {"X:A": frame})
    revised = frame[70:71].copy()
    revised.iloc[0, :4] *= 1.5
    house.write_bars({"X:A": revised})
    explained = lake(house).features.explain("X:A", frame.index[75])
    assert not explained.promoted.same
    assert explained.promoted.recommend_all == lake(house).features.at(frame.index[75])["recommend_all"].iloc[0]


def test_a_bar_that_no_run_rated_has_nothing_promoted(house):
    house.write_bars(good("X:A"))
    assert lake(house).features.explain("X:A").promoted is None


def test_an_explanation_is_also_a_frame_and_plain_values(house):
    house.write_bars(good("X:A"))
    explained = lake(house).features.explain("X:A")
    frame = explained.to_frame()
    votes = [vote.vote for vote in explained.votes]
    assert [None if pd.isna(vote) else vote for vote in frame["vote"]] == votes
    assert frame["compared"]["mom"] == str(explained.votes[list(frame.index).index("mom")].comparisons[0])
    plain = explained.as_dict()
    assert [vote["vote"] for vote in plain["votes"]] == votes
    assert plain["votes"][15]["comparisons"][0]["words"].startswith("rsi ")


def test_what_cannot_be_explained_says_why_and_what_next(house):
    house.write_bars(good("X:A"))
    features = lake(house).features
    for symbol, at, asked, fault, words in (
        ("X:NOBODY", None, {}, NotFoundError, "X:NOBODY: no 1d bars are stored"),
        ("X:A", None, {"interval": "1h"}, NotFoundError, "no 1h bars"),
        ("X:A", "2021-01-10T23:59", {}, NotFoundError, "first is of 2021-01-10, known since 2021-01-11 00:00 UTC"),
        ("X:A", None, {"rules": "mine"}, ContractError, "unknown rating rules"),
        ("X:A", pd.Timestamp("2021-03-01").to_pydatetime(), {}, ContractError, "at has no time zone"),
        ("no symbol", None, {}, ContractError, "no symbol"),
    ):
        with pytest.raises(fault, match=words) as caught:
            features.explain(symbol, at, **asked)
        assert caught.value.fix
