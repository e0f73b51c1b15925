"""One line of `asof doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "red"]


@dataclass(frozen=True, slots=True)
class Check:
    """`red` keeps asof from working here; a `warning` wants a person's eye. Both say what to do."""

    name: str
    state: State
    detail: str
    fix: str = ""


def well(name: str, detail: str) -> Check:
    return Check(name, "ok", detail)


def warning(name: str, detail: str, fix: str) -> Check:
    return Check(name, "warning", detail, fix)


def red(name: str, detail: str, fix: str) -> Check:
    return Check(name, "red", detail, fix)
