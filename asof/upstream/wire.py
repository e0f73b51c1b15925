"""What a request asked and what is answered, before either is bytes; and the route between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asof.upstream.limits import Over, Rule
from asof.upstream.source import View


@dataclass(frozen=True)
class Asked:
    """A request: path parameters, query (the last of a repeated key), JSON body (None: none, or broken)."""

    method: str
    path: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None

    def whole_number(self, name: str, default: int) -> int:
        """A query parameter as an integer; ValueError when it is something else."""
        text = self.query.get(name, "")
        return int(text) if text else default


@dataclass(frozen=True)
class Answer:
    payload: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    html: bool = False


@dataclass(frozen=True)
class Route:
    """One endpoint of a venue. `symbols` is for the log; `weigh` is the venue's own price of this request."""

    kind: str
    method: str
    path: str
    answer: Callable[[Asked, View], Answer]
    symbols: Callable[[Asked], tuple[str, ...]]
    weigh: Callable[[Asked], int]


@dataclass(frozen=True)
class Venue:
    """One upstream host. `refuse` says no the way this venue says it; `headers` shows what was used, where it tells."""

    name: str
    prefix: str
    routes: tuple[Route, ...]
    rule: Rule
    refuse: Callable[[Over], Answer]
    headers: Callable[[int], Mapping[str, str]] = lambda used: {}


def not_recorded(name: str) -> Answer:
    """Nothing is invented: where no payload was recorded by the served time, the venue is as good as down."""
    return Answer({"error": f"the replay holds no {name} list recorded by its clock"}, status=503)
