"""Any order of events, repeated, late, between restarts, waivers, retries and deadlines: the gate's two promises hold.

Nothing is granted unless each candidate is covered or validly waived; nothing that is complete stays unpromoted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.auditor import verify_ledger
from shared import events as e
from tests.integration.auditor_house import House, decisions, failure

# Hundreds of houses: what is tried is the order of events, not whether a disk keeps them.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
A, B, C = "PSE:A", "PSE:B", "PSE:C"
ALL = [A, B, C]
FAULTS = st.dictionaries(
    st.sampled_from(ALL),
    st.sampled_from(["metadata", "catalog", "bars", "validation", "ratings", "silent"]),
    max_size=2,
)
INTERRUPTIONS = st.sampled_from(["restart", "tick", "deadline", "waive", "expired waive", "promote", "retry", "other"])


def events_of(house: House, faults: dict[str, str]) -> list[e.Event]:
    """What the services say of a run in which these symbols meet these faults."""

    def those(*kinds: str) -> list[str]:
        return [symbol for symbol in ALL if faults.get(symbol) in kinds]

    found = [symbol for symbol in ALL if symbol not in those("metadata", "catalog")]
    with_bars = [symbol for symbol in ALL if symbol not in those("bars", "silent")]
    rated = [symbol for symbol in with_bars if symbol not in those("validation", "ratings")]
    rejected = {
        symbol: e.Rejected(stage=faults[symbol], failure=failure("toxic"))  # type: ignore[arg-type]
        for symbol in those("validation", "ratings")
    }
    events = [house.no_metadata(symbol) for symbol in those("metadata")]
    events += [
        house.event(e.CatalogUpdated(run_id="r1", catalog_version=2, rejected={symbol: failure("bad_tick")}))
        for symbol in those("catalog")
    ]
    if found:
        events.append(house.catalogued(*found))
    events += [house.hydrated(symbol, batch=number) for number, symbol in enumerate(with_bars)]
    if those("bars"):
        events.append(house.hydrated(batch=9, failed={symbol: failure() for symbol in those("bars")}))
    if rated or rejected:
        events.append(house.rated(*rated, rejected=rejected))
    return events


def check_granted(house: House, decided: list[e.PromotionDecided]) -> None:
    for one in decided:
        if one.decision == "granted":
            coverage = house.coverage()
            waived = {gap.symbol for gap in coverage.waived}
            assert {gap.symbol for gap in coverage.gaps} == waived
            assert all(gap.expires > house.now for gap in coverage.waived)
            assert set(one.symbols) == {*ALL} - waived
            assert coverage.covered_with_waivers == 1.0


def interrupt(house: House, what: str) -> list[e.PromotionDecided]:
    gaps = house.coverage().gaps if house.home.run("r1").coverage.exists() else ()
    match what:
        case "restart":
            house.restart()
            return decisions(house.tick())
        case "tick":
            return decisions(house.tick(0.5))
        case "deadline":
            return decisions(house.tick(70))
        case "waive" | "expired waive":
            caused = []
            for gap in gaps:
                arguments = {"symbols": [gap.symbol], "stage": gap.stage, "reason": "known", "approver": "ben"}
                expires = house.now.replace(year=2020 if what == "expired waive" else 2030)
                result, events = house.command("waive", **arguments, expires=expires.isoformat())
                assert what == "waive" or result.outcome == "refused"
                caused += events
            return decisions(caused)
        case "promote" | "retry":
            return decisions(house.command(what)[1])
        case _:
            return decisions(house.note(house.catalogued(*ALL, run_id="another", version=5)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_interleaving_grants_what_is_not_accounted_for_or_leaves_what_is_complete(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        house = House(Path(folder) / "data")
        faults = data.draw(FAULTS, label="faults")
        begin = house.event(e.RunCandidates(candidates=ALL, run_id="r1"))
        events = [begin, *events_of(house, faults)]
        order = data.draw(st.permutations(events), label="order")
        decided: list[e.PromotionDecided] = []
        for event in order:
            if data.draw(st.integers(0, 3), label="interrupted") == 0:
                decided += interrupt(house, data.draw(INTERRUPTIONS, label="by"))
                check_granted(house, decided[-1:])
            if event is begin:
                decided += decisions(house.start(ALL))
            else:
                repeats = data.draw(st.integers(1, 2), label="repeats")
                decided += decisions(house.note(*[event] * repeats))
            check_granted(house, decided[-1:])
        decided += decisions(house.tick(3600))
        check_granted(house, decided[-1:])
        if not faults:
            # Late results wait until somebody asks.
            decided += decisions(house.command("promote")[1])
            assert decided[-1].decision == "granted"
        assert decided, "every run ends in a verdict"
        flaws, _, _ = verify_ledger(house.home)
        assert flaws == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FAULTS, st.data())
def test_without_interruptions_every_order_ends_in_the_same_outcomes(
    faults: dict[str, str], data: st.DataObject
) -> None:
    def verdict(order: list[e.Event], house: House) -> object:
        house.start(ALL)
        decided = decisions([each for event in order for each in house.note(event)])
        decided = decided or decisions(house.tick(3600))
        (only,) = decided
        coverage = house.coverage()
        return only.decision, only.symbols, coverage.outcomes, coverage.gaps, coverage.covered

    with tempfile.TemporaryDirectory(dir=MEMORY) as one, tempfile.TemporaryDirectory(dir=MEMORY) as other:
        first, second = House(Path(one) / "data"), House(Path(other) / "data")
        events = events_of(first, faults)
        events_of(second, faults)
        assert verdict(events, first) == verdict(data.draw(st.permutations(events)), second)
