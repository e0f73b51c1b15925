"""What a person is told of a run, from its gaps."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from asof.cli.picture import draw_verdict, draw_waterfall
from asof.demo.picture import sparkline
from asof.follow import Progress
from asof.verdict import Verdict
from shared.bus.traces import Span
from shared.events import Event, FeaturesPromoted, Rules


def gap(symbol: str, stage: str = "bars", code: str = "no_bars", cause: str = "none") -> dict[str, Any]:
    command = f"asof waive r --symbol {symbol} --stage {stage} --reason …"
    return {"symbol": symbol, "stage": stage, "code": code, "cause": cause, "next": command}


def verdict(*gaps: dict[str, Any], **changes: Any) -> Verdict:
    given = {"covered": 0.5, "covered_with_waivers": 0.5, "decision": "blocked", "reason": "gaps"} | changes
    return Verdict("r", "default", 4, gaps=gaps, **given)


def drawn(shown: Verdict, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False, markup=False)
    draw_verdict(console, shown, **options)
    return console.file.getvalue()


def test_gaps_that_were_signed_for_are_no_longer_open():
    shown = verdict(gap("PSE:A"), gap("PSE:B"), waived=(gap("PSE:A"),))
    assert [one["symbol"] for one in shown.open_gaps] == ["PSE:B"]
    assert shown.open_gaps_by_stage() == {"bars": ["PSE:B"]}


def test_causes_are_grouped_and_the_largest_group_comes_first():
    shown = verdict(gap("PSE:A", "validation", "stale"), gap("PSE:B"), gap("PSE:C"))
    assert [(stage, code, len(gaps)) for stage, code, gaps in shown.causes()] == [
        ("bars", "no_bars", 2),
        ("validation", "stale", 1),
    ]


@pytest.mark.parametrize(
    ("gaps", "covered", "upstream_failed"),
    [
        ((gap("PSE:A", "metadata"), gap("PSE:B", "bars")), 0.0, True),
        ((gap("PSE:A", "validation", "stale"), gap("PSE:B", "bars")), 0.0, False),
        ((gap("PSE:A", "metadata"),), 0.5, False),
        ((), 1.0, False),
    ],
)
def test_only_a_run_that_fetched_nothing_is_the_upstreams_failure(
    gaps: tuple[dict[str, Any], ...], covered: float, upstream_failed: bool
):
    assert verdict(*gaps, covered=covered).nothing_came is upstream_failed


def test_a_blocked_run_names_each_symbol_its_cause_and_one_command_for_the_group():
    text = drawn(verdict(gap("PSE:A", cause="halted"), gap("PSE:B", cause="unknown")))
    assert "PSE:A  halted" in text
    assert "PSE:B  unknown" in text
    assert "--symbol PSE:A,PSE:B --stage bars" in text
    assert "nothing of this run is in the feature store" in text


def test_parity_with_the_screener_is_one_line_where_there_is_something_to_compare():
    parity = {"badge": "parity 1e-6: 48 of 50", "differences": {}}
    assert "parity 1e-6: 48 of 50 symbols rated as the screener showed them" in drawn(verdict(parity=parity))
    assert "parity" not in drawn(verdict())


def test_a_long_cause_can_be_cut_and_says_how_much_was_cut():
    text = drawn(verdict(gap("PSE:A", cause="x"), gap("PSE:B", cause="y"), gap("PSE:C", cause="z")), at_most=1)
    assert "… and 2 more" in text
    assert "PSE:B" not in text


def test_a_single_gap_among_thousands_still_shows_in_the_bar():
    shown = Verdict("r", "d", 9999, covered=0.9999, covered_with_waivers=0.9999, gaps=(gap("A:B"),), decision="blocked")
    assert "░" in drawn(shown)


def test_an_open_run_says_so():
    assert "still open" in drawn(Verdict("r", "d", 1, reason="still open"))


def test_a_sparkline_has_a_character_a_rating_and_a_blank_for_a_missing_one():
    assert sparkline([-1.0, 0.0, 1.0, float("nan")]) == "▁▅█ "


def test_a_promotion_that_was_seen_completes_a_verdict_that_was_read_too_early():
    promoted = FeaturesPromoted(
        run_id="r", interval="1d", rules=Rules(name="screener", version="1"),
        feature_version=7, parent=6, catalog_version=3, symbols=1, rows=1,
    )  # fmt: skip
    progress = Progress("r", 1)
    progress.note(Event.of(promoted, source="features", time=datetime(2024, 1, 1, tzinfo=UTC), subject="r"))
    early = verdict(decision="granted")
    assert (progress.completed(early).promoted_version, progress.completed(early).catalog_version) == (7, 3)
    assert Progress("r", 1).completed(early) is early


def test_a_waterfall_shows_each_call_under_its_cause_with_repeated_deliveries_and_errors():
    def span(name: str, start: int, end: int, depth: int, deliveries: int = 1, error: str | None = None) -> Span:
        times = {"start_ns": start * 1_000_000, "end_ns": end * 1_000_000}
        return Span(name, None, "fetcher", name, **times, events=1, deliveries=deliveries, error=error, depth=depth)

    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False)
    draw_waterfall(console, [span("run-candidates", 0, 10, 0), span("fetch-tasks", 10, 100, 1, 2, "no host")])
    cause, effect, error = console.file.getvalue().splitlines()
    assert cause.split()[:4] == ["fetcher", "run-candidates", "0", "10.0"]
    assert effect.startswith("  fetcher fetch-tasks")
    assert effect.endswith("█  delivery 2")
    assert error.strip() == "no host"
