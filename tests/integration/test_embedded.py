"""The embedded server is real, private, shared by the processes of one house, and gone with the last of them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from asof.embedded import embedded_redis, find_server, find_servers
from shared.errors import NotFoundError
from shared.paths import Home

ROOT = Path(__file__).parents[2]
USER = """
import asyncio, sys
from asof.embedded import embedded_redis
from shared.paths import Home

async def main():
    async with embedded_redis(Home.at(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def user(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses the server of `home`; it is up when the block begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def servers(home: Path) -> list[psutil.Process]:
    """Every process that this house started: servers and their keepers."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and any(str(home / "state" / "redis") in word for word in process.info["cmdline"] or ())
    ]


def gone(home: Path, timeout_s: float = 5) -> bool:
    deadline = time.monotonic() + timeout_s
    while servers(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not servers(home)


async def test_it_is_private_durable_and_refuses_to_evict(tmp_path: Path) -> None:
    async with embedded_redis(Home.at(tmp_path)) as url:
        with Redis.from_url(url) as redis:
            assert redis.ping()
            config = redis.config_get("append*", "maxmemory-policy", "port")
            assert config["appendonly"] == "yes"
            assert config["maxmemory-policy"] == "noeviction"
            assert config["port"] == "0"
        assert stat.S_IMODE((tmp_path / "state" / "redis").stat().st_mode) == 0o700
    assert gone(tmp_path)


async def test_what_it_held_is_there_at_the_next_start(tmp_path: Path) -> None:
    async with embedded_redis(Home.at(tmp_path)) as url:
        with Redis.from_url(url) as redis:
            redis.xadd("run-candidates", {"data": "1"})
    async with embedded_redis(Home.at(tmp_path)) as url:
        with Redis.from_url(url) as redis:
            assert redis.xlen("run-candidates") == 1


@pytest.mark.skipif(len(find_servers()) < 2, reason="needs two kinds of server: install redis-server beside the wheel")
async def test_a_house_stays_with_the_server_that_wrote_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as alone:
        alone.setenv("PATH", "")
        async with embedded_redis(Home.at(tmp_path)) as url, AsyncRedis.from_url(url) as redis:
            await redis.xadd("run-candidates", {"data": "1"})
            await redis.bgrewriteaof()
    assert find_server() == find_servers()[0] != find_servers()[-1], "a new house would take another one"
    async with embedded_redis(Home.at(tmp_path)) as url, AsyncRedis.from_url(url) as redis:
        assert await redis.xlen("run-candidates") == 1


async def test_a_second_process_joins_and_the_last_one_stops_it(tmp_path: Path) -> None:
    with user(tmp_path) as (other, url):
        async with embedded_redis(Home.at(tmp_path)) as ours:
            assert ours == url
            other.send_signal(signal.SIGTERM)
            assert other.wait(10) == 143
            with Redis.from_url(url) as redis:
                assert redis.ping(), "its starter is gone, its other user is not"
    assert gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_its_only_user_stops_it(tmp_path: Path, number: signal.Signals) -> None:
    with user(tmp_path) as (other, _):
        other.send_signal(number)
        other.wait(10)
        assert gone(tmp_path)


def test_kill_9_of_its_only_user_stops_it_too(tmp_path: Path) -> None:
    with user(tmp_path) as (other, _):
        assert len(servers(tmp_path)) == 2
        other.kill()
        other.wait()
        assert gone(tmp_path)


async def test_the_leftovers_of_a_crash_are_no_obstacle(tmp_path: Path) -> None:
    with user(tmp_path) as (other, url):
        for process in servers(tmp_path):
            process.kill()
        other.kill()
        other.wait()
        assert Path(url.removeprefix("unix://")).exists()
        async with embedded_redis(Home.at(tmp_path)) as ours:
            with Redis.from_url(ours) as redis:
                assert redis.ping()
    assert gone(tmp_path)


async def test_a_deep_home_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("deeper" * 15)
    async with embedded_redis(Home.at(home)) as url:
        socket = Path(url.removeprefix("unix://"))
        assert len(os.fsencode(socket)) <= 100
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        with Redis.from_url(url) as redis:
            assert redis.ping()
    assert not socket.exists()
    socket.parent.rmdir()


async def test_many_processes_at_once_share_one_server(tmp_path: Path) -> None:
    async def use() -> int:
        async with embedded_redis(Home.at(tmp_path)) as url:
            with Redis.from_url(url) as redis:
                pid = redis.info("server")["process_id"]
            await asyncio.sleep(0.1)
            return pid

    assert len(set(await asyncio.gather(*(use() for _ in range(5))))) == 1
    assert gone(tmp_path)


def test_a_machine_without_a_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("asof.embedded.binary._bundled", lambda: None)
    with pytest.raises(NotFoundError, match="make setup"):
        find_server()
