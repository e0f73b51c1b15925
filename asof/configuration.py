"""Every setting of the house and of the services, with its value and where that comes from."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import SecretBytes, SecretStr
from pydantic_settings import BaseSettings

from asof.settings import HouseSettings, join_url, read_settings, set_variable, variables
from shared.bus.settings import BusSettings
from shared.streams import SERVICES

_SECRET_WORDS = ("password", "secret", "token", "key")
# Whoever knows such an address can post to it.
_SECRET_ADDRESSES = ("webhook",)
MASK = "***"
DEFAULT = "default"


class Setting(NamedTuple):
    """One row of `asof config`. `name` is the variable to set; `origin` the one that is set, or `default`."""

    group: str
    name: str
    value: str
    origin: str
    meaning: str


def settings_table() -> list[Setting]:
    """One row a setting, the house's first. Raises ContractError naming a value that is not allowed.

    A container holds the code of one service: the settings of those that are not installed are left out.
    """
    rows: dict[str, Setting] = {}
    for group, settings_class in _classes():
        for row in _rows(group, settings_class):
            rows.setdefault(row.name, row)
    return list(rows.values())


def unread_variables() -> list[str]:
    """Variables named `ASOF_…` that nothing reads: misspelt, most likely."""
    classes = [settings_class for _, settings_class in _classes()]
    known = {name for each in classes for field in each.model_fields for name in variables(each, field)}
    # A service that is not installed here may read what begins with its name; one variable is read by the kernel.
    foreign = tuple(f"ASOF_{service.upper()}_" for service in SERVICES if not _installed(service))
    known.add("ASOF_FEATURES_WITHOUT_NUMBA")
    return sorted(
        name
        for name in map(str.upper, os.environ)
        if name.startswith("ASOF_") and name not in known and not name.startswith(foreign)
    )


def missing_services() -> list[str]:
    """The services whose code is not installed here."""
    return [service for service in SERVICES if not _installed(service)]


def _installed(service: str) -> bool:
    return find_spec(f"services.{service}") is not None and find_spec(f"services.{service}.settings") is not None


def _classes() -> list[tuple[str, type[BaseSettings]]]:
    own: list[tuple[str, type[BaseSettings]]] = [("house", HouseSettings)]
    of_services = [
        (service, import_module(f"services.{service}.settings").Settings) for service in SERVICES if _installed(service)
    ]
    return [*own, *of_services, ("bus", BusSettings)]


def _rows(group: str, settings_class: type[BaseSettings]) -> list[Setting]:
    values = read_settings(settings_class)
    rows = []
    for field, info in settings_class.model_fields.items():
        names = variables(settings_class, field)
        origin = set_variable(settings_class, field)
        name = origin or names[0]
        value = shown(name, getattr(values, field))
        rows.append(Setting(group, name, value, origin or DEFAULT, info.description or ""))
    return rows


def shown(name: str, value: Any) -> str:
    """A value as it may be printed: secrets, and passwords inside addresses, are masked."""
    if value is None:
        return ""
    lowered = name.lower()
    is_secret = isinstance(value, SecretStr | SecretBytes) or any(word in lowered for word in _SECRET_WORDS)
    # A secret's file name is no secret.
    if is_secret and not name.endswith("_FILE"):
        return MASK
    if "://" not in str(value):
        return str(value)
    return _masked_url(str(value), whole=any(word in lowered for word in _SECRET_ADDRESSES))


def _masked_url(url: str, *, whole: bool) -> str:
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}:{MASK}@{host}" if colon else f"{user}{at}{host}"
    if whole:
        return f"{parts.scheme}://{host}/{MASK}"
    fields = [
        (key, MASK if any(word in key.lower() for word in _SECRET_WORDS) else text)
        for key, text in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return join_url(parts._replace(netloc=netloc, query=urlencode(fields, safe=f"{MASK}/:")))
