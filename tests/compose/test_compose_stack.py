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

from tests.compose import base_image

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "asof-test"

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(1500),
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

    def asof(self, service: str, *arguments: str, check: bool = True) -> str:
        return self("exec", "-T", service, "python", "-m", "asof", *arguments, check=check)

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
        stack("build", timeout_s=1200)
        stack("up", "-d")
        yield stack
    finally:
        stack("down", "--volumes", "--remove-orphans", "--timeout", "45", check=False)


def test_the_stack_comes_up_healthy_runs_a_run_to_its_verdict_and_scales(stack: Stack):
    stack.wait_healthy("redis", "fetcher", "catalog", "features", "auditor")
    publish = (
        "import asyncio, os\n"
        "from asof.settings import HouseSettings\n"
        "import redis\n"
        "url = HouseSettings().redis().get_secret_value()\n"
        'data = \'{"candidates":["PSE:JFC","PSE:BDO"],"run_id":"%s","as_of":"2021-12-15T18:00:00Z"}\'\n'
        "print(redis.Redis.from_url(url).xadd('run-candidates', {'data': data}))\n"
    )
    stack("exec", "-T", "auditor", "python", "-c", publish % "first")
    assert wait_for_verdict(stack, "first")["decision"] == "granted"

    stack("up", "-d", "--scale", "features=3", "--scale", "fetcher=2")
    stack.wait_healthy("fetcher", "features")
    assert {name: len(stack.states()[name]) for name in ("features", "fetcher")} == {"features": 3, "fetcher": 2}
    stack("exec", "-T", "auditor", "python", "-c", publish % "second")
    assert wait_for_verdict(stack, "second")["decision"] == "granted"


def wait_for_verdict(stack: Stack, run_id: str, *, timeout_s: float = 90) -> dict[str, object]:
    until = time.monotonic() + timeout_s
    shown = ""
    while time.monotonic() < until:
        shown = stack.asof("auditor", "show", run_id, "--json", check=False)
        if shown.startswith("{") and json.loads(shown).get("decision"):
            return json.loads(shown)
        time.sleep(1)
    logs = stack("logs", "--tail", "40", check=False)
    pytest.fail(f"no verdict on {run_id} after {timeout_s:.0f} s; show said {shown[-500:]}\n{logs[-6000:]}")


def test_only_the_fetcher_has_a_way_out_and_nobody_is_root(stack: Stack):
    for service in ("redis", "fetcher", "catalog", "features", "auditor"):
        assert stack("exec", "-T", service, "id", "-u").strip() == "10001"
        attached = {name.removeprefix(f"{PROJECT}_") for name in stack.networks(service)}
        assert attached == ({"inside", "outside"} if service == "fetcher" else {"inside"})
    inside, outside = (_inspect("network", f"{PROJECT}_{name}") for name in ("inside", "outside"))
    assert (inside["Internal"], outside["Internal"]) == (True, False)
