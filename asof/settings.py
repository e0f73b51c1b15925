"""The settings of the house: where its files are and which Redis carries its events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from pydantic import AliasChoices, Field, SecretStr, UrlConstraints, ValidationError
from pydantic_core import MultiHostUrl
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from shared.errors import ContractError
from shared.paths import Home

Settings = TypeVar("Settings", bound=BaseSettings)
# What each form means stands in shared/bus/address.py. Sentinel URLs name several hosts.
_SCHEMES = ["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"]
RedisUrl = Annotated[MultiHostUrl, UrlConstraints(allowed_schemes=_SCHEMES)]


class HouseSettings(BaseSettings):
    """Read from `ASOF_…`; an empty variable is an absent one."""

    model_config = SettingsConfigDict(env_prefix="ASOF_", env_ignore_empty=True, frozen=True)

    home: Path = Field(Path("data"), description="the folder of the lakehouse, the runs and the ledger")
    redis_url: RedisUrl | None = Field(
        None,
        description="the Redis of the house: redis(s)://, redis(s)+sentinel:// or unix://; one is started when absent",
    )
    redis_password_file: Path | None = Field(None, description="a file that holds the password of ASOF_REDIS_URL")
    redis_ca_file: Path | None = Field(None, description="the certificates that a TLS Redis is trusted by")
    default_exchange: str | None = Field(None, pattern=r"^[A-Z0-9_]{1,24}$", description="of a bare ticker")
    port: int | None = Field(None, ge=1, le=65_535, description="where a service answers /live, /ready and /metrics")
    log: str = Field("text", pattern=r"^(text|json)$", description="how a service logs: text or json")

    def paths(self) -> Home:
        return Home.at(self.home)

    def redis(self) -> SecretStr | None:
        """The URL with its password, or None when an embedded server has to be started."""
        if self.redis_url is None:
            return None
        url = str(self.redis_url)
        if self.redis_ca_file is not None:
            url = _with_authority(url, self.redis_ca_file)
        if self.redis_password_file is None:
            return SecretStr(url)
        try:
            password = self.redis_password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise ContractError(
                "ASOF_REDIS_PASSWORD_FILE cannot be read", cause=str(fault), fix="check the path and its mode"
            ) from fault
        return SecretStr(_with_password(url, password))


def house_settings() -> HouseSettings:
    """The settings of this process. Raises ContractError naming each variable that is not allowed, and why."""
    return read_settings(HouseSettings)


def read_settings(settings_class: type[Settings], **given: Any) -> Settings:
    """Any settings of asof from the environment and `given`. Raises ContractError naming the variables that are wrong.

    The values themselves are not repeated: one of them may be a secret.
    """
    try:
        return settings_class(**given)
    except ValidationError as fault:
        wrong = [
            f"{_variable_at(settings_class, error['loc'])}: {error['msg']}"
            for error in fault.errors(include_input=False, include_url=False)
        ]
        raise ContractError(
            "a setting is not allowed", cause="; ".join(wrong), fix="correct the variable, then asof config"
        ) from fault
    except SettingsError as fault:
        raise ContractError(
            "a setting cannot be read", cause=str(fault), fix="correct the variable, then asof config"
        ) from fault


def variables(settings_class: type[BaseSettings], field: str) -> tuple[str, ...]:
    """Every environment variable that sets `field`, the one that counts first when several are set."""
    alias = settings_class.model_fields[field].validation_alias
    if alias is None:
        return (f"{settings_class.model_config.get('env_prefix', '')}{field}".upper(),)
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    # An alias in small letters is the name of the argument in Python.
    return tuple(choice for choice in choices if isinstance(choice, str) and choice.isupper())


def set_variable(settings_class: type[BaseSettings], field: str) -> str | None:
    """The variable that `field` takes its value from; None when it has its default."""
    filled = {name.upper() for name, value in os.environ.items() if value}
    return next((name for name in variables(settings_class, field) if name in filled), None)


def _variable_at(settings_class: type[BaseSettings], location: tuple[int | str, ...]) -> str:
    # A fault is located by the field's name, or by one of its aliases.
    stated = str(location[0]) if location else ""
    for field in settings_class.model_fields:
        names = variables(settings_class, field)
        if names and (stated == field or stated in names):
            return set_variable(settings_class, field) or names[0]
    return stated or settings_class.__name__


def _with_password(url: str, password: str) -> str:
    escaped = quote(password, safe="")
    parts = urlsplit(url)
    if parts.scheme == "unix":
        query = f"{parts.query}&password={escaped}" if parts.query else f"password={escaped}"
        return join_url(parts._replace(query=query))
    user, host = (parts.username or ""), parts.netloc.rpartition("@")[2]
    return join_url(parts._replace(netloc=f"{user}:{escaped}@{host}"))


def _with_authority(url: str, file: Path) -> str:
    parts = urlsplit(url)
    if not parts.scheme.startswith("rediss"):
        raise ContractError(
            "ASOF_REDIS_CA_FILE is set, but ASOF_REDIS_URL does not ask for TLS",
            cause=f"it begins with {parts.scheme}://",
            fix="begin it with rediss:// or rediss+sentinel://",
        )
    if not file.is_file():
        raise ContractError("ASOF_REDIS_CA_FILE names no file", cause=str(file), fix="check the path and its mode")
    added = f"ssl_ca_certs={quote(str(file), safe='/')}"
    return join_url(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))


def join_url(parts: SplitResult) -> str:
    text = urlunsplit(parts)
    # urlunsplit leaves an empty host away, which a socket's address needs.
    return text if parts.netloc else text.replace(":", "://", 1)
