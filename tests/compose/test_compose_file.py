"""What docker-compose.yml promises, checked by reading it: no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from shared.streams import SERVICES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ALL = COMPOSE["services"]
every_container = pytest.mark.parametrize("name", list(ALL))
every_service = pytest.mark.parametrize("name", SERVICES)


def test_it_holds_redis_the_four_services_and_the_replay_upstream():
    assert set(ALL) == {"redis", *SERVICES, "upstream"}
    assert ALL["upstream"]["profiles"] == ["replay"]


@every_container
def test_no_container_can_do_more_than_it_has_to(name: str):
    service = ALL[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service["user"].startswith(("0", "root"))
    assert service["pids_limit"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


@every_container
def test_nothing_is_published_and_every_service_can_be_scaled(name: str):
    assert "ports" not in ALL[name]
    assert "container_name" not in ALL[name]


@every_container
def test_only_the_fetcher_has_a_way_out(name: str):
    assert ("outside" in ALL[name]["networks"]) == (name == "fetcher")
    assert COMPOSE["networks"]["inside"]["internal"] is True


@every_service
def test_a_service_waits_for_redis_and_says_when_it_is_ready(name: str):
    service = ALL[name]
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert "/ready" in str(service["healthcheck"]["test"])
    assert int(service["stop_grace_period"].rstrip("s")) >= 30


@every_container
def test_no_secret_stands_in_the_environment(name: str):
    for variable, value in ALL[name].get("environment", {}).items():
        assert variable.endswith("_FILE") or not re.search("PASSWORD|SECRET|TOKEN|KEY", variable), variable
        assert "@" not in str(value), value


@every_container
def test_each_container_is_built_from_its_own_target_and_a_base_that_can_be_replaced(name: str):
    build = ALL[name]["build"]
    assert build["target"] == name
    assert build["args"]["BASE_IMAGE"].startswith("${ASOF_BASE_IMAGE:-")
    assert re.search(rf"^FROM \S+ AS {name}$", (ROOT / "Dockerfile").read_text(), re.M)


def test_the_image_build_pulls_no_frontend_and_asks_no_index():
    text = (ROOT / "Dockerfile").read_text()
    assert "# syntax" not in text
    for line in re.findall(r"^.*pip install.*$", text, re.M):
        assert "--no-index" in line
        assert "--require-hashes" in line


@every_service
def test_an_image_holds_the_code_and_the_lock_of_its_own_service_only(name: str):
    text = (ROOT / "Dockerfile").read_text()
    stage = re.search(rf"^FROM service AS {name}\n(.*?)(?=^FROM|\Z)", text, re.M | re.S)
    assert re.findall(r"services/(\w+) ", stage[1]) == [name]
    venv = re.search(rf"^FROM wheels AS {name}-venv\n(.*?)(?=^FROM)", text, re.M | re.S)
    assert re.findall(r"-r (\S+)", venv[1]) == [f"/locks/{name}.txt"]


def test_redis_keeps_what_it_acknowledged_and_refuses_rather_than_forgets():
    entry = (ROOT / "docker" / "redis.py").read_text()
    assert '"--appendonly", "yes"' in entry
    assert '"noeviction"' in entry
