"""Verdicts for a person: one coverage line, then each cause with its symbols and the command that fixes it."""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from asof.verdict import Verdict
    from shared.bus.traces import Span

_BAR_WIDTH = 40
_COLOURS = {"granted": "green", "blocked": "red"}


def draw_verdict(console: Console, verdict: Verdict, *, at_most: int | None = None) -> None:
    """The whole verdict; with `at_most`, so many symbols of each cause."""
    console.print()
    console.print(f"run {verdict.run_id}  profile {verdict.profile}  {verdict.expected:,} candidates", style="bold")
    if verdict.decision is None:
        console.print(verdict.reason, soft_wrap=True)
        return
    draw_coverage(console, verdict)
    for stage, code, gaps in verdict.causes():
        _draw_cause(console, stage, code, gaps, at_most)
    word = "PROMOTED" if verdict.promoted_version is not None else verdict.decision.upper()
    console.print()
    console.print(f"{word}  {verdict.reason}", style=f"bold {_COLOURS[verdict.decision]}", soft_wrap=True)
    if verdict.promoted_version is not None:
        console.print(f"features version {verdict.promoted_version}, catalog version {verdict.catalog_version}")
    elif verdict.decision == "blocked":
        console.print(
            "nothing of this run is in the feature store; what was promoted before stays as it is", soft_wrap=True
        )
    if verdict.parity:
        console.print(f"{verdict.parity['badge']} symbols rated as the screener showed them", soft_wrap=True)
    if verdict.decision == "blocked" and verdict.next and not verdict.open_gaps:
        console.print(f"next: {verdict.next}", style="cyan", soft_wrap=True)
    if verdict.withdrawn_by is not None:
        console.print(
            f"ROLLED BACK  features version {verdict.withdrawn_by} is what the store was before this promotion",
            style="bold yellow",
            soft_wrap=True,
        )


def draw_waived(console: Console, verdict: Verdict) -> None:
    """What was signed for, by whom, why and until when; symbols that were signed for together in one block."""
    together: dict[tuple[str, ...], list[str]] = {}
    for gap in verdict.waived:
        names = ", ".join(gap["approvers"]) + ("" if gap["verified"] else " (the name is not verified)")
        key = (gap["stage"], gap["code"], names, gap["expires"], gap["reason"])
        together.setdefault(key, []).append(gap["symbol"])
    for (stage, code, names, expires, reason), symbols in together.items():
        console.print()
        signed = f"waived {stage}: {code}, {len(symbols):,} by {names} until {expires}"
        console.print(signed, style="yellow", soft_wrap=True)
        console.print(f"  {reason}\n  {' '.join(symbols)}", soft_wrap=True)


def draw_timeline(console: Console, verdict: Verdict) -> None:
    """What each attempt at the upstreams brought; a line an entry of the ledger, with the seconds since the first."""
    if not verdict.timeline:
        return
    console.print()
    for attempt in verdict.attempts:
        kinds = {kind: attempt["kinds"][kind] for kind in ("metadata", "bars") if kind in attempt["kinds"]}
        parts = [
            f"{kind} {part['fetched']:,} of {part['fetched'] + part['failed']:,} in {part['duration_s']:.1f} s"
            for kind, part in kinds.items()
        ]
        console.print(f"attempt {attempt['idx']}   {', '.join(parts)}", soft_wrap=True)
    first = datetime.fromisoformat(verdict.timeline[0].time)
    for moment in verdict.timeline:
        at = datetime.fromisoformat(moment.time)
        after = f"+{(at - first).total_seconds():,.1f} s"
        console.print(
            f"{at:%Y-%m-%d %H:%M:%S}  {after:>10}  entry {moment.entry:<4} {moment.kind:9} {moment.what}",
            soft_wrap=True,
        )


def draw_waterfall(console: Console, spans: list[Span]) -> None:
    """A line a handler call: ms until it began, ms it took, and both as a bar along the run's time."""
    first, last = min(span.start_ns for span in spans), max(span.end_ns for span in spans)
    names = [f"{'  ' * span.depth}{span.service} {span.stream}" for span in spans]
    width = max(map(len, names))
    room = max(console.width - width - 24, 10)
    for name, span in zip(names, spans, strict=True):
        before = int((span.start_ns - first) / (last - first) * room)
        bar = max(1, round((span.end_ns - span.start_ns) / (last - first) * room))
        drawn = " " * before + "█" * min(bar, max(room - before, 1))
        again = f"  delivery {span.deliveries}" if span.deliveries > 1 else ""
        began, took = (span.start_ns - first) / 1e6, span.seconds * 1e3
        style = "red" if span.error else None
        console.print(f"{name:{width}} {began:9,.0f} {took:8,.1f} ms {drawn}{again}", style=style, soft_wrap=True)
        if span.error:
            console.print(f"{'':{width}} {span.error}", style="red", soft_wrap=True)


def draw_coverage(console: Console, verdict: Verdict) -> None:
    """One line: a bar of covered, waived and open candidates, and both figures."""
    from rich.text import Text

    waived, missing = (_cells(len(gaps), verdict.expected) for gaps in (verdict.waived, verdict.open_gaps))
    line = Text()
    line.append("█" * (_BAR_WIDTH - waived - missing), style="green")
    line.append("▒" * waived, style="yellow")
    line.append("░" * missing, style="red")
    line.append(f"  covered {verdict.covered or 0:.1%}")
    if verdict.waived:
        line.append(f", with waivers {verdict.covered_with_waivers or 0:.1%}")
    counts = f"PASS {verdict.expected - len(verdict.gaps)}  WAIVED {len(verdict.waived)}  GAP {len(verdict.open_gaps)}"
    console.print(line, soft_wrap=True)
    console.print(counts, style="bold")


def _cells(count: int, total: int) -> int:
    # Rounded up: a single gap among thousands still shows.
    return -(-count * _BAR_WIDTH // max(total, 1))


def _draw_cause(console: Console, stage: str, code: str, gaps: list[dict[str, Any]], at_most: int | None) -> None:
    from rich.padding import Padding

    console.print()
    console.print(f"{stage}: {code}, {len(gaps)} {'symbol' if len(gaps) == 1 else 'symbols'}", style="bold red")
    causes = sorted({gap["cause"] for gap in gaps})
    if len(causes) == 1:
        console.print(Padding(f"{causes[0]}\n{' '.join(gap['symbol'] for gap in gaps)}", (0, 0, 0, 2)))
    else:
        width = max(len(gap["symbol"]) for gap in gaps)
        for gap in gaps[:at_most]:
            console.print(f"  {gap['symbol']:{width}}  {gap['cause']}", soft_wrap=True)
        if at_most is not None and len(gaps) > at_most:
            console.print(f"  … and {len(gaps) - at_most} more")
    console.print(f"  next: {_for_all(gaps, at_most)}", style="cyan", soft_wrap=True)


def _for_all(gaps: list[dict[str, Any]], at_most: int | None) -> str:
    """The first gap's command, naming every symbol of the group."""
    symbols = shlex.quote(",".join(gap["symbol"] for gap in gaps[:at_most]))
    symbols += ",…" if at_most is not None and len(gaps) > at_most else ""
    return re.sub(r"--symbol ('[^']*'|\S+)", f"--symbol {symbols}", str(gaps[0]["next"]))
