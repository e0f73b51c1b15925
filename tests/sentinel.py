"""A real master, a real replica and a real Sentinel that watches them, on free ports of this machine."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis import Redis, RedisError

from tests.redis_server import RedisServer, chosen_server, running_server

SERVICE = "asof-test"
DOWN_MS = 500
_CONFIG = """
port {port}
dir {folder}
sentinel monitor {service} 127.0.0.1 {master} 1
sentinel down-after-milliseconds {service} {down_ms}
sentinel failover-timeout {service} 4000
"""


@dataclass(frozen=True)
class WatchedPair:
    servers: tuple[RedisServer, RedisServer]
    ports: tuple[int, int]
    sentinel: int

    def url(self, database: int = 0) -> str:
        # The first sentinel does not exist: a client has to ask the next one.
        return f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.sentinel}/{SERVICE}?db={database}"

    def address(self) -> tuple[str, int]:
        """Who the sentinel says is the master."""
        with Redis(port=self.sentinel) as sentinel:
            return sentinel.sentinel_get_master_addr_by_name(SERVICE)

    def fail_over(self) -> None:
        """A planned one: the master lives on, as the other's replica."""
        with Redis(port=self.sentinel) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", SERVICE)


@contextmanager
def watched_pair(folder: Path) -> Iterator[WatchedPair]:
    ports = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        at_once = ("--repl-diskless-sync-delay", "0")
        master = running_server(folder / "a", "--port", str(ports[0]), *at_once)
        replica = running_server(
            folder / "b", "--port", str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0]), *at_once
        )
        servers = stack.enter_context(master), stack.enter_context(replica)
        config = folder / "sentinel.conf"
        config.write_text(
            _CONFIG.format(port=ports[2], folder=folder, service=SERVICE, master=ports[0], down_ms=DOWN_MS)
        )
        log = stack.enter_context((folder / "sentinel.log").open("wb"))
        sentinel = subprocess.Popen([str(chosen_server().path), str(config), "--sentinel"], stdout=log, stderr=log)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.terminate)
        _await_watch(ports[2], ports[0])
        yield WatchedPair(servers, (ports[0], ports[1]), ports[2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_watch(sentinel_port: int, master_port: int) -> None:
    """Until the sentinel knows the replica, and the replica has everything: only then can it be promoted."""
    deadline = time.monotonic() + 20
    with Redis(port=sentinel_port) as sentinel, Redis(port=master_port) as master:
        while time.monotonic() < deadline:
            with suppress(RedisError):
                knows = [row["flags"] for row in sentinel.sentinel_slaves(SERVICE)] == ["slave"]
                if knows and master.wait(1, 100) == 1:
                    return
            time.sleep(0.02)
    raise AssertionError("the sentinel does not see the replica")
