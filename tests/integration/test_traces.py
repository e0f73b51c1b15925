"""A run's spans, read back from the files that services wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from asof.cli.picture import draw_waterfall
from asof.traces import spans_of_run
from shared.errors import IntegrityError, NotFoundError
from shared.paths import Home


def span(name: str, ident: str, parent: str | None, start_ms: int, took_ms: int, run: str, **more: Any) -> str:
    attributes = {"asof.run_id": run, "asof.deliveries": more.get("deliveries", 1)}
    start, end = start_ms * 1_000_000, (start_ms + took_ms) * 1_000_000
    row = {"trace": f"t-{run}", "span": ident, "parent": parent, "name": name, "start_ns": start, "end_ns": end}
    return json.dumps({**row, "attributes": attributes, "error": more.get("error")}) + "\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    written = {
        "fetcher": span("fetcher run-candidates", "a", "root", 100, 5, "r1")
        + span("fetcher fetch-tasks", "b", "a", 106, 40, "r1"),
        "features": span("features bars-hydrated", "c", "b", 150, 30, "r1", deliveries=2, error="no bars")
        + span("features run-candidates", "x", None, 90, 5, "r2"),
    }
    for service, text in written.items():
        folder = tmp_path / "state" / service / "traces"
        folder.mkdir(parents=True)
        (folder / "one.jsonl").write_text(text)
    return Home.at(tmp_path)


def test_spans_stand_below_what_caused_them_and_other_runs_are_left_out(home: Home):
    found = spans_of_run(home, "r1")
    assert [(one.name, one.depth, one.start_ms, one.took_ms) for one in found] == [
        ("fetcher run-candidates", 0, 0.0, 5.0),
        ("fetcher fetch-tasks", 1, 6.0, 40.0),
        ("features bars-hydrated", 2, 50.0, 30.0),
    ]


def test_a_repeated_delivery_and_an_error_show_in_the_picture(home: Home):
    console = Console(file=io.StringIO(), width=100)
    draw_waterfall(console, spans_of_run(home, "r1"))
    text = console.file.getvalue()
    assert "delivery 2" in text
    assert "no bars" in text


def test_a_run_without_a_trace_says_how_to_get_one(home: Home):
    with pytest.raises(NotFoundError, match="ASOF_BUS_TRACES"):
        spans_of_run(home, "r3")


def test_a_damaged_file_is_named(home: Home):
    path = home.state / "fetcher" / "traces" / "one.jsonl"
    path.write_text(path.read_text() + "{")
    with pytest.raises(IntegrityError, match="line 3"):
        spans_of_run(home, "r1")
