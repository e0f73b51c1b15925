"""The demo, as `make run` plays it: its gaps to the letter, its numbers, and that a second one changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from asof import Lakehouse
from tests.e2e.conftest import play_demo

RUN = "demo-2021-12-15"

# What is really broken in the recorded data of the exchange.
NO_BARS = "ACEPH CPV DAVIN EIBA FYN LIHC MGH PCP PHC PIP PMT PNC PTT SRDC STN"
STALE = "AAA AR BH BHI BLFI CYBR DNA EG IS NXGEN PAL PORT TFC UNI X"
TOXIC = {
    "COSCO": "2013-05-14",
    "DITO": "2010-09-20",
    "GREEN": "2014-10-30",
    "MARC": "2010-10-12",
    "OM": "2011-07-29",
    "PA": "2019-12-04",
}

pytestmark = pytest.mark.timeout(240)


def test_the_first_verdict_is_blocked_with_exactly_these_gaps(played: tuple[Path, dict[str, Any]]):
    blocked = played[1]["blocked"]
    assert blocked["decision"] == "blocked"
    assert {(gap["symbol"], gap["stage"], gap["code"]) for gap in blocked["gaps"]} == {
        *((f"PSE:{ticker}", "bars", "no_bars") for ticker in NO_BARS.split()),
        *((f"PSE:{ticker}", "validation", "stale") for ticker in STALE.split()),
        *((f"PSE:{ticker}", "validation", "toxic") for ticker in TOXIC),
    }
    for gap in blocked["gaps"]:
        assert gap["next"].startswith("asof ")
        ticker = gap["symbol"].removeprefix("PSE:")
        assert TOXIC.get(ticker, "") in gap["cause"]


def test_every_candidate_ends_in_exactly_one_outcome(played: tuple[Path, dict[str, Any]]):
    coverage = Lakehouse(played[0]).run(RUN).coverage
    assert len(coverage["expected"]) == 272
    assert set(coverage["outcomes"]) == set(coverage["expected"])
    statuses = [{stage["status"] for stage in outcome.values()} for outcome in coverage["outcomes"].values()]
    covered = sum(status == {"ok"} for status in statuses)
    assert (covered, len(statuses) - covered) == (236, len(coverage["gaps"]))
    assert (coverage["covered"], coverage["covered_with_waivers"]) == (pytest.approx(236 / 272, abs=1e-6), 1.0)
    assert sorted(coverage["failed_symbols"]) == sorted({gap["symbol"] for gap in coverage["gaps"]})


def test_signing_for_those_gaps_promotes_the_rest_and_lets_nothing_else_in(played: tuple[Path, dict[str, Any]]):
    home, story = played
    assert story["promoted"]["promoted_version"] == 1
    matrix = pd.read_parquet(home / "lakehouse" / "features_matrix.parquet")
    stored = set(matrix.columns.get_level_values("symbol"))
    assert len(stored) == 236
    assert not stored & {gap["symbol"] for gap in story["blocked"]["gaps"]}
    # Nothing that was known only after the run's as_of.
    available = matrix.xs("available_at", axis=1, level="feature").max().max()
    assert available <= pd.Timestamp("2021-12-15T08:00Z")


def test_a_tick_size_is_what_it_was_on_the_day_that_one_asks_for(played: tuple[Path, dict[str, Any]]):
    lake = Lakehouse(played[0])
    seen = [lake.catalog.get_instrument("PSE:JFC", as_of=day) for day in ("2019-06-04", "2020-12-02", "2021-12-16")]
    assert [str(record["tick_size"]) for record in seen if record] == ["0.2", "0.1", "0.2"]
    assert lake.catalog.get_instrument("PSE:JFC", as_of="2019-06-02") is None


def test_a_second_demo_finds_the_first_and_writes_nothing_anew(played: tuple[Path, dict[str, Any]]):
    home, first = played
    before = digests(home)
    second = play_demo(home)
    assert second["promoted"] == first["promoted"]
    assert digests(home) == before


def digests(home: Path) -> dict[str, str]:
    kept = [home / "audit.jsonl", *home.glob("lakehouse/**/*.parquet"), *home.glob("runs/**/*.*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(kept)}
