"""Text from upstreams, before anything keeps it."""

from __future__ import annotations

import unicodedata
from typing import Any

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
