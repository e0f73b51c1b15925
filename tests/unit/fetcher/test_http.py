"""Upstreams nobody trusts: bounded in size, time and depth; every status and every broken body has its error."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import tracemalloc
from datetime import UTC, datetime

import httpx
import pytest

from services.fetcher.adapters.http import Caps, is_loopback, observed_clock, retry_after
from services.fetcher.adapters.text import printable
from services.fetcher.domain.faults import (
    Banned,
    EmptyAnswer,
    Forbidden,
    Garbled,
    RateLimited,
    ServerFault,
    TimedOut,
    Untrusted,
    failure_of,
)
from tests.unit.fetcher import upstreams as up

SMALL = Caps(body_bytes=10_000, total_s=20)
HASTY = Caps(body_bytes=10_000, total_s=0.3)
GZIP = {"Content-Encoding": "gzip"}


async def ask(answer, caps=SMALL, **options):
    return await up.upstream(answer, caps=caps, **options).json("GET", "/x")


def answering(body, status=200, **headers):
    return lambda request: up.response(body, status, **headers)


async def test_a_compressed_answer_is_read():
    got = await ask(answering(gzip.compress(b'{"a":1}'), **GZIP))
    assert got.data == {"a": 1}


async def test_a_small_body_that_inflates_without_end_is_refused_before_it_does():
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 60_000
    tracemalloc.start()
    try:
        with pytest.raises(Untrusted, match="larger than"):
            await ask(answering(bomb, **GZIP))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


async def test_a_body_that_never_ends_is_given_up():
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await asyncio.sleep(0.01)
                yield b" "

    answer = httpx.Response(200, stream=Endless(), headers={"Content-Type": "application/json"})
    with pytest.raises(TimedOut, match="no whole answer within"):
        await ask(lambda request: answer, HASTY)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answering(b" " * 10_001), Untrusted),
        (answering(b""), EmptyAnswer),
        (answering(b" \n"), EmptyAnswer),
        (answering(b'{"a":'), Garbled),
        (answering(b'{"a":NaN}'), Garbled),
        (answering(b"\xff\xfe{}"), Garbled),
        (answering(b"[" * 5000), (Untrusted, Garbled)),
        (answering(b"{}", **{"Content-Type": "image/png"}), Untrusted),
        (answering(b"damaged", **GZIP), Garbled),
        (answering(b"{}", **{"Content-Encoding": "br"}), Untrusted),
        (answering(b"", 301, Location="http://127.0.0.1:1/"), Untrusted),
        (answering(b"<html>", 403, **{"Content-Type": "text/html"}), Forbidden),
        (answering(b"<html>", 503, **{"Content-Type": "text/html"}), ServerFault),
    ],
)
async def test_a_bad_answer_is_one_of_our_errors(answer, expected):
    with pytest.raises(expected) as met:
        await ask(answer)
    assert met.value.host == "127.0.0.1:9"


async def test_a_page_for_people_is_never_quoted_and_a_reason_for_programs_is():
    with pytest.raises(Forbidden) as page:
        await ask(answering(b"<script>alert(1)</script>", 403, **{"Content-Type": "text/html"}))
    assert page.value.cause is None
    with pytest.raises(RateLimited) as reason:
        await ask(answering(b'{"code":-1003,"msg":"Too\\u0007 many"}', 429))
    assert "-1003" in reason.value.cause


async def test_a_turn_is_handed_back_after_every_fault():
    class Counting:
        def __init__(self):
            self.out = 0

        async def acquire(self, venue, weight=1):
            self.out += 1

        async def release(self, turn, fault, *, used=None):
            self.out -= 1

    pace = Counting()
    for answer in (answering(b"{}"), answering(b""), answering(b"", 500), answering(b"{")):
        with contextlib.suppress(EmptyAnswer, ServerFault, Garbled):
            await ask(answer, pace=pace)
        assert pace.out == 0


async def test_the_used_weight_is_passed_on():
    told = []

    class Listening:
        async def acquire(self, venue, weight=1):
            return None

        async def release(self, turn, fault, *, used=None):
            told.append(used)

    for value in ("123", "many", None):
        headers = {} if value is None else {"X-Used": value}
        await ask(answering(b"{}", **headers), pace=Listening(), used_header="X-Used")
    assert told == [123, None, None]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Fri, 02 Jan 2026 03:05:05 GMT"}, 61),
        ({"Retry-After": "Wed, 15 Dec 2021 08:30:30 GMT", "Date": "Wed, 15 Dec 2021 08:30:00 GMT"}, 31),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_seconds_and_from_dates(headers, seconds):
    assert retry_after(headers, up.NOW) == seconds


async def test_a_403_is_a_ban_where_the_venue_means_it_so():
    with pytest.raises(Banned) as met:
        await ask(answering(b"", 403), forbidden_pause_s=600)
    assert met.value.retry_after == 600


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "127.9.9.9", "localhost:1", "::1", "[::1]"])
def test_this_machine_is_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1.evil.com", "10.0.0.1", "example.com", "localhost.evil.com", "0.0.0.0"])
def test_no_other_machine_is_loopback(host):
    assert not is_loopback(host)
    assert observed_clock(up.REPLAY, host, lambda: up.NOW) == up.NOW


def test_a_replay_without_a_readable_date_does_not_set_the_clock():
    assert observed_clock({"X-Asof-Replay": "1", "Date": "yesterday"}, "127.0.0.1", lambda: up.NOW) == up.NOW
    assert observed_clock(up.REPLAY, "127.0.0.1", lambda: up.NOW) == datetime(2021, 12, 15, 8, 30, tzinfo=UTC)


def test_words_of_an_upstream_are_printable_and_short():
    assert printable("a\x1b[31m\r\nb" + "x" * 1000).startswith("a [31m  bxx")
    assert len(printable("x" * 1000)) == 300


def test_a_failure_carries_words_host_status_and_whether_to_retry():
    failure = failure_of(RateLimited("429", host="h", status=429, cause="-1003"), attempts=2, fix="asof retry r1")
    assert failure.model_dump(exclude_none=True) == {
        "code": "rate_limited",
        "message": "429 (-1003)",
        "retryable": True,
        "host": "h",
        "status": 429,
        "attempts": 2,
        "fix": "asof retry r1",
    }
