"""Parsed bars kept in one file, so that a second start need not parse. A file that is not whole is parsed anew."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from array import array
from collections.abc import Mapping
from pathlib import Path

from asof.upstream.source import Series

# Part of the file's name: another layout is another file.
_LAYOUT = f"1-{sys.byteorder}"


def load_series(folder: Path, name: str, *, origin: bytes) -> dict[str, Series] | None:
    """The series parsed from `origin` before, or None when there are none here or the file is not as it was written."""
    try:
        content = _file(folder, name, origin).read_bytes()
    except FileNotFoundError:
        return None
    head, _, body = content.partition(b"\n")
    try:
        index = json.loads(head)
    except ValueError:
        return None
    if index["sha256"] != hashlib.sha256(body).hexdigest():
        return None
    series: dict[str, Series] = {}
    at = 0
    for symbol, span_s, opens_size, rows_size in index["series"]:
        opens = array("q")
        opens.frombytes(body[at : at + opens_size])
        at += opens_size
        series[symbol] = Series(span_s, opens, body[at : at + rows_size])
        at += rows_size
    return series


def save_series(folder: Path, name: str, series: Mapping[str, Series], *, origin: bytes) -> None:
    entries: list[tuple[str, int, int, int]] = []
    parts: list[bytes] = []
    for symbol, item in series.items():
        opens = item.opens.tobytes()
        entries.append((symbol, item.span_s, len(opens), len(item.rows)))
        parts += (opens, item.rows)
    body = b"".join(parts)
    head = json.dumps({"sha256": hashlib.sha256(body).hexdigest(), "series": entries}).encode("ascii")
    folder.mkdir(parents=True, exist_ok=True)
    target = _file(folder, name, origin)
    aside = target.with_suffix(f".{os.getpid()}.tmp")
    aside.write_bytes(head + b"\n" + body)
    aside.replace(target)


def _file(folder: Path, name: str, origin: bytes) -> Path:
    return folder / f"{name}-{hashlib.sha256(origin).hexdigest()[:16]}-{_LAYOUT}.bars"
