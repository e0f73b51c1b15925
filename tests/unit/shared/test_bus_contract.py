"""What a service may hand over, and the figures of the bus that depend on each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shared.bus import BusSettings, Service, Subscription
from shared.bus.dead_letters import failure_of
from shared.bus.names import consumer_name, died_here
from shared.errors import ContractError, TransientError
from shared.events import Event


async def ignore(_: Event[Any]) -> Sequence[Event[Any]]:
    return []


def test_a_service_may_only_consume_what_the_stream_table_declares() -> None:
    with pytest.raises(ContractError, match="catalog may not consume 'fetch-tasks'"):
        Service("catalog", (Subscription("fetch-tasks", ignore),), Path("state"))


def test_three_heartbeats_may_be_late_before_an_entry_is_taken_over() -> None:
    settings = BusSettings()
    assert settings.heartbeat_s * 4 <= settings.min_idle_s


def test_a_failed_event_is_tried_for_half_a_minute_before_it_is_given_up() -> None:
    settings = BusSettings()
    waits = [min(settings.retry_most_s, settings.retry_first_s * 3**n) for n in range(settings.max_deliveries - 1)]
    assert 25 <= sum(waits) <= 60


def test_a_figure_is_set_by_its_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASOF_BUS_MIN_IDLE_S", "7")
    monkeypatch.setenv("ASOF_BUS_PORT", "")
    assert (BusSettings().min_idle_s, BusSettings().port) == (7, None)


def test_every_start_of_a_process_has_a_consumer_name_of_its_own() -> None:
    assert consumer_name(uuid4()) != consumer_name(uuid4())


def test_only_a_process_of_this_machine_can_be_seen_to_be_dead() -> None:
    ours = consumer_name(uuid4())
    gone = ours.replace(f"-{os.getpid()}-", "-4194304-")
    assert not died_here(f"{ours}.0")
    assert died_here(f"{gone}.0")
    assert not died_here(f"elsewhere.{gone}.0"), "a process id of another machine says nothing"
    assert not died_here("a-consumer-of-somebody-else")


def test_a_fault_of_ours_and_any_other_become_a_failure_for_a_person() -> None:
    known = failure_of(TransientError("the venue is down", symbol="PSE:JFC", fix="wait"), 3)
    assert (known.code, known.retryable, known.attempts, known.fix) == ("transient", True, 3, "wait")
    assert "PSE:JFC" in known.message
    other = failure_of(ZeroDivisionError("x" * 5000), 1)
    assert other.code == "unexpected"
    assert other.message.startswith("ZeroDivisionError")
    assert len(other.message) == 2000
