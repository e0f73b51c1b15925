"""A few seconds of random faults; `make chaos` is the long form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.bus_chaos import Sums, campaign, read
from tests.faults.bus_crew import Crew
from tests.faults.bus_torment import HARD, torment
from tests.faults.bus_worker import put


def test_random_faults_lose_nothing_and_bury_only_what_is_bad(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome = torment("2024", _short(tmp_path_factory), seconds=6, events=1500, faults=48)
    assert outcome.fine, str(outcome)
    assert outcome.faults.total() == 48
    assert sum(outcome.faults[kind] for kind in HARD) >= 3
    assert outcome.recoveries_s


def test_without_the_reclaimer_the_same_faults_leave_something_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    outcome = torment(
        "2024", _short(tmp_path_factory), seconds=3, events=500, faults=24, without="reclaimer", recovery_s=2
    )
    assert not outcome.fine
    assert outcome.left


def test_a_campaign_goes_on_after_its_last_leg_and_adds_up(tmp_path: Path) -> None:
    record = tmp_path / "chaos.jsonl"
    leg = {"seed": "7:1", "events": 10, "seconds": 60, "repeated": 1, "lost": 0, "double": 0, "other": 0}
    record.write_text(
        json.dumps({"leg": 1, **leg, "faults": {"kill -9": 2}, "settled_s": 1, "recoveries_s": [0.5, 2.0]}) + "\n"
    )
    sums = campaign(7, record, minutes=0, legs=1, faults=100, seconds=1, events=1000)
    assert [row["leg"] for row in read(record)] == [1, 2]
    assert read(record)[1]["seed"] == "7:2"
    assert (sums.legs, sums.lost, sums.double, sums.other) == (2, 0, 0, 0)
    assert sums.events >= 1010
    assert sums.faults.total() == 12
    assert campaign(7, record, minutes=9, legs=9, faults=5, seconds=1, events=1000) == sums, "it has its faults"


def test_a_second_effect_that_differs_is_double_and_a_repeated_one_is_not(tmp_path: Path) -> None:
    crew = Crew("redis://nowhere", tmp_path)
    (tmp_path / "effects").mkdir()
    for batch, content in ((1, "a"), (1, "a"), (2, "a"), (2, "b")):
        put(tmp_path / "effects" / str(batch), content)
    assert crew.effects() == {1, 2}
    assert crew.doubles() == {2}


def test_sums_say_what_went_wrong() -> None:
    row = {"events": 5, "seconds": 1, "repeated": 0, "lost": 1, "double": 2, "other": 0}
    text = str(Sums.of([{**row, "faults": {"stop": 3, "poison": 1}, "settled_s": 1.0, "recoveries_s": [4.0]}]))
    assert "faults 4, 3 of them kills" in text
    assert "lost 1, double 2" in text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_campaigns_of_a_minute(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    outcome = torment(str(seed), _short(tmp_path_factory), seconds=60, events=24_000, faults=240, recovery_s=120)
    assert outcome.fine, str(outcome)


def _short(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("chaos")
