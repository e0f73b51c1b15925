"""Worker processes are killed at the worst moments: nothing is lost and nothing has two effects.

Every test has a negative control: the same scenario with one guard off has to go wrong.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shared.bus import client
from tests.faults.bus_crew import Answers, Crew, left
from tests.faults.bus_worker import CRASHES_AT
from tests.integration.bus_parts import task, until

EVENTS = 30
RECOVERY_S = 10
# Long enough for a guard that works to have done its work many times over.
HOPELESS_S = 2.5


async def settled(url: str, timeout_s: float = RECOVERY_S) -> float:
    """Seconds until nothing is unread or pending; TimeoutError when something stays."""

    async def nothing_left() -> bool:
        return left(url) == 0

    started = time.monotonic()
    await until(nothing_left, timeout_s)
    return time.monotonic() - started


async def crash_and_restart(url: str, folder: Path, crash: str, *, without: str | None = None) -> Crew:
    """One worker kills itself at batch 7, another is started in its place; both lack the guard `without`."""
    guard = ("--without", without) if without else ()
    await client.publish(url, [task("r1", batch) for batch in range(EVENTS)])
    with Crew(url, folder) as crew:
        first = crew.start("--crash", crash, *guard, ready=False)
        assert first.wait(20) == -9
        assert left(url) > 0
        crew.start(*guard)
        took = await settled(url, HOPELESS_S if without else RECOVERY_S)
        assert took <= RECOVERY_S
    return crew


async def test_kill_9_before_the_effect_is_taken_over_and_has_one_effect(redis_url: str, tmp_path: Path) -> None:
    crew = await crash_and_restart(redis_url, tmp_path, "before the effect")
    assert crew.effects() == set(range(EVENTS))
    assert crew.attempts()[CRASHES_AT] == 2
    assert Answers.of(redis_url).batches == dict.fromkeys(range(EVENTS), 1)


async def test_without_the_reclaimer_what_a_killed_worker_held_is_never_applied(redis_url: str, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await crash_and_restart(redis_url, tmp_path, "before the effect", without="reclaimer")
    assert CRASHES_AT not in Crew(redis_url, tmp_path).effects()


async def test_kill_9_after_the_effect_means_two_attempts_and_one_effect(redis_url: str, tmp_path: Path) -> None:
    crew = await crash_and_restart(redis_url, tmp_path, "after the effect")
    assert crew.effects() == set(range(EVENTS))
    assert crew.attempts()[CRASHES_AT] == 2
    assert Answers.of(redis_url).batches == dict.fromkeys(range(EVENTS), 1)
    # The control: an effect that is not idempotent is there twice, so the crash came where it should.
    assert (tmp_path / "appended").read_text().split().count(str(CRASHES_AT)) == 2


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without the transaction"])
async def test_kill_9_between_publication_and_acknowledgement_publishes_once(
    redis_url: str, tmp_path: Path, guarded: bool
) -> None:
    crash = "in the transaction" if guarded else "between publication and acknowledgement"
    crew = await crash_and_restart(redis_url, tmp_path, crash)
    assert crew.effects() == set(range(EVENTS))
    assert Answers.of(redis_url).batches[CRASHES_AT] == (1 if guarded else 2)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without the outbox"])
async def test_a_crash_between_outbox_and_publication_loses_nothing(
    redis_url: str, tmp_path: Path, guarded: bool
) -> None:
    guard = () if guarded else ("--without", "outbox")
    with Crew(redis_url, tmp_path) as crew:
        first = crew.start("--job", "--crash", "after the outbox", *guard, ready=False)
        assert first.wait(20) == -9
        assert not Answers.of(redis_url).batches
        crew.start("--job", *guard)

        async def answered() -> bool:
            return len(Answers.of(redis_url).batches) == 5

        if not guarded:
            with pytest.raises(TimeoutError):
                await until(answered, HOPELESS_S)
            return
        await until(answered, RECOVERY_S)
    assert max(Answers.of(redis_url).batches.values()) <= 2
    assert not [path for path in (tmp_path / "state" / "outbox").rglob("*") if path.name.isdigit()]


async def test_sigterm_and_scaling_under_load_lose_nothing_and_share_the_work(redis_url: str, tmp_path: Path) -> None:
    with Crew(redis_url, tmp_path) as crew:
        workers = [crew.start("--slow", "0.005")]
        await client.publish(redis_url, [task("r1", batch) for batch in range(200)])
        workers += [crew.start("--slow", "0.005", ready=False) for _ in range(3)]
        for worker in workers[1:]:
            crew.await_ready(worker)
        await client.publish(redis_url, [task("r1", batch) for batch in range(200, 1000)])
        await until(lambda: _done(crew, 600))
        for worker in workers[:3]:
            worker.terminate()
        assert [worker.wait(60) for worker in workers[:3]] == [0, 0, 0]
        await settled(redis_url, 60)
        shares = crew.shares()
        await until(lambda: _only_consumer_of(redis_url, workers[3].pid))
    assert crew.effects() == set(range(1000))
    assert max(crew.attempts().values()) == 1, "a stop finishes what is in flight and gives the rest back unattempted"
    assert min(shares.values()) >= 40, f"a replica starved: {shares}"


async def test_without_a_graceful_stop_what_was_in_flight_is_attempted_twice(redis_url: str, tmp_path: Path) -> None:
    with Crew(redis_url, tmp_path) as crew:
        worker = crew.start("--slow", "1", "--without", "graceful stop")
        await client.publish(redis_url, [task("r1", batch) for batch in range(5)])
        await until(lambda: _attempted(crew))
        worker.terminate()  # in the middle of its handler
        assert worker.wait(60) == -15
        crew.start("--slow", "0")
        await settled(redis_url)
    assert crew.effects() == set(range(5))
    assert max(crew.attempts().values()) == 2


async def _attempted(crew: Crew) -> bool:
    return bool(crew.attempts())


async def _done(crew: Crew, count: int) -> bool:
    return len(crew.effects()) >= count


async def _only_consumer_of(url: str, pid: int) -> bool:
    from redis.asyncio import Redis

    async with Redis.from_url(url) as redis:
        consumers = await redis.xinfo_consumers("fetch-tasks", "fetcher")
    return [f"-{pid}-" in consumer["name"].decode() for consumer in consumers] == [True]
