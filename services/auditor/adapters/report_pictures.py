"""The report's pictures, as inline SVG: the same input gives the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from services.auditor.domain.coverage import Coverage, Outcome

_CELL, _GAP, _COLUMNS, _LABEL = 11, 2, 72, 74
_DRAWN = 2_000  # beyond that a cell for each symbol says less than the share of each stage


def coverage_matrix(coverage: Coverage) -> str:
    """A column for each symbol, a cell for each stage, in the order of the candidates; of many, those with gaps."""
    symbols: Sequence[str] = coverage.expected
    if len(symbols) > _DRAWN:
        symbols = [symbol for symbol in symbols if symbol in set(coverage.failed_symbols)][:_DRAWN]
    waived = {gap.symbol for gap in coverage.waived}
    rows = [symbols[start : start + _COLUMNS] for start in range(0, len(symbols), _COLUMNS)]
    step = _CELL + _GAP
    band = len(coverage.stages) * step + 12
    width = _LABEL + min(_COLUMNS, max(map(len, rows), default=1)) * step
    parts = [f'<svg viewBox="0 0 {width} {len(rows) * band}" width="{width}" role="img" aria-label="every outcome">']
    for band_number, row in enumerate(rows):
        top = band_number * band
        for stage_number, stage in enumerate(coverage.stages):
            y = top + stage_number * step
            parts.append(f'<text x="0" y="{y + _CELL - 2}">{stage}</text>')
            for column, symbol in enumerate(row):
                outcome = coverage.outcomes[symbol][stage]
                shade = "waivedcell" if symbol in waived and outcome.status == "failed" else outcome.status
                parts.append(
                    f'<rect class="{shade}" x="{_LABEL + column * step}" y="{y}" width="{_CELL}" height="{_CELL}">'
                    f"<title>{escape(_said(symbol, stage, outcome))}</title></rect>"
                )
    return "".join([*parts, "</svg>"])


def stage_bars(coverage: Coverage) -> str:
    """One bar for each stage: how many symbols are ok, failed, skipped."""
    total = max(len(coverage.expected), 1)
    width, height, label = 560, 18, 90
    outer = width + label + 70
    lines = [f'<svg viewBox="0 0 {outer} {len(coverage.stages) * 26}" width="{outer}" role="img">']
    for number, stage in enumerate(coverage.stages):
        counts = _counts(coverage, stage)
        x, y = float(label), number * 26
        lines.append(f'<text x="0" y="{y + 13}">{stage}</text>')
        for status in ("ok", "failed", "skipped"):
            share = counts[status] / total * width
            if share:
                lines.append(
                    f'<rect class="{status}" x="{x:.2f}" y="{y}" width="{share:.2f}" height="{height}">'
                    f"<title>{counts[status]:,} {status}</title></rect>"
                )
            x += share
        lines.append(f'<text x="{label + width + 8}" y="{y + 13}">{counts["ok"]:,} ok</text>')
    return "".join([*lines, "</svg>"])


def sparkline(values: Sequence[float], *, low: float = -1, high: float = 1) -> str:
    """A small line of values within [low, high], NaN leaving a break."""
    width, height = 120, 24
    if len(values) < 2:
        return ""
    runs: list[list[str]] = [[]]
    for position, value in enumerate(values):
        if math.isnan(value):
            runs.append([])
            continue
        x = position * width / (len(values) - 1)
        y = height - (value - low) / (high - low) * height
        runs[-1].append(f"{x:.1f},{y:.1f}")
    lines = "".join(
        f'<polyline points="{" ".join(run)}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        for run in runs
        if len(run) > 1
    )
    return f'<svg viewBox="0 -2 {width} {height + 4}" width="{width}" aria-hidden="true">{lines}</svg>'


def _counts(coverage: Coverage, stage: str) -> Mapping[str, int]:
    counts = dict.fromkeys(("ok", "failed", "skipped"), 0)
    for stages in coverage.outcomes.values():
        counts[stages[stage].status] += 1  # type: ignore[index]  # a stage of the run is one of its outcomes' keys
    return counts


def _said(symbol: str, stage: str, outcome: Outcome) -> str:
    if outcome.status == "ok":
        return f"{symbol} {stage}: ok"
    if outcome.status == "skipped":
        return f"{symbol} {stage}: skipped after {outcome.after} ({outcome.code})"
    return f"{symbol} {stage}: {outcome.code}: {outcome.cause}"
