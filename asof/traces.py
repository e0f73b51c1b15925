"""The spans of one run, from the files that services write with ASOF_BUS_TRACES=true, in the order of their causes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.errors import IntegrityError, NotFoundError
from shared.paths import Home


@dataclass(frozen=True, slots=True)
class Span:
    """One handler call: who did what, `start_ms` after the run's first span began, and under which cause (`depth`)."""

    name: str
    depth: int
    start_ms: float
    took_ms: float
    deliveries: int
    error: str | None


def spans_of_run(home: Home, run_id: str) -> list[Span]:
    """Every handler call of the run's trace, causes before effects. Raises NotFoundError when none was written."""
    rows = list(_rows(home))
    traces = {row["trace"] for row in rows if row["attributes"].get("asof.run_id") == run_id}
    mine = sorted((row for row in rows if row["trace"] in traces), key=lambda row: int(row["start_ns"]))
    if not mine:
        raise NotFoundError(
            f"no trace of run {run_id} was written",
            fix="start the services with ASOF_BUS_TRACES=true, and the run again",
        )
    known = {row["span"] for row in mine}
    caused: dict[str | None, list[dict[str, Any]]] = {}
    for row in mine:
        caused.setdefault(row["parent"] if row["parent"] in known else None, []).append(row)
    first = int(mine[0]["start_ns"])
    return [_span(row, depth, first) for row, depth in _in_order(caused, None, 0)]


def _in_order(
    caused: dict[str | None, list[dict[str, Any]]], cause: str | None, depth: int
) -> Iterator[tuple[dict[str, Any], int]]:
    for row in caused.get(cause, ()):
        yield row, depth
        yield from _in_order(caused, row["span"], depth + 1)


def _span(row: dict[str, Any], depth: int, first: int) -> Span:
    start, end = int(row["start_ns"]), int(row["end_ns"])
    deliveries = int(row["attributes"].get("asof.deliveries", 1))
    return Span(row["name"], depth, (start - first) / 1e6, (end - start) / 1e6, deliveries, row["error"])


def _rows(home: Home) -> Iterator[dict[str, Any]]:
    for path in sorted(home.state.glob("*/traces/*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                yield json.loads(line)
            except ValueError as fault:
                raise IntegrityError(
                    f"{path}, line {number}, is no span", cause=str(fault), fix=f"rm {path}"
                ) from fault
