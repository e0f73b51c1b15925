"""The chart socket's framing: `~m~<characters>~m~<text>`, any number of them in one websocket message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_HEAD = re.compile(r"~m~(\d+)~m~")
_HEARTBEAT = re.compile(r"~h~\d+\Z")


class BrokenFrame(ValueError):
    pass


def frame(text: str) -> str:
    return f"~m~{len(text)}~m~{text}"


def command(method: str, *parameters: Any) -> str:
    return frame(json.dumps({"m": method, "p": parameters}, separators=(",", ":")))


def heartbeat(number: int) -> str:
    return frame(f"~h~{number}")


def is_heartbeat(text: str) -> bool:
    return _HEARTBEAT.match(text) is not None


def unframe(message: str) -> Iterator[str]:
    """The text of each frame in a message. Raises BrokenFrame when a head is missing or a length is not there."""
    at = 0
    while at < len(message):
        head = _HEAD.match(message, at)
        if head is None or head.end() + int(head[1]) > len(message):
            raise BrokenFrame(f"no frame at character {at} of {len(message)}")
        at = head.end() + int(head[1])
        yield message[head.end() : at]
