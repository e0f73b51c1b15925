"""What the scanner's replay knows without a server: columns, filters, sorting, frames, bars cut by a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.upstream.columns import is_known
from asof.upstream.filters import UnknownOperation, matches, sort_key
from asof.upstream.frames import BrokenFrame, frame, heartbeat, is_heartbeat, unframe
from asof.upstream.source import Bar, Instrument, Payload, Series, Source, View


@pytest.mark.parametrize(
    "column", ["name", "close", "RSI", "RSI|240", "RSI[1]", "RSI[1]|60", "EMA200", "Pivot.M.Demark.R1"]
)
def test_columns_of_the_scanner_are_known(column):
    assert is_known(column)


@pytest.mark.parametrize("column", ["nmae", "RSI|7", "RSI[9]", "name|240", "RSI[1", "", "|240", "RSI|240 "])
def test_anything_else_is_not(column):
    assert not is_known(column)


@pytest.mark.parametrize(
    ("operation", "right", "expected"),
    [
        ("equal", 5, True),
        ("nequal", 5, False),
        ("greater", 5, False),
        ("egreater", 5, True),
        ("less", 6, True),
        ("eless", 4, False),
        ("in_range", [4, 5], True),
        ("not_in_range", [4, 5], False),
        ("nempty", None, True),
        ("empty", None, False),
    ],
)
def test_an_operation_compares_a_value(operation, right, expected):
    assert matches([{"left": "close", "operation": operation, "right": right}], {"close": 5}.get) is expected


def test_a_null_matches_nothing_but_empty():
    for operation in ("equal", "nequal", "less", "not_in_range"):
        assert not matches([{"left": "close", "operation": operation, "right": [1, 2]}], {"close": None}.get)
    assert matches([{"left": "close", "operation": "empty"}], {"close": None}.get)


def test_an_operation_that_does_not_exist_is_named():
    with pytest.raises(UnknownOperation, match="almost"):
        matches([{"left": "close", "operation": "almost", "right": 1}], {"close": 1}.get)


@given(st.dictionaries(st.text(max_size=3), st.none() | st.integers(), max_size=8), st.booleans())
def test_nulls_are_last_in_both_directions(values, descending):
    ordered = [values[name] for name in sorted(values, key=sort_key(values, descending=descending))]
    numbers = [value for value in ordered if value is not None]
    assert ordered == sorted(numbers, reverse=descending) + [None] * (len(ordered) - len(numbers))


@given(st.lists(st.text(), max_size=5))
def test_frames_of_one_message_come_back_as_they_were(texts):
    assert list(unframe("".join(map(frame, texts)))) == texts


@pytest.mark.parametrize("message", ["~m~5~m~abc", "abc", "~m~x~m~abc", "~m~3~m~abcd"])
def test_a_message_that_is_no_frame_is_refused(message):
    with pytest.raises(BrokenFrame):
        list(unframe(message))


def test_a_heartbeat_is_told_from_a_command():
    assert [is_heartbeat(text) for text in unframe(heartbeat(7) + frame('{"m":"x","p":[]}'))] == [True, False]


@given(st.lists(st.integers(0, 400), unique=True, min_size=1, max_size=30).map(sorted), st.integers(-10, 500))
def test_no_bar_is_served_before_its_close_and_an_open_one_shows_its_open_alone(days, hour):
    span_s, now = 6, hour * 1.0
    series = Series.of((Bar(day * 10, f"{day}.5,9999,0.5,{day}.7,3") for day in days), span_s=span_s)
    view = View(Source.of([], {("X:Y", "1d"): series}), now)
    served = view.bars("X:Y", "1d")
    assert all(bar.opens <= now for bar in served)
    for bar in served:
        day = bar.opens // 10
        closed = bar.opens + span_s <= now
        assert bar.values == (f"{day}.5,9999,0.5,{day}.7,3" if closed else f"{day}.5,{day}.5,{day}.5,{day}.5,0")
    assert len(served) == sum(
        day * 10 <= now for day in days if day * 10 + span_s <= now or day * 10 <= now < day * 10 + span_s
    )
    assert view.last_bar("X:Y") == (served[-1] if served else None)


def test_an_instrument_is_there_between_its_listing_and_its_delisting():
    instrument = Instrument("X:Y", "america", {}, listed=10, delisted=20)
    seen = [View(Source.of([instrument]), now).instrument("X:Y") is not None for now in (9.9, 10, 19.9, 20)]
    assert seen == [False, True, True, False]


def test_a_payload_is_not_served_before_it_was_recorded_and_the_newest_one_wins():
    versions = (Payload({"n": 2}, since=20), Payload({"n": 1}, since=10))
    seen = [View(Source.of([], payloads={"okx/SPOT": versions}), now).payload("okx/SPOT") for now in (5, 15, 25)]
    assert seen == [None, {"n": 1}, {"n": 2}]
