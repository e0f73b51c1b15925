"""The names the bus keeps in Redis, and the names of its consumers.

A consumer is called `<host>.<kernel>-<pid>-<uuid>.<n>`: unique for every start of every process, and on the machine it
ran on anyone can see that it is dead. `<kernel>` stands for the boot and the process namespace: two containers may
share a host name, but a process id means the same process only within one namespace of one boot.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from uuid import UUID

_CONSUMER = re.compile(r"^(?P<where>.+)-(?P<pid>[0-9]+)-[0-9a-f]{32}\.[0-9]+$")


def consumer_name(unique: UUID) -> str:
    return f"{_where()}-{os.getpid()}-{unique.hex}"


def died_here(consumer: str) -> bool:
    """True when the process of this consumer ran on this machine and is gone; False when alive or elsewhere."""
    found = _CONSUMER.match(consumer)
    if found is None or found["where"] != _where():
        return False
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def seen_key(group: str, stream: str) -> str:
    """A sorted set of the ids that `group` has applied, by the time it did."""
    return f"asof:seen:{group}:{stream}"


def failures_key(group: str, stream: str) -> str:
    """A hash of how often the handler of `group` has failed at an entry that is still pending.

    The server's delivery count also counts the deliveries that a killed process never came to.
    """
    return f"asof:failures:{group}:{stream}"


def _where() -> str:
    return f"{socket.gethostname()}.{_kernel()}"


def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        # Without /proc nothing tells namespaces apart: no other process is ever taken for dead.
        boot, namespace = os.urandom(16).hex(), ""
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:8]
