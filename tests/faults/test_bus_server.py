"""The server is killed, flushed, filled and stopped under load: everything is applied, or somebody is told.

The services run in this process; every test has a negative control with one guard off.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from shared.bus import Bus, Subscription, client, health
from shared.bus.settings import BusSettings
from shared.errors import ContractError, TransientError
from shared.events import Event
from tests.faults.bus_worker import take_off
from tests.integration.bus_parts import QUICK, Seen, attempted, running, service, task, until
from tests.redis_server import RedisServer, running_server

RECOVERY_S = 10
HOPELESS_S = 2


class Chain:
    """fetch-tasks → fetcher → fetch-attempted → auditor, and what each of them applied."""

    def __init__(self, state: Path, slow_s: float = 0) -> None:
        self._slow_s = slow_s
        self.fetched = Seen(self._answer)
        self.audited = Seen()
        self.services = (
            service("fetcher", state, Subscription("fetch-tasks", self.fetched)),
            service("auditor", state, Subscription("fetch-attempted", self.audited)),
        )

    async def _answer(self, event: Event[Any], _: int) -> Sequence[Event[Any]]:
        await asyncio.sleep(self._slow_s)
        return [attempted(event.data.run_id, event.data.batch)]

    def applied(self) -> set[int]:
        return {event.data.batch for event in self.audited.applied}


async def publish_whatever_happens(url: str, events: Sequence[Event[Any]]) -> None:
    """As a publisher with an outbox does: again and again until the server has it."""
    for event in events:
        while True:
            try:
                await client.publish(url, [event])
                break
            except TransientError:
                await asyncio.sleep(0.05)


async def applied(chain: Chain, wanted: set[int]) -> bool:
    return wanted <= chain.applied()


@pytest.mark.parametrize("durable", [True, False], ids=["append-only", "without the append-only file"])
async def test_redis_kill_9_under_load_and_everything_is_applied(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, durable: bool
) -> None:
    chain = Chain(tmp_path)
    slow = QUICK.model_copy(update={"min_idle_s": 6.0})
    with running_server(tmp_path_factory.mktemp("redis"), *(() if durable else ("--appendonly", "no"))) as server:
        async with Redis.from_url(server.url()) as redis:
            # Read by a worker that is gone, and not due for takeover before the kill: only the disk can bring it back.
            await client.publish(server.url(), [task("r1", batch) for batch in range(400, 403)])
            await redis.xgroup_create("fetch-tasks", "fetcher", id="0")
            await redis.xreadgroup("fetcher", "a-worker-elsewhere", {"fetch-tasks": ">"})
        async with running(*chain.services, url=server.url(), settings=slow):
            load = asyncio.create_task(publish_whatever_happens(server.url(), [task("r1", b) for b in range(400)]))
            await chain.audited.until(100)
            server.kill()
            await asyncio.sleep(0.3)
            server.start()
            back = time.monotonic()
            await load
            if durable:
                await until(lambda: applied(chain, set(range(403))), RECOVERY_S)
                assert time.monotonic() - back <= RECOVERY_S
                assert await client.settle(server.url(), timeout_s=60) == []
            else:
                with pytest.raises(TimeoutError):
                    await until(lambda: applied(chain, set(range(403))), HOPELESS_S + slow.min_idle_s)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without regrouping"])
async def test_flushall_heals_itself_and_shows_at_readiness(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        take_off("regrouping", monkeypatch.setattr)
    chain = Chain(tmp_path)
    with_port = QUICK.model_copy(update={"port": free_port()})
    async with (
        running(*chain.services, url=own_redis.url(), settings=with_port),
        Redis.from_url(own_redis.url()) as redis,
    ):
        await client.publish(own_redis.url(), [task("r1", batch) for batch in range(20)])
        await until(lambda: applied(chain, set(range(20))))
        assert (await ready(with_port))[0] == 200
        await redis.flushall()
        # What was published before the groups are back counts too: they are made at the beginning.
        await client.publish(own_redis.url(), [task("r1", batch) for batch in range(20, 40)])
        if not guarded:
            with pytest.raises(TimeoutError):
                await until(lambda: applied(chain, set(range(40))), HOPELESS_S)
            assert (await ready(with_port))[0] == 503, "a process that reads nothing must not look ready"
            return
        await until(lambda: applied(chain, set(range(40))), RECOVERY_S)
        status, reasons = await ready(with_port)
        assert status == 503
        assert any("was lost" in reason for reason in reasons)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without the transaction"])
async def test_a_full_server_is_back_pressure_and_no_loss(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        take_off("transaction", monkeypatch.setattr)
    chain, everything = Chain(tmp_path, slow_s=0.01), set(range(50))
    with_port = QUICK.model_copy(update={"port": free_port()})
    async with (
        running(*chain.services, url=own_redis.url(), settings=with_port),
        Redis.from_url(own_redis.url()) as redis,
    ):
        await client.publish(own_redis.url(), [task("r1", batch) for batch in everything])
        await chain.audited.until(5)
        await redis.config_set("maxmemory", 1)
        await asyncio.sleep(1)
        assert not everything <= chain.applied()
        if guarded:
            status, reasons = await ready(with_port)
            assert status == 503
            assert any("refuses writes" in reason for reason in reasons)
            assert "asof_bus_blocked 1.0" in await metrics(with_port)
        await redis.config_set("maxmemory", 0)
        if not guarded:
            with pytest.raises(TimeoutError):
                await until(lambda: applied(chain, everything), HOPELESS_S)
            return
        await until(lambda: applied(chain, everything), RECOVERY_S)
        assert await client.settle(own_redis.url(), timeout_s=60) == []
        assert (await ready(with_port))[0] == 200
        assert "asof_bus_blocked 0.0" in await metrics(with_port)
        assert len(chain.fetched.events) == len(everything), "a refused transaction is repeated, not its effect"


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without a limit to the answer"])
async def test_a_stopped_server_delays_everything_and_loses_nothing(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    if not guarded:
        monkeypatch.setattr(health, "_ANSWER_S", 1e9)
    chain = Chain(tmp_path)
    with_port = QUICK.model_copy(update={"port": free_port()})
    async with running(*chain.services, url=own_redis.url(), settings=with_port):
        load = asyncio.create_task(publish_whatever_happens(own_redis.url(), [task("r1", b) for b in range(100)]))
        await chain.audited.until(25)
        own_redis.pause()
        if not guarded:
            with pytest.raises(httpx.ReadTimeout):
                await ready(with_port, timeout_s=3)
            own_redis.resume()
            await load
            return
        status, reasons = await ready(with_port)
        assert status == 503
        assert "does not answer" in reasons[0]
        own_redis.resume()
        await load
        await until(lambda: applied(chain, set(range(100))), RECOVERY_S)


async def test_a_server_that_evicts_is_refused(own_redis: RedisServer, tmp_path: Path) -> None:
    async with Redis.from_url(own_redis.url()) as redis:
        await redis.config_set("maxmemory", 100_000_000)
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ContractError, match="noeviction"):
        async with running(*Chain(tmp_path).services, url=own_redis.url()):
            pass


async def test_a_server_that_is_not_there_is_named_within_seconds(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="asof doctor"):
        await client.publish(f"unix://{tmp_path}/nothing.sock", [task("r1")])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ready(settings: BusSettings, *, timeout_s: float = 10) -> tuple[int, list[str]]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{settings.port}/ready", timeout=timeout_s)
    return answer.status_code, answer.json()["reasons"]


async def metrics(settings: BusSettings) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://127.0.0.1:{settings.port}/metrics", timeout=10)).text


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without a second look"])
async def test_what_a_job_published_just_before_the_server_lost_it_is_published_again(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    monkeypatch.setattr(Bus.confirm, "__kwdefaults__", {"after_s": 0.5 if guarded else 1e9})
    bus: list[Bus] = []

    async def opened(own: Bus) -> None:
        bus.append(own)

    async with (
        running(service("fetcher", tmp_path, on_start=opened), url=own_redis.url()),
        Redis.from_url(own_redis.url()) as redis,
    ):
        await bus[0].publish([task("r1", 1)])
        await redis.delete("fetch-tasks")  # stands for the end of an append-only file that was never synced

        async def there() -> bool:
            return await redis.xlen("fetch-tasks") == 1

        if guarded:
            await until(there)
        else:
            with pytest.raises(TimeoutError):
                await until(there, HOPELESS_S)
    left = [path for path in (tmp_path / "fetcher" / "outbox").rglob("*") if path.name.isdigit()]
    assert not left, "a clean stop leaves nothing to publish again"


async def test_a_stop_while_the_server_is_gone_is_quick_and_gives_up_nothing(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    chain = Chain(tmp_path)
    async with running(*chain.services, url=own_redis.url()):
        await client.publish(own_redis.url(), [task("r1", batch) for batch in range(5)])
        await until(lambda: applied(chain, set(range(5))))
        own_redis.kill()
        await asyncio.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 15, "it waited for a server that is gone"
