"""Every service works as a user who may do nothing but its work; checked on a real server, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from asof.redis_health import examine_redis
from services.auditor.adapters.lag import RedisGroups
from services.auditor.adapters.server import RedisState
from services.catalog.adapters.lease import RedisLease
from services.fetcher.adapters.redis_pace import RedisBudget, RedisPace
from services.fetcher.domain.pace import VenuePace
from shared.bus import Job, Subscription, client
from shared.bus.access import CLI, USERS, access_file
from shared.bus.letterbox import drop, letters, replay_all
from shared.errors import TerminalError, TransientError
from shared.events import Event
from shared.streams import SERVICES, STREAMS, consumed_by, published_by
from tests.integration.bus_parts import QUICK, Seen, attempted, run, running, service, task, until
from tests.redis_server import RedisServer, running_server

EAGER = QUICK.model_copy(update={"upkeep_s": 0.1, "keep_s": 0.01, "archive_keep_s": 0.01, "trim_roughly": False})


def password(user: str) -> str:
    return f"of-{user}"


def entry_of_image() -> ModuleType:
    """docker/redis.py, which joins the rules and the passwords where compose runs."""
    file = Path(__file__).resolve().parents[2] / "docker" / "redis.py"
    spec = spec_from_file_location("entry_of_redis_image", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of secret files, as they are mounted into the container of Redis."""
    folder = tmp_path_factory.mktemp("secrets")
    for user in USERS:
        (folder / f"redis_{user}").write_text(f"{password(user)}\n")
    return folder


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory, passwords: Path) -> Iterator[RedisServer]:
    """A server with an access-list file; the default user is off."""
    folder = tmp_path_factory.mktemp("redis")
    users = folder / "users.acl"
    users.write_text("user default on nopass ~* &* +@all\n")
    with running_server(folder, "--aclfile", str(users)) as server:
        users.write_text(entry_of_image().access_list(access_file(), passwords))
        with SyncRedis.from_url(server.url()) as redis:
            redis.acl_load()
        yield server


def url(server: RedisServer, user: str) -> str:
    return f"unix://{user}:{password(user)}@{server.socket}?db=0"


async def test_each_service_can_do_all_its_work_as_its_own_user(guarded: RedisServer, tmp_path: Path) -> None:
    mended = False

    async def fetch(event: Event[Any], calls: int) -> Sequence[Event[Any]]:
        if event.data.batch == 1 and calls == 1:
            raise TransientError("not yet")
        if event.data.batch == 2 and not mended:
            raise TerminalError("poison")
        return [attempted(event.data.run_id, event.data.batch)]

    async def tick() -> Sequence[Event[Any]]:
        return [task("job")]

    fetched, audited, opened = Seen(fetch), Seen(), Seen()
    special = {
        ("fetcher", "fetch-tasks"): fetched,
        ("auditor", "fetch-attempted"): audited,
        ("auditor", "run-candidates"): opened,
    }
    async with AsyncExitStack() as stack:
        for name in SERVICES:
            subscriptions = [Subscription(stream, special.get((name, stream), Seen())) for stream in consumed_by(name)]
            jobs = (Job("tick", 0.2, tick),) if name == "fetcher" else ()
            one = service(name, tmp_path, *subscriptions, jobs=jobs)
            await stack.enter_async_context(running(one, url=url(guarded, name), settings=EAGER))
        await client.publish(url(guarded, CLI), [run("r1")])
        async with Redis.from_url(url(guarded, "fetcher")) as redis:
            for batch in range(1, 4):
                await redis.xadd("fetch-tasks", {"data": task("r1", batch).to_json()})

            async def trimmed() -> bool:
                return len(await redis.xrange("fetch-tasks")) < 4

            assert {event.data.batch for event in await audited.until(3)} >= {1, 3}
            await opened.until(1)
            await until(trimmed)
        await until(lambda: _one_letter(guarded))
        mended = True
        assert len((await replay_all(url(guarded, CLI), by="ana")).put_back) == 1
        await audited.until(4)
        (letter,) = await letters(url(guarded, CLI))
        await drop(url(guarded, CLI), [letter.id], by="ana", reason="seen")
        async with Redis.from_url(url(guarded, "auditor")) as redis:
            watched = {(one.stream, one.group) for one in await RedisGroups(redis).states()}
        assert watched == {(stream.name, group) for stream in STREAMS.values() for group in stream.groups}
        assert await client.settle(url(guarded, CLI), timeout_s=60) == []
        checks = await examine_redis(url(guarded, CLI), expect_services=True)
        assert {check.name for check in checks if check.state == "ok"} >= {"clock", "backlog"}
        positions = {"run-candidates": "0-0", "command-results": await _newest(guarded, "command-results")}
        followed = [one.stream async for one in client.follow(url(guarded, CLI), positions, timeout_s=0.1)]
        assert followed == ["run-candidates"]
    async with Redis.from_url(url(guarded, CLI)) as redis:
        left = [await redis.xinfo_consumers(stream, name) for name in SERVICES for stream in consumed_by(name)]
    assert not any(left), "who leaves takes its consumers with it"


async def test_the_catalogs_lease_and_the_fetchers_pace_are_theirs(guarded: RedisServer) -> None:
    async with Redis.from_url(url(guarded, "catalog")) as redis:
        lease = RedisLease(lambda: "me")
        lease.connect(redis)
        async with lease.held(0) as epoch:
            assert epoch == 1
    async with Redis.from_url(url(guarded, "fetcher")) as redis:
        pace = RedisPace(
            {"venue": VenuePace(rate=100, burst=1, at_once=2)}, patience_s=2, random=Random(1), lease_s=0.1
        )
        pace.connect(redis)
        turn = await pace.acquire("venue")
        await asyncio.sleep(0.2)  # longer than its lease, so that it was renewed
        await pace.release(turn, None)
        await pace.close()
        budget = RedisBudget(1)
        budget.connect(redis)
        assert await budget.take("r1", 1)


async def _newest(server: RedisServer, stream: str) -> str:
    return (await client.newest(url(server, CLI), [stream]))[stream]


async def test_the_auditor_sees_every_group_and_the_memory_and_no_other_service_does(guarded: RedisServer) -> None:
    for name in SERVICES:
        async with Redis.from_url(url(guarded, name)) as redis:
            await redis.xgroup_create(consumed_by(name)[0], name, id="0", mkstream=True)
            if name != "auditor":
                with pytest.raises(TransientError, match="how far"):
                    await RedisGroups(redis).states()
    async with Redis.from_url(url(guarded, "auditor")) as redis:
        assert {state.group for state in await RedisGroups(redis).states()} == set(SERVICES)
        state = await RedisState(redis).state()
    assert state.undeclared == []
    assert state.used > 0


async def _one_letter(server: RedisServer) -> bool:
    return len(await letters(url(server, CLI))) == 1


@pytest.mark.parametrize("name", USERS)
async def test_what_a_user_does_not_need_is_refused(guarded: RedisServer, name: str) -> None:
    consumed, published = consumed_by(name), published_by(name)
    foreign = [stream for stream in STREAMS if stream not in {*consumed, *published}]
    refused: list[tuple[Any, ...]] = [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "appendonly", "no"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("ACL", "LIST"),
        ("SHUTDOWN",),
        ("SET", "anything", "1"),
        ("DEL", "asof:seen:nobody:fetch-tasks"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "anything"),
        *(("DEL", stream) for stream in STREAMS),
        *(("SET", stream, "1") for stream in STREAMS),
    ]
    if name != CLI:
        refused += [("XADD", stream, "*", "data", "1") for stream in foreign]
        refused += [("XRANGE", stream, "-", "+") for stream in foreign]
        refused += [("HSET", "asof:dead-letters:handled", "1-1", "{}")]
        # What a service consumes it cannot forge, and what it publishes it cannot take away from those who consume it.
        refused += [("XADD", stream, "*", "data", "1") for stream in consumed if stream not in published]
        refused += [("XTRIM", stream, "MAXLEN", "0") for stream in consumed if stream not in published]
        refused += [("XACK", stream, name, "1-1") for stream in published if stream not in consumed]
    else:
        refused += [("XTRIM", "alerts", "MAXLEN", "0"), ("XACK", "commands", "auditor", "1-1")]
        refused += [("HSET", "commands", "1-1", "{}")]
        refused += [("XGROUP", "CREATE", "commands", "another", "0"), ("EVAL", "return 1", "0")]
    if name != "catalog":
        refused += [("SET", "asof:catalog:lease", "1")]
    async with Redis.from_url(url(guarded, name)) as redis:
        for command in refused:
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*command)


async def test_without_a_user_nothing_is_answered(guarded: RedisServer) -> None:
    async with Redis.from_url(guarded.url()) as redis:
        with pytest.raises(RedisError, match="authenticated"):
            await redis.ping()


async def test_a_user_does_not_get_in_with_the_password_of_another(guarded: RedisServer) -> None:
    async with Redis.from_url(url(guarded, "auditor").replace(password("auditor"), password("fetcher"))) as redis:
        with pytest.raises(RedisError, match="invalid username-password"):
            await redis.ping()


def test_a_server_without_the_password_of_a_user_is_not_started(passwords: Path) -> None:
    (passwords / "redis_catalog").write_text("\n")
    with pytest.raises(SystemExit, match="redis_catalog is empty"):
        entry_of_image().access_list(access_file(), passwords)
    (passwords / "redis_catalog").unlink()
    with pytest.raises(SystemExit, match="make secrets"):
        entry_of_image().access_list(access_file(), passwords)
