"""From events to the verdict, on real files: what is granted, what is blocked, and what the folder holds afterwards."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.auditor.domain import chain
from shared import events as e
from shared.errors import ContractError
from tests.integration.auditor_house import T0, House, alerts, decisions, failure

THREE = ["PSE:JFC", "PSE:BDO", "PSE:SM"]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


def test_a_complete_run_is_granted_at_its_last_outcome(house: House) -> None:
    assert house.start(THREE) == []
    *first, last = house.all_of(THREE)
    assert house.note(*first) == []
    (decided,) = decisions(house.note(last))
    assert decided.decision == "granted"
    assert decided.symbols == tuple(THREE)
    assert [ref.path for ref in decided.staged] == ["runs/r1/staged/0.parquet"]
    assert decided.base == e.Versions(features=0, catalog=0)
    assert decided.catalog_version == 1
    assert house.ledger() == ["opened", "covered", "decided"]
    coverage = house.coverage()
    assert (coverage.covered, coverage.covered_with_waivers, coverage.failed_symbols) == (1.0, 1.0, ())


def test_the_artifact_has_the_fields_that_everyone_may_rely_on(house: House) -> None:
    house.start(THREE)
    house.note(house.attempted(1, fetched=2, failed=1), house.attempted(2, fetched=1, failed=0, started_at=house.now))
    house.note(*house.all_of(THREE))
    artifact = json.loads(house.home.run("r1").coverage.read_text())
    assert artifact["run_id"] == "r1"
    assert artifact["profile"] == "default"
    assert artifact["failed_symbols"] == []
    first = artifact["attempts"][0]
    assert (first["idx"], first["fetched"], first["failed"], first["duration_s"]) == (1, 2, 1, 1.5)


def test_every_gap_is_named_by_symbol_stage_cause_and_command(house: House) -> None:
    house.start([*THREE, "PSE:XX"])
    house.note(
        house.catalogued("PSE:JFC", "PSE:BDO", "PSE:SM"),
        house.no_metadata("PSE:XX", failure("not_listed", "no such symbol")),
    )
    house.note(
        house.hydrated("PSE:JFC", "PSE:SM", "PSE:XX", failed={"PSE:BDO": failure("no_bars", "the series is empty")})
    )
    toxic = e.Rejected(stage="validation", failure=failure("toxic", "moved +900 % on 2021-03-01"))
    events = house.note(house.rated("PSE:JFC", "PSE:XX", rejected={"PSE:SM": toxic}))
    (decided,) = decisions(events)
    assert decided.decision == "blocked"
    assert decided.staged == decided.symbols == ()
    gaps = {gap.symbol: (gap.stage, gap.code, gap.cause) for gap in house.coverage().gaps}
    assert gaps == {
        "PSE:BDO": ("bars", "no_bars", "the series is empty"),
        "PSE:SM": ("validation", "toxic", "moved +900 % on 2021-03-01"),
        "PSE:XX": ("metadata", "not_listed", "no such symbol"),
    }
    blocked, *causes = alerts(events)
    assert blocked.labels["alertname"] == "PromotionBlocked"
    assert {(alert.labels["stage"], alert.labels["code"], alert.annotations["symbols"]) for alert in causes} == {
        ("bars", "no_bars", "PSE:BDO"),
        ("validation", "toxic", "PSE:SM"),
        ("metadata", "not_listed", "PSE:XX"),
    }
    assert all("asof waive r1 --symbol" in alert.next_command for alert in causes)
    assert {alert.ledger_head for alert in causes} == {decided.ledger_head}


def test_events_may_come_before_the_run_twice_and_in_any_order(house: House) -> None:
    events = house.all_of(THREE)
    for event in reversed(events):
        assert house.note(event, event) == []
    (decided,) = decisions(house.start(THREE))
    assert decided.decision == "granted"
    assert house.note(*events) == []
    assert house.ledger() == ["opened", "covered", "decided"]


def test_silence_becomes_a_gap_at_the_deadline(house: House) -> None:
    house.start(THREE, deadline_s=30)
    house.note(house.catalogued(*THREE), house.hydrated(*THREE))
    assert house.tick(29) == []
    (decided,) = decisions(house.tick(1))
    assert decided.decision == "blocked"
    (gap, *_) = house.coverage().gaps
    assert (gap.symbol, gap.stage, gap.code, gap.next) == ("PSE:JFC", "validation", "silence", "asof retry r1")
    assert "the features service said nothing until the deadline" in gap.cause
    assert house.tick(60) == []


def test_the_same_run_id_with_other_content_is_refused_and_named(house: House) -> None:
    house.start(THREE)
    assert house.start(THREE) == []
    with pytest.raises(ContractError, match="run r1 exists with other content"):
        house.start(["PSE:JFC"])
    assert house.ledger() == ["opened"]


def test_a_malformed_candidate_is_a_gap_by_its_index(house: House) -> None:
    house.start(["PSE:JFC", 7, "../../etc/passwd"])
    (decided,) = decisions(house.note(*house.all_of(["PSE:JFC"])))
    assert decided.decision == "blocked"
    assert [(gap.symbol, gap.stage) for gap in house.coverage().gaps] == [("#1", "candidates"), ("#2", "candidates")]
    assert house.coverage().failed_symbols == ()


def test_no_candidates_at_all_open_no_run(house: House) -> None:
    with pytest.raises(ContractError, match="asof refresh"):
        house.start([])
    assert not house.home.run("r1").manifest.exists()


def test_a_metadata_run_is_granted_without_moving_any_feature(house: House) -> None:
    house.start(THREE, stages=("metadata",))
    (decided,) = decisions(house.note(house.catalogued(*THREE, version=7)))
    assert decided.decision == "granted"
    assert (decided.staged, decided.symbols, decided.catalog_version) == ((), (), 7)


def test_a_strict_run_ends_at_its_first_failure(house: House) -> None:
    house.start(THREE, strict=True)
    events = house.note(house.hydrated("PSE:JFC", failed={"PSE:BDO": failure()}))
    (decided,) = decisions(events)
    assert decided.decision == "blocked"
    assert "strict" in decided.reason
    codes = {gap.symbol: gap.code for gap in house.coverage().gaps}
    assert codes == {"PSE:JFC": "aborted", "PSE:BDO": "no_bars", "PSE:SM": "aborted"}


def test_waivers_for_every_gap_promote_what_is_there_and_nothing_else(house: House) -> None:
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    fired = alerts(house.note(house.rated("PSE:JFC", "PSE:SM")))
    waiver = {"stage": "bars", "reason": "never traded", "approver": "ben", "expires": "2022-01-31"}
    preview, caused = house.command("waive", symbols=["PSE:BDO"], preview=True, **waiver)
    assert "granted" in preview.message
    assert caused == []
    result, caused = house.command("waive", symbols=["PSE:BDO"], **waiver)
    assert result.outcome == "done"
    (decided,) = decisions(caused)
    assert decided.decision == "granted"
    assert decided.symbols == ("PSE:JFC", "PSE:SM")
    assert len(decided.waivers) == 1
    assert {alert.status for alert in alerts(caused)} == {"resolved"}
    assert [alert.fingerprint for alert in alerts(caused)] == [alert.fingerprint for alert in fired]
    coverage = house.coverage()
    assert coverage.covered < 1.0
    assert coverage.covered_with_waivers == 1.0
    assert coverage.waived[0].approvers == ("ben",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"expires": "2021-12-14"}, "expired"),
        ({"stage": "ratings"}, "is at stage bars"),
        ({"symbols": ["PSE:JFC"]}, "has no gap"),
        ({"symbols": ["NYSE:IBM"]}, "is no candidate"),
        ({"reason": "  "}, "blank"),
    ],
)
def test_a_waiver_that_fits_no_gap_is_refused_with_the_reason(house: House, change: dict, reason: str) -> None:
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", "PSE:SM"))
    waiver = {
        "symbols": ["PSE:BDO"],
        "stage": "bars",
        "reason": "never traded",
        "approver": "ben",
        "expires": "2022-01-31",
        **change,
    }
    result, caused = house.command("waive", **waiver)
    assert result.outcome == "refused"
    assert reason in result.message
    assert caused == []
    assert "waived" not in house.ledger()


def test_promote_only_asks_again(house: House) -> None:
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", "PSE:SM"))
    before = house.ledger()
    result, caused = house.command("promote")
    assert result.outcome == "refused"
    assert [decided.decision for decided in decisions(caused)] == ["blocked"]
    assert house.ledger() == before


def test_late_results_change_nothing_until_somebody_asks(house: House) -> None:
    house.start(THREE, deadline_s=30)
    house.note(house.catalogued(*THREE), house.hydrated(*THREE))
    house.tick(30)
    assert house.note(house.rated(*THREE)) == []
    assert len(house.coverage().gaps) == 3
    result, caused = house.command("promote")
    assert result.outcome == "done"
    assert decisions(caused)[0].symbols == tuple(THREE)


def test_a_promotion_is_entered_with_the_resulting_pair(house: House) -> None:
    house.start(THREE)
    house.note(*house.all_of(THREE))
    promoted = e.FeaturesPromoted(
        run_id="r1",
        interval="1d",
        rules=e.Rules(name="screener", version="1"),
        feature_version=1,
        parent=0,
        catalog_version=1,
        symbols=3,
        rows=3,
    )
    house.note(house.event(promoted))
    house.note(house.event(promoted))
    assert house.ledger() == ["opened", "covered", "decided", "promoted"]
    lines = house.home.run("r1").audit.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["kind"] for line in lines] == ["opened", "covered", "decided", "promoted"]
    assert chain.verify_extract(lines) == []


def test_a_tampered_staged_file_blocks_and_is_named(house: House) -> None:
    house.start(THREE)
    *first, last = house.all_of(THREE)
    house.note(*first)
    (house.home.run("r1").staged_parts / "0.parquet").write_bytes(b"other rows")
    (decided,) = decisions(house.note(last))
    assert decided.decision == "blocked"
    assert "runs/r1/staged/0.parquet has other bytes" in decided.reason


def test_a_tampered_manifest_blocks_and_is_named(house: House) -> None:
    house.start(THREE)
    manifest = house.home.run("r1").manifest
    manifest.write_bytes(manifest.read_bytes().replace(b'"features": 0', b'"features": 9'))
    (decided,) = decisions(house.note(*house.all_of(THREE)))
    assert decided.decision == "blocked"
    assert "runs/r1/manifest.json has other bytes" in decided.reason


def test_a_tampered_artifact_blocks_once_and_asking_again_promotes(house: House) -> None:
    house.start(THREE, deadline_s=30)
    house.note(house.catalogued(*THREE), house.hydrated(*THREE))
    house.tick(30)
    house.note(house.rated(*THREE))
    coverage = house.home.run("r1").coverage
    coverage.write_bytes(b"")
    result, caused = house.command("promote")
    assert result.outcome == "refused"
    assert "feature_ingest_coverage.json is empty" in decisions(caused)[0].reason
    result, caused = house.command("promote")
    assert decisions(caused)[0].decision == "granted"


def test_a_broken_ledger_blocks_in_public_and_the_run_is_decided_once_it_is_mended(house: House) -> None:
    house.start(THREE)
    ledger = house.home.ledger
    sound = ledger.read_bytes()
    ledger.write_bytes(sound.replace(b'"expected":3', b'"expected":2'))
    events = house.note(*house.all_of(THREE))
    assert decisions(events)[0].decision == "blocked"
    assert "entry 1 at byte 0" in decisions(events)[0].reason
    assert [alert.labels["alertname"] for alert in alerts(events)] == ["LedgerBroken"]
    ledger.write_bytes(sound)
    (decided,) = decisions(house.tick(31))
    assert decided.decision == "granted"


def test_a_cut_tail_of_the_ledger_is_found_at_the_next_start(house: House) -> None:
    house.start(THREE)
    house.note(*house.all_of(THREE))
    lines = house.home.ledger.read_bytes().splitlines(keepends=True)
    house.home.ledger.write_bytes(b"".join(lines[:-1]))
    house.restart()
    (alert,) = alerts(house.tick())
    assert alert.labels["alertname"] == "LedgerBroken"
    assert "its tail was cut off" in alert.error


def test_dead_letters_name_their_symbols_at_once(house: House) -> None:
    import base64

    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated(*THREE))
    raw = house.hydrated(*THREE).to_json()
    letter = e.DeadLetter(
        origin="bars-hydrated",
        entry_id="5-0",
        group="features",
        consumer="c",
        deliveries=5,
        error=failure("integrity", "a segment is unreadable"),
        fields={base64.b64encode(b"data").decode(): base64.b64encode(raw).decode()},
        run_id="r1",
    )
    events = house.note(house.event(letter))
    assert decisions(events)[0].decision == "blocked"
    assert {gap.code for gap in house.coverage().gaps} == {"dead_letter"}
    assert "a segment is unreadable" in house.coverage().gaps[0].cause
    assert alerts(events)[0].labels["alertname"] == "DeadLetter"


def test_a_restart_publishes_a_decision_that_died_with_its_process(house: House) -> None:
    house.start(THREE)
    (lost,) = house.note(*house.all_of(THREE))
    house.restart()
    (again,) = house.tick()
    assert again == lost
    house.now += timedelta(seconds=5)
    assert house.tick() == []
    assert house.tick() == []
    house.restart()
    assert house.tick() == []


def test_refresh_takes_every_active_symbol_of_the_catalog(house: House) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    result, _ = house.command("refresh", run_id=None)
    assert result.outcome == "refused"
    house.home.lakehouse.mkdir(parents=True)
    instants, later = pa.timestamp("us", tz="UTC"), house.now + timedelta(days=9)
    rows = {
        "symbol": ["PSE:JFC", "PSE:JFC", "PSE:OLD", "PSE:SOON", "PSE:AC", "PSE:AC"],
        "active": [True, True, False, True, True, False],
        "valid_from": pa.array([T0, T0, T0, later, T0, later], instants),
        "valid_until": pa.array([T0, None, None, None, later, None], instants),
    }
    pq.write_table(pa.table(rows), house.home.symbols_export)
    result, (started,) = house.command("refresh", run_id=None, command_id="c-7")
    assert started.data.candidates == ["PSE:AC", "PSE:JFC"]
    assert started.data.stages == ("metadata",)
    assert result.references == {"run_id": "refresh-c-7", "symbols": 2}


def test_a_complete_run_waits_a_moment_for_the_report_of_its_last_attempt(house: House) -> None:
    import dataclasses

    house.desk = dataclasses.replace(house.desk, attempts_grace=timedelta(seconds=1))
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", "PSE:SM"), house.attempted(kind="metadata", fetched=3))
    assert house.tick(0.5) == []
    events = house.note(house.attempted(fetched=2, failed=1, failures={"PSE:BDO": failure()}))
    assert decisions(events)[0].decision == "blocked"
    assert house.coverage().attempts[0].kinds["bars"].fetched == 2

    house.start(THREE, run_id="r2")
    assert house.note(*house.all_of(THREE, "r2")) == []
    assert house.tick(0.9) == []
    assert decisions(house.tick(0.1))[0].decision == "granted"


def test_candidates_that_are_all_malformed_end_in_a_verdict_at_once(house: House) -> None:
    (decided,) = decisions(house.start([1, 2]))
    assert decided.decision == "blocked"
    assert [gap.symbol for gap in house.coverage().gaps] == ["#0", "#1"]
    assert house.command("retry")[0].outcome == "refused"


def test_what_was_granted_stands(house: House) -> None:
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", "PSE:SM"))
    waiver = {"stage": "bars", "reason": "never traded", "approver": "ben", "expires": "2022-01-31"}
    (granted,) = decisions(house.command("waive", symbols=["PSE:BDO"], **waiver)[1])
    house.tick(90 * 86_400)
    result, caused = house.command("promote")
    assert result.outcome == "done"
    assert decisions(caused) == [granted]


def test_an_auditor_that_died_while_it_wrote_the_artifact_takes_its_own_file_for_its_own(house: House) -> None:
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", "PSE:SM"))
    waiver = {"stage": "bars", "reason": "never traded", "approver": "ben", "expires": "2022-01-31"}

    class Died(BaseException):
        pass

    append = house.desk.ledger.append

    def dying(kind: str, **entry: Any) -> Any:
        if kind == "decided":
            raise Died
        return append(kind, **entry)

    house.desk.ledger.append = dying  # type: ignore[method-assign]
    with pytest.raises(Died):
        house.command("waive", command_id="w1", symbols=["PSE:BDO"], **waiver)
    house.restart()
    result, caused = house.command("waive", command_id="w1", symbols=["PSE:BDO"], **waiver)
    assert result.outcome == "done"
    assert [decided.decision for decided in decisions(caused)] == ["granted"]
