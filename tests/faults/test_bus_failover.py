"""A master dies under load, or hands over: services follow its Sentinel, and what was replicated is applied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from shared.bus import Subscription, client
from shared.bus.address import client_of, close
from shared.errors import ContractError, TransientError
from shared.events import Event
from tests.integration.bus_parts import QUICK, attempted, running, service, task, until
from tests.sentinel import WatchedPair, watched_pair

# Half a second until the master is taken for dead, a second or two for the vote and the promotion.
FAILOVER_S = 15.0
HOPELESS_S = 4.0
FOLLOWING = QUICK.model_copy(update={"block_s": 0.2})


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedPair]:
    with watched_pair(tmp_path_factory.mktemp("redis")) as found:
        yield found


class Chain:
    """fetch-tasks → fetch-attempted → noted."""

    def __init__(self, state: Path) -> None:
        self.applied: set[int] = set()
        self.services = (
            service("fetcher", state, Subscription("fetch-tasks", self._fetch)),
            service("auditor", state, Subscription("fetch-attempted", self._note)),
        )

    async def _fetch(self, event: Event[Any]) -> Sequence[Event[Any]]:
        return [attempted("r1", event.data.batch)]

    async def _note(self, event: Event[Any]) -> Sequence[Event[Any]]:
        self.applied.add(event.data.batch)
        return []


class Load:
    """Publishes one event after the other through the Sentinel URL, and knows which of them the replica had."""

    def __init__(self, url: str) -> None:
        self.replicated: set[int] = set()
        self._url = url
        self._stop = False

    async def run(self) -> None:
        number = 0
        while not self._stop:
            number += 1
            # While nobody is the master the client gives up; who publishes tries again.
            with suppress(TransientError):
                async with client.connected(self._url) as redis:
                    await redis.xadd("fetch-tasks", {"data": task("r1", number).to_json()})
                    if await redis.wait(1, 50):
                        self.replicated.add(number)
            await asyncio.sleep(0.002)

    def stop(self) -> None:
        self._stop = True


async def applied(chain: Chain, wanted: set[int]) -> bool:
    return wanted <= chain.applied


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without the sentinel"])
async def test_the_master_is_killed_under_load_and_everything_replicated_is_applied(
    pair: WatchedPair, tmp_path: Path, guarded: bool
) -> None:
    url = pair.url() if guarded else f"redis://127.0.0.1:{pair.ports[0]}/0"
    chain = Chain(tmp_path)
    load = Load(pair.url())
    stop_s = FOLLOWING.model_copy(update={"grace_s": 1.0})
    async with running(*chain.services, url=url, settings=stop_s):
        loading = asyncio.create_task(load.run())
        await until(lambda: applied(chain, set(range(1, 100))))
        assert len(load.replicated) > 50, "the replica has what the master acknowledged"
        pair.servers[0].kill()
        killed = time.monotonic()
        await until(lambda: _master_is(pair, pair.ports[1]), FAILOVER_S)
        await asyncio.sleep(0.5)
        load.stop()
        await loading
        await client.publish(pair.url(), [task("r1", 1_000_000)])
        wanted = {*load.replicated, 1_000_000}
        if guarded:
            await until(lambda: applied(chain, wanted), FAILOVER_S)
            assert time.monotonic() - killed < FAILOVER_S
            assert await client.settle(pair.url(), timeout_s=60) == []
        else:
            with pytest.raises(TimeoutError):
                await until(lambda: applied(chain, wanted), HOPELESS_S)


async def test_a_planned_failover_under_load_loses_nothing_that_was_replicated(
    pair: WatchedPair, tmp_path: Path
) -> None:
    chain = Chain(tmp_path)
    load = Load(pair.url())
    async with running(*chain.services, url=pair.url(), settings=FOLLOWING):
        loading = asyncio.create_task(load.run())
        await until(lambda: applied(chain, set(range(1, 50))))
        pair.fail_over()
        await until(lambda: _master_is(pair, pair.ports[1]), FAILOVER_S)
        await asyncio.sleep(1)
        load.stop()
        await loading
        await until(lambda: applied(chain, load.replicated), FAILOVER_S)
        assert await client.settle(pair.url(), timeout_s=60) == []


@pytest.mark.parametrize("replicating", [True, False])
async def test_who_publishes_is_warned_when_no_replica_has_the_events(pair: WatchedPair, replicating: bool) -> None:
    if not replicating:
        pair.servers[1].pause()
    with structlog.testing.capture_logs() as logged:
        await client.publish(pair.url(), [task("r1")])
    assert any("no replica" in line["event"] for line in logged) is not replicating


async def _master_is(pair: WatchedPair, port: int) -> bool:
    return pair.address()[1] == port


async def test_nobody_who_watches_is_a_transient_fault_with_its_cause() -> None:
    with pytest.raises(TransientError, match=r"\(No master found for 'asof'\).*asof doctor"):
        await client.publish("redis+sentinel://127.0.0.1:1,127.0.0.1:2/asof", [task("r1")])


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://h", "redis+sentinel://h/a/b", "redis+sentinel://h:x/a", "redis+sentinel://,/a", "redis://a:b"],
)
def test_a_url_that_is_wrong_is_named(url: str) -> None:
    with pytest.raises(ContractError):
        client_of(url)


async def test_a_sentinel_url_has_a_user_a_password_tls_and_a_database() -> None:
    redis = client_of("rediss+sentinel://ana:s%40fe@[::1]:7,h/pair?db=3&ssl_ca_certs=/ca&sentinel_password=other")
    pool: Any = redis.connection_pool
    own, sentinels = pool.connection_kwargs, pool.sentinel_manager.sentinels
    assert (own["username"], own["password"], own["db"], own["ssl_ca_certs"]) == ("ana", "s@fe", 3, "/ca")
    assert issubclass(pool.connection_class, SentinelManagedSSLConnection)
    asked = [one.connection_pool for one in sentinels]
    assert [(one.connection_kwargs["host"], one.connection_kwargs["port"]) for one in asked] == [
        ("::1", 7),
        ("h", 26379),
    ]
    assert {one.connection_kwargs["password"] for one in asked} == {"other"}
    assert {one.connection_class.__name__ for one in asked} == {"SSLConnection"}
    await close(redis)
