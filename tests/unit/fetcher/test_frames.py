"""Websocket frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fetcher.adapters.frames import call, frame, read_frames
from services.fetcher.domain.faults import Garbled


@given(st.lists(st.text(alphabet=st.characters(codec="ascii"), max_size=50)))
def test_whatever_is_framed_is_read_back(payloads):
    assert list(read_frames("".join(map(frame, payloads)))) == payloads


def test_a_call_is_one_frame():
    assert list(read_frames(call("m", "a", 1))) == ['{"m":"m","p":["a",1]}']


@pytest.mark.parametrize("message", ["~m~5~m~abc", "hello", "~m~x~m~abc", "~m~3~m~abcd", "~m~99999999999~m~a"])
def test_a_length_that_does_not_fit_is_refused(message):
    with pytest.raises(Garbled):
        list(read_frames(message))
