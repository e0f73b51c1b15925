"""The frames of TradingView's websocket: `~m~<length>~m~<payload>`, several in a message; heartbeats are `~h~<n>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from services.fetcher.adapters.text import printable
from services.fetcher.domain.faults import Garbled

_HEAD = re.compile(r"~m~(\d{1,9})~m~")
HEARTBEAT = "~h~"


def frame(payload: str) -> str:
    return f"~m~{len(payload)}~m~{payload}"


def call(method: str, *params: Any) -> str:
    return frame(json.dumps({"m": method, "p": params}, separators=(",", ":")))


def read_frames(message: str) -> Iterator[str]:
    """The payloads of one message. Raises Garbled when a length does not fit what follows."""
    position = 0
    while position < len(message):
        head = _HEAD.match(message, position)
        if head is None:
            raise Garbled("a frame does not start with ~m~", cause=repr(message[position : position + 20]))
        start = head.end()
        position = start + int(head[1])
        if position > len(message):
            raise Garbled("a frame is shorter than it says", cause=f"{len(message) - start} of {head[1]} characters")
        yield message[start:position]


def series_rows(update: Any, symbol: str, host: str) -> list[Any]:
    """The rows of one series' part of a `timescale_update`."""
    if update is None:
        return []
    bars = update.get("s") if isinstance(update, dict) else None
    if bars is None:
        return []
    try:
        return [bar["v"] for bar in bars]
    except (TypeError, KeyError) as fault:
        raise Garbled("a series update holds something that is no bar", symbol=symbol, host=host) from fault


def is_about(params: list[Any], name: str) -> bool:
    """Whether a call is about this symbol or series of the chart."""
    return len(params) > 1 and params[1] == name


def words(params: list[Any]) -> str:
    """What the upstream said, on one line."""
    return printable(" ".join(str(part) for part in params))
