"""Ratings that go on from history are those of the batch, to the bit; and a state survives as bytes or is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.panel import compute_panel
from services.features.domain.ratings.rules import PINE_V3
from services.features.domain.ratings.state import RatingState
from shared.errors import ContractError, IntegrityError
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import RULES, flat, nasty, walk


def continued(arrays, start, rules, state=None):
    """The rows from `start` on, one update each."""
    state = state or RatingState.from_history(*(x[:start] for x in arrays), rules=rules)
    rows = [state.update(*(x[row] for x in arrays)) for row in range(start, len(arrays[0]))]
    return [np.array([getattr(row, name) for row in rows]) for name in rows[0]._fields], state


def same(rows, batch, start):
    for found, whole in zip(rows, batch, strict=True):
        np.testing.assert_array_equal(found, whole[start:])


@settings(max_examples=40, deadline=None)
@given(st.lists(nasty(120), min_size=1, max_size=11), st.data(), st.sampled_from(RULES))
def test_one_bar_at_a_time_is_the_batch_to_the_bit(columns, data, rules):
    """Symbols of every kind side by side, resting at different times, from any moment on, by way of bytes."""
    arrays = ratings_bars.panel(columns)
    start = data.draw(st.integers(0, len(arrays[0]) - 1))
    state = RatingState.from_bytes(RatingState.from_history(*(x[:start] for x in arrays), rules=rules).to_bytes())
    rows, state = continued(arrays, start, rules, state)
    same(rows, compute_panel(*arrays, rules), start)
    bars = np.isfinite(arrays[0] + arrays[1] + arrays[2] + arrays[3]).sum(axis=0)
    np.testing.assert_array_equal(state.bars_seen, bars)


@pytest.mark.parametrize("rules", RULES)
def test_long_histories_go_on_to_the_bit(rules):
    """Past every warm-up, with a symbol that never leaves it (flat), gaps before and after, and one newcomer."""
    columns = [walk(300, 1), walk(300, 2, missing=0.2), flat(300), walk(300, 3, tick=0.5, still=0.9), walk(20, 4)]
    arrays = ratings_bars.panel(columns)
    rows, _ = continued(arrays, 230, rules)
    same(rows, compute_panel(*arrays, rules), 230)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("column", [walk(300, 1), walk(300, 2, missing=0.2), flat(300), walk(30, 4)])
def test_a_symbol_alone_is_rated_as_among_others_to_the_bit(column, rules):
    """Alone it has a kernel of plain numbers, among eight one of lanes."""
    alone, among = ratings_bars.panel([column]), ratings_bars.panel([column] * 8)
    for found, whole in zip(compute_panel(*alone, rules), compute_panel(*among, rules), strict=True):
        np.testing.assert_array_equal(found, whole[:, :1])
    states = [RatingState.from_history(*arrays, rules=rules).columns() for arrays in (alone, among)]
    np.testing.assert_array_equal(states[0], states[1][:1])


def test_a_symbol_of_its_own_takes_and_gives_floats():
    frame = ratings_bars.frame(walk(260))
    state = RatingState.from_history(frame[:250])
    whole = TechnicalRatings.compute(frame)
    for stamp, bar in frame[250:].iterrows():
        ratings = state.update(*bar)
        assert all(np.ndim(x) == 0 for x in ratings)
        assert [float(x) for x in ratings] == whole.loc[stamp].tolist()


def test_a_day_on_which_nobody_has_a_bar_changes_nothing():
    arrays = ratings_bars.panel([walk(60, s) for s in range(3)])
    state = RatingState.from_history(*(x[:59] for x in arrays))
    assert all(np.isnan(x).all() for x in state.update(*[np.full(3, np.nan)] * 5))
    same([x[None] for x in state.update(*(x[59] for x in arrays))], compute_panel(*arrays), 59)


def test_a_state_without_history_starts_at_the_first_bar():
    arrays = ratings_bars.panel([walk(40)])
    same(continued(arrays, 0, "screener")[0], compute_panel(*arrays), 0)


@pytest.mark.parametrize(
    ("given", "message"), [([1.0] * 2, "one bar of 3 symbols"), ([1.0, np.inf, 1.0], "symbol number 1 is inf")]
)
def test_an_update_of_other_symbols_or_of_infinities_is_refused(given, message):
    state = RatingState.from_history(*ratings_bars.panel([walk(30, s) for s in range(3)]))
    kept = state.to_bytes()
    with pytest.raises(ContractError, match=message):
        state.update(*[given] * 5)
    assert state.to_bytes() == kept


def test_history_has_to_be_five_arrays_or_one_frame():
    with pytest.raises(ContractError, match="five arrays or one DataFrame"):
        RatingState.from_history(np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(ContractError, match="no time zone"):
        RatingState.from_history(ratings_bars.frame(walk(30)).tz_localize(None))


STATE = RatingState.from_history(*ratings_bars.panel([walk(70, s) for s in range(3)]), rules="pine_v3")
SAVED = STATE.to_bytes()
MAGIC, CHECKSUM, HEADER, BODY = SAVED.split(b"\n", 3)


def test_bytes_are_the_state():
    again = RatingState.from_bytes(SAVED)
    assert again.to_bytes() == SAVED
    assert (again.rules, again.width, again.phase) == (PINE_V3, 3, 70)


def proved(header, body=BODY):
    """Bytes whose checksum holds, whatever they say."""
    checked = header + b"\n" + body
    return b"\n".join([MAGIC, hashlib.sha256(checked).hexdigest().encode(), checked])


def reheaded(**changes):
    header = {**json.loads(HEADER), **changes}
    return proved(json.dumps({k: v for k, v in header.items() if v is not None}).encode())


DAMAGED = {
    "nothing": b"",
    "other bytes": b"PAR1" + SAVED,
    "cut short": SAVED[:-8],
    "longer": SAVED + bytes(8),
    "no body": proved(HEADER, b""),
    "a longer body": proved(HEADER, BODY + bytes(8)),
    "a flipped bit": SAVED[:-100] + bytes([SAVED[-100] ^ 1]) + SAVED[-99:],
    "no JSON": proved(b"{layout"),
    "a list": proved(b"[1, 2]"),
    "a number": proved(b"7"),
    "no UTF-8": proved(b"\xff\xfe"),
    "rules as a list": reheaded(rules=["screener"]),
    "symbols as text": reheaded(symbols="3"),
    "fewer than no symbols": reheaded(symbols=-3),
    "more symbols": reheaded(symbols=30),
    "no phase": reheaded(phase=None),
    "a phase before the first bar": reheaded(phase=-1),
    "something more": reheaded(colour="red"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_bytes_are_refused_with_what_to_do(damage):
    with pytest.raises(IntegrityError) as caught:
        RatingState.from_bytes(DAMAGED[damage])
    assert "from_history" in str(caught.value)


@pytest.mark.parametrize("changes", [{"layout": 1}, {"rules_version": "2020-01"}, {"rules": "pine_v4"}], ids=str)
def test_bytes_of_another_version_are_refused(changes):
    with pytest.raises(ContractError, match="another version"):
        RatingState.from_bytes(reheaded(**changes))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SAVED) - 1), st.integers(1, 255))
def test_no_changed_byte_is_taken_for_a_state(place, flip):
    changed = bytearray(SAVED)
    changed[place] ^= flip
    with pytest.raises(IntegrityError):
        RatingState.from_bytes(bytes(changed))


@settings(max_examples=40, deadline=None)
@given(st.lists(nasty(120), min_size=1, max_size=11), st.data(), st.sampled_from(RULES))
def test_symbols_of_several_states_go_on_together_to_the_bit(columns, data, rules):
    """States of other panels and other phases, taken apart and put together in another order."""
    arrays = ratings_bars.panel(columns)
    width = len(columns)
    start = data.draw(st.integers(0, len(arrays[0]) - 1))
    order = data.draw(st.permutations(range(width)))
    own = []
    for symbol in range(width):
        here = ~np.isnan(np.sum([x[:start, symbol] for x in arrays[:4]], axis=0))  # each in a panel as long as it is
        ratings, state = RatingState.rated(*(x[:start, symbol : symbol + 1][here] for x in arrays), rules=rules)
        np.testing.assert_array_equal(ratings.rsi[:, 0], compute_panel(*(x[:start] for x in arrays)).rsi[here, symbol])
        own.append(state.columns()[0])
    together = RatingState.of_columns([own[symbol] for symbol in order], rules)
    shuffled = [x[:, order] for x in arrays]
    rows, _ = continued(shuffled, start, rules, together)
    same(rows, compute_panel(*shuffled, rules=rules), start)


def test_columns_of_another_shape_are_refused():
    with pytest.raises(ContractError, match="columns of a state have the shape"):
        RatingState.of_columns(np.zeros((2, 7)))
