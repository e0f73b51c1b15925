"""Text from upstreams, before anything keeps it."""

from __future__ import annotations

import gc
import unicodedata
from typing import Any

from pydantic_core import from_json

from services.fetcher.domain.faults import Untrusted

MAX_TEXT = 1000
MAX_QUOTED = 300


def safe_text(value: Any, name: str, *, symbol: str, host: str) -> str | None:
    """NFC text without outer blanks; None when missing or blank. Raises Untrusted for control characters or length."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Untrusted(f"{name} is a {type(value).__name__}, not text", symbol=symbol, host=host)
    if len(value) > MAX_TEXT:
        raise Untrusted(f"{name} has {len(value):,} characters", symbol=symbol, host=host)
    text = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise Untrusted(f"{name} holds control characters", symbol=symbol, host=host)
    return text or None


def printable(words: str) -> str:
    """An upstream's own words on one line that a terminal may print, cut to a sensible length."""
    return "".join(char if char.isprintable() else " " for char in words)[:MAX_QUOTED].strip()


def read_json(raw: bytes | str) -> Any:
    """JSON without NaN and infinities. Raises ValueError.

    A series is thousands of small lists that are all alive and hold no cycle: looking for garbage among them while they
    are made takes longer than reading them.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return from_json(raw, allow_inf_nan=False)
    finally:
        if collecting:
            gc.enable()
