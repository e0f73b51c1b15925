"""What docker-compose.yml promises, checked by reading it: no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from asof.settings import HouseSettings
from shared.bus.access import CLI, USERS, access_file
from shared.streams import SERVICES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ALL = COMPOSE["services"]
every_container = pytest.mark.parametrize("name", list(ALL))
every_service = pytest.mark.parametrize("name", SERVICES)
every_user = pytest.mark.parametrize("name", USERS)


def test_it_holds_redis_the_four_services_the_command_line_and_the_replay_upstream():
    assert set(ALL) == {"redis", *SERVICES, CLI, "upstream"}
    assert {name: service["profiles"] for name, service in ALL.items() if "profiles" in service} == {
        CLI: ["cli"],
        "upstream": ["replay"],
    }


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
        assert not re.search("://[^/@]*:[^/@]*@", str(value)), value


@every_user
def test_each_user_of_redis_has_a_name_and_a_password_of_its_own(name: str, tmp_path: Path):
    service = ALL[name]
    assert service["secrets"] == [{"source": f"redis_{name}", "target": "redis_password"}]
    environment = service["environment"]
    assert environment["ASOF_REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
    (tmp_path / "password").write_text("of/this user\n")
    settings = HouseSettings(
        redis_url=environment["ASOF_REDIS_URL"], redis_password_file=tmp_path / "password", home=tmp_path
    )
    assert settings.redis().get_secret_value() == f"redis://{name}:of%2Fthis%20user@redis:6379/0"


def test_a_secret_is_mounted_by_its_user_and_by_redis_only():
    assert COMPOSE["secrets"] == {f"redis_{user}": {"file": f"./secrets/redis_{user}"} for user in USERS}
    assert ALL["redis"]["secrets"] == [f"redis_{user}" for user in USERS]
    assert {name for name, service in ALL.items() if service.get("secrets")} == {"redis", *USERS}
    assert not any("secrets" in str(service.get("volumes", "")) for service in ALL.values())
    made = re.search(r"^REDIS_USERS := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert tuple(made[1].split()) == USERS


def test_redis_lets_nobody_in_but_these_users_by_the_rules_made_from_the_streams():
    first, *others = access_file().splitlines()
    assert first == "user default off"
    assert [line.split()[1] for line in others] == list(USERS)
    assert not any("nopass" in line or "+@all" in line or "~* " in line for line in others)
    image = (ROOT / "Dockerfile").read_text()
    assert "RUN python -m shared.bus.access > /app/users.acl\n" in image
    assert "COPY --from=access /app/users.acl /app/users.acl\n" in image


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
