"""A real master, a real replica and a real Sentinel that watches them, on free ports of this machine."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from asof.embedded import ServerBinary
from tests.redis_server import RedisServer, chosen_server, running_server

SERVICE = "asof-test"
DOWN_MS = 500
_CONFIG = """
dir {folder}
sentinel monitor {service} 127.0.0.1 {master} 1
sentinel down-after-milliseconds {service} {down_ms}
sentinel failover-timeout {service} 4000
"""


@dataclass(frozen=True)
class Tls:
    """A server that knows TLS, and the files of one certificate for 127.0.0.1 and of the authority that signed it."""

    binary: ServerBinary
    cert: Path
    key: Path
    ca: Path

    @property
    def options(self) -> dict[str, str]:
        """For the server: it takes TLS alone, from its replicas and sentinels too."""
        files = {"tls-cert-file": self.cert, "tls-key-file": self.key, "tls-ca-cert-file": self.ca}
        return {name: str(path) for name, path in files.items()} | {"tls-auth-clients": "no", "tls-replication": "yes"}


@dataclass(frozen=True)
class WatchedPair:
    servers: tuple[RedisServer, RedisServer]
    ports: tuple[int, int]
    sentinel: int
    tls: Tls | None = None

    def url(self, database: int = 0) -> str:
        # The first sentinel does not exist: a client has to ask the next one.
        nodes = f"127.0.0.1:1,127.0.0.1:{self.sentinel}/{SERVICE}?db={database}"
        if self.tls is None:
            return f"redis+sentinel://{nodes}"
        return f"rediss+sentinel://{nodes}&ssl_ca_certs={self.tls.ca}"

    def address(self) -> tuple[str, int]:
        """Who the sentinel says is the master."""
        with _client(self.sentinel, self.tls) as sentinel:
            return sentinel.sentinel_get_master_addr_by_name(SERVICE)

    def fail_over(self) -> None:
        """A planned one: the master lives on, as the other's replica."""
        with _client(self.sentinel, self.tls) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", SERVICE)


@contextmanager
def watched_pair(folder: Path, tls: Tls | None = None) -> Iterator[WatchedPair]:
    ports = free_port(), free_port(), free_port()
    port, more = ("port", {}) if tls is None else ("tls-port", tls.options)
    binary = chosen_server() if tls is None else tls.binary
    options = [part for name, value in more.items() for part in (f"--{name}", value)]
    options += ["--repl-diskless-sync-delay", "0"]
    with ExitStack() as stack:
        master = running_server(folder / "a", f"--{port}", str(ports[0]), *options, binary=binary)
        of_master = ("--replicaof", "127.0.0.1", str(ports[0]))
        replica = running_server(folder / "b", f"--{port}", str(ports[1]), *of_master, *options, binary=binary)
        servers = stack.enter_context(master), stack.enter_context(replica)
        config = folder / "sentinel.conf"
        own = {"port": "0", port: str(ports[2]), **more}
        config.write_text(
            "\n".join(f"{name} {value}" for name, value in own.items())
            + _CONFIG.format(folder=folder, service=SERVICE, master=ports[0], down_ms=DOWN_MS)
        )
        log = stack.enter_context((folder / "sentinel.log").open("wb"))
        sentinel = subprocess.Popen([str(binary.path), str(config), "--sentinel"], stdout=log, stderr=log)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.terminate)
        pair = WatchedPair(servers, (ports[0], ports[1]), ports[2], tls)
        _await_watch(pair)
        yield pair


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _client(port: int, tls: Tls | None) -> Redis:
    options: dict[str, Any] = {} if tls is None else {"ssl": True, "ssl_ca_certs": str(tls.ca)}
    return Redis(host="127.0.0.1", port=port, **options)


def _await_watch(pair: WatchedPair) -> None:
    """Until the sentinel knows the replica, and the replica has everything: only then can it be promoted."""
    deadline = time.monotonic() + 20
    with _client(pair.sentinel, pair.tls) as sentinel, _client(pair.ports[0], pair.tls) as master:
        while time.monotonic() < deadline:
            with suppress(RedisError):
                knows = [row["flags"] for row in sentinel.sentinel_slaves(SERVICE)] == ["slave"]
                if knows and master.wait(1, 100) == 1:
                    return
            time.sleep(0.02)
    raise AssertionError("the sentinel does not see the replica")
