"""The replay's own counters: what a venue allows in a window, and what happens past it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asof.upstream.limits import Meter, Rule


class Timer:
    def __init__(self):
        self.now = 500.0

    def __call__(self):
        return self.now


def meter(rule, *, hearing_s=0.0):
    timer = Timer()
    return Meter(rule, timer=timer, wall=lambda: 1_000_000 + timer.now, hearing_s=hearing_s), timer


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 4)), max_size=60))
def test_no_sliding_window_ever_holds_more_than_the_allowance(arrivals):
    subject, timer = meter(Rule(allowance=10, window_s=2, names_the_wait=False))
    let_in = []
    for wait, weight in arrivals:
        timer.now += wait
        if subject.enter("x", weight) is None:
            let_in.append((timer.now, weight))
            subject.leave()
    for end, _ in let_in:
        assert sum(weight for at, weight in let_in if end - 2 < at <= end) <= 10


@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_refusal_always_has_a_reason(waits):
    subject, timer = meter(Rule(allowance=3, window_s=2, names_the_wait=False))
    let_in = []
    for wait in waits:
        timer.now += wait
        if subject.enter("x", 1) is None:
            let_in.append(timer.now)
            subject.leave()
        else:
            assert len([at for at in let_in if timer.now - 2 < at]) == 3


def test_a_fixed_window_starts_anew_at_its_boundary_and_names_the_wait_until_then():
    subject, timer = meter(Rule(allowance=5, window_s=60, fixed=True))
    timer.now += 59
    assert subject.enter("x", 5) is None
    over = subject.enter("x", 1)
    assert over is not None
    assert (over.wait_s, over.until) == (1.0, 1_000_000 + timer.now + 1)
    timer.now += 1
    assert subject.enter("x", 5) is None
    assert subject.used("x") == 5


def test_requests_in_flight_are_counted_until_they_leave():
    subject, _ = meter(Rule(allowance=100, window_s=60, at_once=2))
    assert [subject.enter("x", 1) for _ in range(2)] == [None, None]
    assert subject.enter("x", 1).reason == "at_once"
    subject.leave()
    assert subject.enter("x", 1) is None
    assert subject.peak_in_flight == 2


def test_a_client_is_told_to_wait_only_once_the_answer_has_reached_it():
    subject, timer = meter(Rule(allowance=1, window_s=60), hearing_s=0.2)
    assert subject.enter("x", 1) is None
    assert subject.enter("x", 1).wait_s == 60
    timer.now += 0.1
    assert not subject.was_told_to_wait()  # on its way before the refusal arrived
    timer.now += 0.2
    assert subject.was_told_to_wait()
    timer.now += 60
    assert not subject.was_told_to_wait()


def test_a_penalty_that_is_not_named_refuses_everything_and_blames_nobody():
    subject, timer = meter(Rule(allowance=1, window_s=1, penalty_s=30, names_the_wait=False))
    subject.enter("x", 1)
    assert subject.enter("x", 1).wait_s is None
    timer.now += 29
    assert subject.enter("x", 1).reason == "paused"
    assert not subject.was_told_to_wait()
    timer.now += 1.1
    assert subject.enter("x", 1) is None


def test_endpoints_have_a_budget_each_where_the_venue_says_so():
    shared, _ = meter(Rule(allowance=1, window_s=2))
    single, _ = meter(Rule(allowance=1, window_s=2, each_endpoint=True))
    assert [shared.enter(name, 1) is None for name in "ab"] == [True, False]
    assert [single.enter(name, 1) is None for name in "ab"] == [True, True]


def test_a_factor_scales_what_is_allowed_and_nothing_is_refused_when_nothing_is_enforced():
    subject, _ = meter(Rule(allowance=10, window_s=2, names_the_wait=False))
    subject.factor = 0.5
    assert [subject.enter("x", 1) is None for _ in range(6)] == 5 * [True] + [False]
    subject.enforced = False
    assert all(subject.enter("x", 1) is None for _ in range(20))
