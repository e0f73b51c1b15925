"""The stack of docker-compose.yml, brought up for real: publish a run, see the verdict, scale, take it down."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.access import CLI
from shared.streams import SERVICES
from tests.compose import base_image

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "asof-test"

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(2100),
    pytest.mark.skipif(not base_image.engine_answers(), reason="no Docker engine answers"),
]


class Stack:
    def __init__(self, compose: list[str], environment: dict[str, str]) -> None:
        self.compose = [*compose, "--project-name", PROJECT, "--project-directory", str(ROOT), "--profile", "replay"]
        self.environment = environment

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 900) -> str:
        ended = subprocess.run(
            [*self.compose, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or ended.returncode == 0, f"{arguments}: {ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout

    def asof(self, *arguments: str, files: Path | None = None, check: bool = True) -> str:
        """A command as the command line's own user; `files` becomes its working folder."""
        mounted = () if files is None else ("--volume", f"{files}:/files:ro")
        return self("run", "--rm", "-T", *mounted, CLI, *arguments, check=check)

    def states(self) -> dict[str, list[str]]:
        """Health of every container, by service."""
        found: dict[str, list[str]] = {}
        for container in self("ps", "-q").split():
            state = _inspect("container", container)
            name = state["Config"]["Labels"]["com.docker.compose.service"]
            found.setdefault(name, []).append(state["State"].get("Health", {}).get("Status", state["State"]["Status"]))
        return found

    def networks(self, service: str) -> list[str]:
        return list(_inspect("container", self("ps", "-q", service).split()[0])["NetworkSettings"]["Networks"])

    def wait_healthy(self, *services: str, timeout_s: float = 120) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            states = self.states()
            if all(set(states.get(service, ["absent"])) == {"healthy"} for service in services):
                return
            time.sleep(1)
        logs = self("logs", "--tail", "40", check=False)
        pytest.fail(f"not healthy after {timeout_s:.0f} s: {self.states()}\n{logs[-6000:]}")


def _inspect(kind: str, name: str) -> dict[str, Any]:
    shown = subprocess.run(["docker", kind, "inspect", name], capture_output=True, text=True, check=True)
    return json.loads(shown.stdout)[0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    compose = base_image.compose_command()
    if compose is None:
        pytest.skip("no Compose is installed")
    if reason := base_image.why_no_base():
        pytest.skip(reason)
    base = base_image.make_base(tmp_path_factory.mktemp("base"))
    environment = os.environ | {
        "ASOF_BASE_IMAGE": base,
        "DOCKER_BUILDKIT": "0",
        "COMPOSE_DOCKER_CLI_BUILD": "0",
        "ASOF_FETCHER_SCANNER_URL": "http://upstream:8090/scanner",
        "ASOF_FETCHER_WS_URL": "ws://upstream:8090/scanner/ws",
    }
    subprocess.run(["make", "wheels", "secrets"], cwd=ROOT, check=True, capture_output=True)
    stack = Stack(compose, environment)
    try:
        stack("--profile", "cli", "build", timeout_s=1800)
        stack("up", "-d")
        yield stack
    finally:
        stack("down", "--volumes", "--remove-orphans", "--timeout", "45", check=False)


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    """A folder with candidates.json that the containers' user may read."""
    folder = tmp_path / "files"
    folder.mkdir(mode=0o755)
    (folder / "candidates.json").write_text('["PSE:JFC", "PSE:BDO"]')
    return folder


def test_the_stack_comes_up_healthy_runs_a_run_to_its_verdict_and_scales(stack: Stack, candidates: Path):
    stack.wait_healthy("redis", *SERVICES)
    assert run(stack, candidates, "first")["decision"] == "granted"
    doctor = json.loads(stack.asof("doctor", "--json", check=False))
    found = {check["name"]: check["state"] for check in doctor["checks"]}
    assert {found[name] for name in ("redis", "append-only", "memory", "clock", "backlog", *SERVICES)} == {"ok"}
    assert json.loads(stack.asof("dead-letters", "--json")) == []

    stack("up", "-d", "--scale", "features=3", "--scale", "fetcher=2")
    stack.wait_healthy("fetcher", "features")
    assert {name: len(stack.states()[name]) for name in ("features", "fetcher")} == {"features": 3, "fetcher": 2}
    assert run(stack, candidates, "second")["decision"] == "granted"


def run(stack: Stack, candidates: Path, run_id: str) -> dict[str, Any]:
    options = ("--run-id", run_id, "--as-of", "2021-12-15T18:00:00Z", "--json")
    shown = stack.asof("run", "candidates.json", *options, files=candidates, check=False)
    if not shown.startswith("{"):
        logs = stack("logs", "--tail", "40", check=False)
        pytest.fail(f"no verdict on {run_id}; run said {shown[-500:]}\n{logs[-6000:]}")
    assert json.loads(stack.asof("show", run_id, "--json"))["decision"] == json.loads(shown)["decision"]
    return json.loads(shown)


# What a service says to the server as itself, as nobody, and as another service with its own password.
ATTEMPTS = """
import json, redis
from asof.settings import HouseSettings

def answer(url, *command):
    try:
        return str(redis.Redis.from_url(url, decode_responses=True).execute_command(*command))
    except redis.exceptions.NoPermissionError:
        return "no permission"
    except redis.exceptions.RedisError as fault:
        return str(fault)

own = HouseSettings().redis().get_secret_value()
scheme, _, place = own.rpartition("@")
user, password = scheme.removeprefix("redis://").split(":")
other = "catalog" if user == "fetcher" else "fetcher"
FOREIGN = "alerts" if user == "fetcher" else "universe-snapshot"
commands = [
    ["FLUSHALL"], ["CONFIG", "GET", "*"], ["KEYS", "*"], ["SHUTDOWN"], ["ACL", "LIST"], ["GET", "anything"],
    ["DEL", "commands"], ["XTRIM", "commands", "MAXLEN", "0"] if user == "cli" else ["XADD", FOREIGN, "*", "data", "1"],
]
print(json.dumps({
    "client": answer(own, "CLIENT", "INFO"),
    "refused": {" ".join(command): answer(own, *command) for command in commands},
    "nobody": answer(f"redis://{place}", "PING"),
    "default": answer(f"redis://default:{password}@{place}", "PING"),
    "other": answer(f"redis://{other}:{password}@{place}", "PING"),
}))
"""


@pytest.mark.parametrize("user", [*SERVICES, CLI])
def test_each_user_is_let_in_as_itself_and_refused_what_is_not_its_work(stack: Stack, user: str):
    stack.wait_healthy("redis", *SERVICES)
    inside = ("run", "--rm", "-T", "--entrypoint", "python", CLI) if user == CLI else ("exec", "-T", user, "python")
    said = json.loads(stack(*inside, "-c", ATTEMPTS))
    assert f" user={user} " in said["client"]
    assert set(said["refused"].values()) == {"no permission"}, said["refused"]
    assert "already authenticated" in said["nobody"]
    for name in ("default", "other"):
        assert "invalid username-password pair or user is disabled" in said[name], name
    mounted = stack(*inside, "-c", "import os; print(os.listdir('/run/secrets'))")
    assert mounted.strip() == "['redis_password']"


def test_only_the_fetcher_has_a_way_out_and_nobody_is_root(stack: Stack):
    for service in ("redis", *SERVICES):
        assert stack("exec", "-T", service, "id", "-u").strip() == "10001"
        attached = {name.removeprefix(f"{PROJECT}_") for name in stack.networks(service)}
        assert attached == ({"inside", "outside"} if service == "fetcher" else {"inside"})
    inside, outside = (_inspect("network", f"{PROJECT}_{name}") for name in ("inside", "outside"))
    assert (inside["Internal"], outside["Internal"]) == (True, False)
