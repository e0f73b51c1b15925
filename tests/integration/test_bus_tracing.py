"""One run is one trace across services, whoever starts it; without traces what a sender began is passed on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.bus import Subscription, client
from shared.bus.traces import spans_of_run
from shared.bus.tracing import trace_of_run
from shared.bus.wire import encode
from shared.errors import IntegrityError, NotFoundError, TransientError
from shared.events import Event
from tests.integration.bus_parts import QUICK, Seen, attempted, run, running, service, task

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def plan(event: Event[Any]) -> Sequence[Event[Any]]:
    return [task(event.runid or "", batch) for batch in range(2)]


async def fetch(event: Event[Any]) -> Sequence[Event[Any]]:
    return [attempted(event.data.run_id, event.data.batch)]


def spans(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in state.rglob("traces/*.jsonl") for line in path.read_text().splitlines()]


async def test_the_spans_of_a_run_are_one_trace_from_the_first_service_to_the_last(
    redis_url: str, tmp_path: Path
) -> None:
    audited, opened = Seen(), Seen()
    services = (
        service("fetcher", tmp_path, Subscription("run-candidates", plan), Subscription("fetch-tasks", fetch)),
        service("auditor", tmp_path, Subscription("run-candidates", opened), Subscription("fetch-attempted", audited)),
    )
    async with running(*services, url=redis_url, settings=QUICK.model_copy(update={"traces": True})):
        await client.publish(redis_url, [run("r1")])
        await audited.until(2)
        await opened.until(1)
        assert await client.settle(redis_url, timeout_s=60) == []
    found = spans(tmp_path)
    assert sorted(span["name"] for span in found) == sorted(
        ["fetcher run-candidates", "auditor run-candidates", *["fetcher fetch-tasks", "auditor fetch-attempted"] * 2]
    )
    assert {span["trace"] for span in found} == {trace_of_run("r1")}
    by_id = {span["span"]: span for span in found}
    for span in found:
        if span["name"] == "auditor fetch-attempted":
            parent = by_id[span["parent"]]
            assert parent["name"] == "fetcher fetch-tasks"
            assert by_id[parent["parent"]]["name"] == "fetcher run-candidates"
            assert span["start_ns"] >= parent["start_ns"]
            assert span["attributes"]["asof.run_id"] == "r1"


async def test_runs_in_one_batch_keep_their_own_traces_and_are_read_back_as_waterfalls(
    redis_url: str, tmp_path: Path
) -> None:
    async def answer(events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        return [attempted(event.runid or "", event.data.batch) for event in events]

    await client.publish(redis_url, [task(f"r{number % 2}", number) for number in range(6)])
    audited = Seen()
    services = (
        service("fetcher", tmp_path, Subscription("fetch-tasks", answer, batch=True)),
        service("auditor", tmp_path, Subscription("fetch-attempted", audited)),
    )
    async with running(*services, url=redis_url, settings=QUICK.model_copy(update={"traces": True})):
        await audited.until(6)
        assert await client.settle(redis_url, timeout_s=60) == []
    for name in ("r0", "r1"):
        root, *below = spans_of_run(tmp_path, name)
        assert (root.service, root.stream, root.events, root.depth) == ("fetcher", "fetch-tasks", 3, 0)
        assert [(span.service, span.depth, span.parent) for span in below] == [("auditor", 1, root.id)] * 3
        assert sorted(below, key=lambda span: span.start_ns) == below
        assert root.seconds >= 0


async def test_a_failed_call_is_a_span_with_its_error_and_a_cut_off_line_is_no_obstacle(
    redis_url: str, tmp_path: Path
) -> None:
    async def stumble(_: Event[Any], calls: int) -> Sequence[Event[Any]]:
        if calls == 1:
            raise TransientError("the upstream is down")
        return []

    seen = Seen(stumble)
    fetcher = service("fetcher", tmp_path, Subscription("fetch-tasks", seen))
    async with running(fetcher, url=redis_url, settings=QUICK.model_copy(update={"traces": True})):
        await client.publish(redis_url, [task("r1")])
        await seen.until(1)
        assert await client.settle(redis_url, timeout_s=60) == []
    (path,) = tmp_path.glob("fetcher/traces/*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"trace":"0a')
    first, second = spans_of_run(tmp_path, "r1")
    assert (first.deliveries, second.deliveries, second.error) == (1, 2, None)
    assert "the upstream is down" in (first.error or "")
    with pytest.raises(NotFoundError, match="ASOF_BUS_TRACES"):
        spans_of_run(tmp_path, "r2")
    path.write_bytes(b"{}\n")
    with pytest.raises(IntegrityError, match="is no span"):
        spans_of_run(tmp_path, "r1")


async def test_a_senders_trace_is_continued_with_traces_and_passed_on_without(redis_url: str, tmp_path: Path) -> None:
    for traces in (True, False):
        state = tmp_path / str(traces)
        name = f"traces-{traces}".lower()
        fetcher = service("fetcher", state, Subscription("fetch-tasks", fetch))
        async with (
            running(fetcher, url=redis_url, settings=QUICK.model_copy(update={"traces": traces})),
            Redis.from_url(redis_url) as redis,
        ):
            fields: dict[Any, Any] = dict(encode(task(name), trace=GIVEN))
            await redis.xadd("fetch-tasks", fields)
            assert await client.settle(redis_url, timeout_s=60) == []
            ((_, answer),) = await redis.xrevrange("fetch-attempted", count=1)
        assert answer[b"traceparent"].split(b"-")[1] == GIVEN.split("-")[1].encode()
        assert (answer[b"traceparent"] == GIVEN.encode()) is not traces
        assert len(spans(state)) == (1 if traces else 0)


async def test_a_forged_traceparent_goes_no_further(redis_url: str, tmp_path: Path) -> None:
    async with (
        running(service("fetcher", tmp_path, Subscription("fetch-tasks", fetch)), url=redis_url),
        Redis.from_url(redis_url) as redis,
    ):
        await redis.xadd("fetch-tasks", {"data": task("r1").to_json(), "traceparent": "\t../../x"})
        assert await client.settle(redis_url, timeout_s=60) == []
        ((_, answer),) = await redis.xrevrange("fetch-attempted", count=1)
    assert list(answer) == [b"data"]
