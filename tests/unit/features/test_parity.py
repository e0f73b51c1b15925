"""Parity: local minus screener, and the line that sums it up."""

from __future__ import annotations

import math

import pytest

from services.features.domain.parity import badge, compare
from tests.unit.features.made import instant

BAR, SEEN = instant("2021-12-15T00:00:00"), instant("2021-12-15T22:00:00")
SAME = {"recommend_ma": 0.5, "recommend_other": -0.25, "recommend_all": 0.125}


def parity(screener, local=SAME, symbol="X:A"):
    return compare(symbol, BAR, SEEN, local, screener)


def test_the_difference_is_local_minus_screener():
    assert parity({**SAME, "recommend_ma": 0.75}).differences == {
        "recommend_ma": -0.25, "recommend_other": 0.0, "recommend_all": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(("off", "agrees"), [(0.0, True), (1e-6, True), (-1e-6, True), (1.1e-6, False), (0.2, False)])
def test_a_millionth_is_agreement(off, agrees):
    local = {**SAME, "recommend_all": 0.0}
    assert parity({**SAME, "recommend_all": off}, local).agrees == agrees


def test_what_one_of_the_two_does_not_have_is_not_compared():
    assert list(parity({**SAME, "recommend_ma": math.nan}).differences) == ["recommend_other", "recommend_all"]
    assert parity(dict.fromkeys(SAME, math.nan)) is None


def test_the_badge_counts_those_that_agree():
    good, bad = parity(SAME), parity({**SAME, "recommend_ma": 0.0}, symbol="X:B")
    assert badge([good] * 48 + [bad] * 2) == "parity 1e-6: 48 of 50"
    assert badge([]) == ""
