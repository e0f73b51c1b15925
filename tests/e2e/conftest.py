"""A whole house of real processes: an embedded Redis, the replay upstream, services to kill one by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.paths import Home
from shared.streams import SERVICES

ROOT = Path(__file__).resolve().parents[2]
AS_OF = "2021-12-15T08:00:00Z"


class House:
    """`asof` processes around one home. Everything started here is stopped by its own process id."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.home = Home.at(folder / "data")
        self.home.root.mkdir(parents=True)
        # Parsed once for the whole test session: what is tested is not the parsing of the recording.
        self.home.cache.symlink_to(cache)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASOF_")},
            "ASOF_HOME": str(self.home.root),
            "ASOF_BUS_MIN_IDLE_S": "2",
            "ASOF_BUS_RECLAIM_EVERY_S": "0.5",
            "ASOF_CATALOG_LEASE_S": "2",
        }
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.url = ""

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        log = (self.home.root.parent / f"{name}.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "asof", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE if name == "upstream" else log,
            stderr=log,
            text=True,
        )
        self.processes[name] = process
        return process

    def replay(self, now: str = AS_OF) -> None:
        """Start the replay upstream and point the fetcher at it."""
        process = self.start("upstream", "upstream", "--port", "0", "--now", now, "--json")
        said = json.loads(process.stdout.readline())
        self.environment["ASOF_FETCHER_SCANNER_URL"] = said["endpoints"]["scanner_url"]
        self.environment["ASOF_FETCHER_WS_URL"] = said["endpoints"]["scanner_ws_url"]

    def server(self, *options: str) -> None:
        """A Redis of its own process, so that any service can die alone."""
        from asof.embedded import find_server

        socket = self.home.root.parent / "redis.sock"
        folder = self.home.root.parent / "redis"
        folder.mkdir()
        command = [str(find_server().path), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
        self.processes["redis"] = subprocess.Popen(
            [*command, "--appendonly", "yes", "--save", "", *options], stdout=subprocess.DEVNULL, text=True
        )
        self.url = f"unix://{socket}"
        self.environment["ASOF_REDIS_URL"] = self.url
        self.wait(lambda: socket.exists() and self.redis().ping(), "redis")

    def service(self, name: str) -> subprocess.Popen[str]:
        return self.start(name, "up", name)

    def services(self, *names: str) -> None:
        for name in names or SERVICES:
            self.service(name)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """As SIGTERM does: what is in flight is finished, what is kept in memory is written."""
        _stop([self.processes.pop(name)])

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def publish(self, **fields: Any) -> str:
        """A bare payload, as a person with redis-cli would send it; gives the entry id."""
        return self.redis().xadd("run-candidates", {"data": json.dumps(fields)}).decode()

    def asof(self, *arguments: str, code: int | None = 0) -> Any:
        out = self.text(*arguments, "--json", code=code)
        return json.loads(out) if out.strip() else {}

    def text(self, *arguments: str, code: int | None = 0) -> str:
        """What the command prints for a person."""
        ended = subprocess.run(
            [sys.executable, "-m", "asof", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert code is None or ended.returncode == code, (
            f"exit {ended.returncode}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
        )
        return ended.stdout

    def make(self, *arguments: str) -> None:
        # What set-up would do is done: a test must not make the .venv it runs in anew.
        ended = subprocess.run(
            ["make", "--no-print-directory", "--old-file=setup-run", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout[-2000:]}{ended.stderr[-4000:]}"

    def verdict(self, run_id: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """Wait for the run's verdict, and return what `asof show` would say."""
        from asof.lakehouse import Lakehouse
        from asof.verdict import read_verdict

        def decided() -> Any:
            lake = Lakehouse(self.home.root)
            if not self.home.run(run_id).manifest.exists():
                return None
            verdict = read_verdict(lake.run(run_id))
            return verdict if verdict.decision else None

        return self.wait(decided, f"a verdict on {run_id}", timeout_s=timeout_s).as_dict()

    def wait(self, condition: Callable[[], Any], what: str, *, timeout_s: float = 30) -> Any:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                found = condition()
            except redis.exceptions.ConnectionError:
                found = None
            if found:
                return found
            time.sleep(0.05)
        logs = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.home.root.parent.glob("*.log"))
        pytest.fail(f"waited {timeout_s:.0f} s in vain for {what}\n{logs}")

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(fields[b"data"])["data"] for _, fields in self.redis().xrange("dead-letters")]

    def close(self) -> None:
        # Redis last: a service that stops finishes what is in flight, which it cannot without its server.
        server = self.processes.pop("redis", None)
        _stop(list(self.processes.values()))
        _stop([server] if server else [])


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def play_demo(home: Path) -> dict[str, Any]:
    """`asof demo --json` in a house of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")}
    ended = subprocess.run(
        [sys.executable, "-m", "asof", "demo", "--json"],
        cwd=ROOT,
        env=environment | {"ASOF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout)


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The house that the demo leaves, and what the demo said. Read it, or copy it before changing anything."""
    home = tmp_path_factory.mktemp("demo") / "data"
    return home, play_demo(home)


@pytest.fixture(scope="session")
def recording_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def house(tmp_path: Path, recording_cache: Path) -> Iterator[House]:
    """A house with Redis and the replay upstream; the test starts the services it needs."""
    house = House(tmp_path, recording_cache)
    try:
        house.server()
        house.replay()
        yield house
    finally:
        house.close()
