"""The fleet's pace on a real server: several replicas, one limit."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest
from redis.asyncio import Redis

from services.fetcher.adapters.redis_pace import RedisBudget, RedisPace
from services.fetcher.domain.faults import EmptyAnswer, Paused, RateLimited, TimedOut
from services.fetcher.domain.pace import PACES, VenuePace
from tests.integration.fetcher_fleet import redis_server

QUICK = {
    "venue": VenuePace(rate=100, burst=5, at_once=4),
    "wide": VenuePace(rate=1000, burst=1000, at_once=8, window=1000),
    "slow": VenuePace(rate=20, burst=1, at_once=2),
}


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture
async def redis(server):
    client = Redis(host="127.0.0.1", port=server.port)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def replicas(redis):
    made = [RedisPace(QUICK, patience_s=2, random=Random(seed), lease_s=0.6) for seed in range(4)]
    for pace in made:
        pace.connect(redis)
    yield made
    for pace in made:
        await pace.close()


async def full_speed(pace, venue):
    """Good answers until the level is at its top."""
    for _ in range(40):
        await pace.release(await pace.acquire(venue), None)


async def spend(pace, venue, seconds, sent):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        turn = await pace.acquire(venue)
        sent.append(time.monotonic())
        await pace.release(turn, None)


async def test_four_replicas_together_stay_under_the_limit_and_use_most_of_it(replicas):
    await full_speed(replicas[0], "venue")
    sent = []
    await asyncio.gather(*(spend(pace, "venue", 1.5, sent) for pace in replicas for _ in range(2)))
    sent.sort()
    rate, burst = QUICK["venue"].rate, QUICK["venue"].burst
    worst = max(sum(start <= at < start + 1 for at in sent) for start in sent)
    assert worst <= rate + burst + 1
    assert len(sent) >= 0.85 * rate * 1.5


async def test_requests_in_flight_are_bounded_over_all_replicas(replicas):
    await full_speed(replicas[0], "wide")
    inside = most = 0

    async def hold(pace):
        nonlocal inside, most
        turn = await pace.acquire("wide")
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1
        await pace.release(turn, None)

    await asyncio.gather(*(hold(pace) for pace in replicas for _ in range(12)))
    assert most == QUICK["wide"].at_once


async def test_retry_after_pauses_every_replica_for_that_long_and_then_probes_alone(replicas):
    one, other = replicas[:2]
    await full_speed(one, "venue")
    turn = await one.acquire("venue")
    began = time.monotonic()
    await one.release(turn, RateLimited("429", retry_after=0.5))
    probe = await other.acquire("venue")
    assert time.monotonic() - began >= 0.5
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.acquire("venue"), 0.1)
    await other.release(probe, None)
    await one.release(await asyncio.wait_for(one.acquire("venue"), 20), None)


async def test_a_probe_that_serves_lets_the_others_in_while_it_is_kept(replicas):
    one, other = replicas[:2]
    await full_speed(one, "venue")
    await one.release(await one.acquire("venue"), RateLimited("429", retry_after=0.1))
    probe = await one.acquire("venue")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.acquire("venue"), 0.1)
    await one.served(probe)
    await other.release(await asyncio.wait_for(other.acquire("venue"), 20), None)
    await one.release(probe, None)


async def test_a_connection_that_serves_on_brings_the_level_back_without_giving_its_turn_up(replicas, redis):
    one = replicas[0]
    turn = await one.acquire("wide")
    for _ in range(40):
        await one.served(turn)
    assert float(await redis.hget("asof:pace:{wide}", "level")) == 1
    assert await redis.zcard("asof:pace:{wide}:in-flight") == 1
    await one.release(turn, None)
    assert await redis.zcard("asof:pace:{wide}:in-flight") == 0


async def test_a_failed_probe_closes_the_venue_again(replicas):
    one = replicas[0]
    await one.release(await one.acquire("venue"), RateLimited("429", retry_after=0.1))
    await one.release(await one.acquire("venue"), TimedOut("silent"))
    began = time.monotonic()
    await one.release(await one.acquire("venue"), None)
    assert time.monotonic() - began >= 0.9


async def test_a_pause_longer_than_patience_is_an_error_that_names_the_wait(replicas):
    one, other = replicas[:2]
    await one.release(await one.acquire("venue"), RateLimited("418", retry_after=600))
    with pytest.raises(Paused) as met:
        await other.acquire("venue")
    assert 590 < met.value.retry_after <= 600
    await other.release(await other.acquire("wide"), None)  # another venue is not concerned


async def test_push_back_halves_the_level_once_for_requests_sent_together(replicas, redis):
    one = replicas[0]
    await full_speed(one, "wide")
    turns = [await one.acquire("wide") for _ in range(4)]
    for turn in turns:
        await one.release(turn, RateLimited("429"))
    assert float(await redis.hget("asof:pace:{wide}", "level")) == 0.5


async def test_good_answers_bring_the_level_back(replicas, redis):
    one = replicas[0]
    await full_speed(one, "wide")
    await one.release(await one.acquire("wide"), RateLimited("429", retry_after=0.01))
    await full_speed(one, "wide")
    assert float(await redis.hget("asof:pace:{wide}", "level")) == 1


async def test_five_faults_in_a_row_open_the_circuit(replicas):
    one = replicas[0]
    for _ in range(5):
        await one.release(await one.acquire("wide"), TimedOut("silent"))
    began = time.monotonic()
    await one.release(await one.acquire("wide"), None)
    assert time.monotonic() - began >= 0.9


async def test_a_venue_that_stays_down_is_waited_for_only_so_long_and_a_probe_brings_it_back(redis):
    pace = RedisPace(QUICK, patience_s=60, outage_s=0.5, random=Random(1))
    pace.connect(redis)
    began = time.monotonic()
    for _ in range(6):  # the sixth waits for the pause of the fifth, and fails again
        await pace.release(await pace.acquire("wide"), TimedOut("silent"))
    with pytest.raises(Paused) as met:
        await pace.acquire("wide")
    assert "has not answered for" in met.value.what
    assert time.monotonic() - began < 20, "patience alone would have been a minute"
    await asyncio.sleep(met.value.retry_after)
    await pace.release(await pace.acquire("wide"), None)
    await pace.release(await asyncio.wait_for(pace.acquire("wide"), 20), None)
    await pace.close()


async def test_a_venue_that_pushes_back_is_not_down(redis):
    pace = RedisPace(QUICK, patience_s=60, outage_s=0.1, random=Random(1))
    pace.connect(redis)
    for _ in range(3):
        await pace.release(await pace.acquire("wide"), RateLimited("429", retry_after=0.15))
    await pace.release(await pace.acquire("wide"), None)
    await pace.close()


async def test_an_empty_body_pauses_longer_than_a_plain_push_back(replicas):
    one = replicas[0]
    await one.release(await one.acquire("venue"), EmptyAnswer("200 with an empty body"))
    with pytest.raises(Paused) as met:
        await one.acquire("venue")
    assert met.value.retry_after > 4


async def test_lost_state_starts_at_the_slow_end(replicas, redis):
    one = replicas[0]
    await full_speed(one, "slow")
    await redis.flushall()
    began = time.monotonic()
    for _ in range(4):
        await one.release(await one.acquire("slow"), None)
    # One request's worth of tokens, then half the rate of 20 a second.
    assert time.monotonic() - began >= 3 / (20 * 0.5) * 0.95


async def test_the_weight_a_venue_reports_as_used_is_believed(replicas, redis):
    one = replicas[0]
    await full_speed(one, "wide")
    await one.release(await one.acquire("wide"), None, used=960)
    assert float(await redis.hget("asof:pace:{wide}", "tokens")) <= 10


async def test_a_killed_replicas_slots_come_back(replicas, redis):
    one, other = replicas[:2]
    await one.acquire("slow")  # a fresh venue admits one at a time
    await one.close()  # nobody renews it any more, as after a kill
    turn = await asyncio.wait_for(other.acquire("slow"), 20)
    await other.release(turn, None)


async def test_a_held_turn_outlives_its_lease(replicas):
    one, other = replicas[:2]
    turn = await one.acquire("slow")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.acquire("slow"), 1.5)
    await one.release(turn, None)


async def test_whoever_waits_for_a_turn_stops_when_told_to(replicas):
    one, chance = replicas[0], Random(3)
    turn = await one.acquire("slow")
    waiting = [asyncio.create_task(one.acquire("slow")) for _ in range(200)]
    for task in waiting:
        await asyncio.sleep(chance.random() / 200)
        task.cancel()
    _, going_on = await asyncio.wait(waiting, timeout=2)
    assert not going_on
    await one.release(turn, None)
    await one.release(await asyncio.wait_for(one.acquire("slow"), 20), None)


async def test_the_retry_budget_is_one_for_all_replicas(redis):
    budgets = [RedisBudget(10), RedisBudget(10)]
    for budget in budgets:
        budget.connect(redis)
    assert await budgets[0].take("r1", 6)
    assert not await budgets[1].take("r1", 6)
    assert await budgets[1].take("r2", 6)


@pytest.mark.parametrize(
    ("venue", "window_s", "allowance"),
    [("binance", 60, 6000), ("binance-usdm", 60, 2400), ("okx", 2, 20), ("bybit", 5, 600), ("scanner", 60, 66)],
)
def test_no_pace_can_cross_what_its_venue_allows(venue, window_s, allowance):
    pace = PACES[venue]
    assert 0.9 * allowance <= pace.rate * window_s + pace.burst <= allowance
