"""A few seconds of random faults; `python -m tests.faults.bus_chaos --seconds 600` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.bus_chaos import torment


def test_random_faults_lose_nothing_and_bury_only_what_is_bad(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome = torment(2024, _short(tmp_path_factory), seconds=6, events=1000)
    assert outcome.fine, f"{outcome}\n{outcome.wrongly_dead}"


def test_without_the_reclaimer_the_same_faults_leave_something_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    outcome = torment(2024, _short(tmp_path_factory), seconds=3, events=500, without="reclaimer", recovery_s=3)
    assert not outcome.fine
    assert outcome.left


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_campaigns_of_a_minute(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    outcome = torment(seed, _short(tmp_path_factory), seconds=60, events=12_000)
    assert outcome.fine, f"{outcome}\n{outcome.wrongly_dead}"


def _short(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("chaos")
