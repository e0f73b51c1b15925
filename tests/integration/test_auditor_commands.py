"""Retries, standing waivers, approvers: what people may ask of the auditor, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from services.auditor.adapters.keys import ApproverKeys, new_key, read_private_key, sign
from services.auditor.domain.waivers import Approvals, read_request, statement
from shared import events as e
from shared.errors import ContractError
from tests.integration.auditor_house import House, decisions, failure

THREE = ["PSE:JFC", "PSE:BDO", "PSE:SM"]
WAIVER = {"stage": "bars", "reason": "halted", "approver": "ben", "expires": "2022-01-31"}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


def blocked(house: House, run_id: str = "r1", **asked: object) -> None:
    """A run that misses the bars of BDO for good and the metadata of SM for now."""
    house.start(THREE, run_id=run_id, **asked)
    down = failure("http_503", "the upstream was away", retryable=True)
    house.note(house.catalogued("PSE:JFC", "PSE:BDO", run_id=run_id), house.no_metadata("PSE:SM", down, run_id=run_id))
    house.note(house.hydrated("PSE:JFC", "PSE:SM", run_id=run_id, failed={"PSE:BDO": failure()}))
    (decided,) = decisions(house.note(house.rated("PSE:JFC", "PSE:SM", run_id=run_id)))
    assert decided.decision == "blocked"


def orders(events: list[e.Event]) -> list[e.Command]:
    return [event.data for event in events if isinstance(event.data, e.Command)]


def test_retry_asks_again_for_what_failed_and_nothing_else(house: House) -> None:
    blocked(house)
    result, caused = house.command("retry")
    assert result.outcome == "done"
    (order,) = orders(caused)
    assert order.kind == "retry"
    assert (order.arguments["metadata"], order.arguments["bars"]) == (["PSE:SM"], ["PSE:BDO"])
    assert house.command("promote")[0].outcome == "refused"
    house.tick(1)
    house.note(house.catalogued("PSE:SM", version=2))
    (decided,) = decisions(house.note(house.hydrated(batch=7, failed={"PSE:BDO": failure()})))
    assert decided.decision == "blocked"
    coverage = house.coverage()
    assert coverage.round == 2
    assert [gap.symbol for gap in coverage.gaps] == ["PSE:BDO"]
    result, caused = house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    assert decisions(caused)[0].symbols == ("PSE:JFC", "PSE:SM")


def test_a_retry_counts_late_results_before_it_asks_for_anything_again(house: House) -> None:
    house.start(THREE, deadline_s=30)
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:BDO"), house.rated("PSE:JFC"))
    assert decisions(house.tick(30))[0].decision == "blocked"
    house.note(house.rated("PSE:BDO", batch=1))
    result, caused = house.command("retry")
    assert result.references["symbols"] == ["PSE:SM"]
    assert orders(caused)[0].arguments["bars"] == ["PSE:SM"]
    assert decisions(house.tick(3600))[-1].decision == "blocked"
    house.note(house.hydrated("PSE:SM", batch=2), house.rated("PSE:SM", batch=2))
    result, caused = house.command("retry")
    assert (result.outcome, result.references["symbols"]) == ("done", [])
    assert orders(caused) == []
    assert decisions(caused)[-1].symbols == tuple(THREE)


def test_a_strict_run_that_was_aborted_is_promoted_after_a_retry_of_what_failed(house: House) -> None:
    house.start(THREE[:2], strict=True)
    house.note(house.catalogued(*THREE[:2]))
    timeout = failure("timeout", "10 s without a byte", retryable=True)
    (decided,) = decisions(house.note(house.hydrated("PSE:JFC", failed={"PSE:BDO": timeout})))
    assert decided.reason == "the run is strict and 2 of 2 candidates have a gap"
    assert house.note(house.rated("PSE:JFC")) == []
    _, caused = house.command("retry")
    assert orders(caused)[0].arguments["bars"] == ["PSE:BDO"]
    house.tick(1)
    house.note(house.hydrated("PSE:BDO", batch=1))
    (decided,) = decisions(house.note(house.rated("PSE:BDO", batch=1)))
    assert (decided.decision, decided.symbols) == ("granted", tuple(THREE[:2]))


def test_the_auditors_own_order_is_not_taken_for_a_persons(house: House) -> None:
    blocked(house)
    _, caused = house.command("retry")
    order = next(event for event in caused if isinstance(event.data, e.Command))
    import asyncio

    from services.auditor.handlers import commands

    assert asyncio.run(commands.obey(order, desk=house.desk)) == []


def test_a_retry_that_nobody_answers_ends_at_its_own_deadline(house: House) -> None:
    blocked(house)
    house.command("retry")
    (decided,) = decisions(house.tick(63))
    assert decided.decision == "blocked"
    gaps = {gap.symbol: gap for gap in house.coverage().gaps}
    assert gaps["PSE:SM"].code == "silence"
    assert "before it was asked for again it had failed with http_503" in gaps["PSE:SM"].cause


def test_a_runs_waiver_is_carried_over_a_retry_where_its_gap_is_the_same(house: House) -> None:
    blocked(house)
    result, caused = house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    assert decisions(caused)[0].decision == "blocked"
    _, caused = house.command("retry")
    (order,) = orders(caused)
    assert (order.arguments["metadata"], order.arguments["bars"]) == (["PSE:SM"], [])
    house.tick(1)
    (decided,) = decisions(house.note(house.catalogued("PSE:SM", version=2)))
    assert decided.decision == "granted"
    assert list(decided.waivers) == result.references["waivers"]


def test_a_changed_staged_file_is_made_again_by_a_retry(house: House) -> None:
    house.start(THREE)
    *first, last = house.all_of(THREE)
    house.note(*first)
    (house.home.run("r1").staged_parts / "0.parquet").unlink()
    (decided,) = decisions(house.note(last))
    assert "runs/r1/staged/0.parquet is missing" in decided.reason
    _, caused = house.command("retry")
    (order,) = orders(caused)
    assert order.arguments["bars"] == THREE
    house.tick(1)
    house.note(house.hydrated(*THREE, batch=1))
    (decided,) = decisions(house.note(house.rated(*THREE, batch=1)))
    assert decided.decision == "granted"
    assert [ref.path for ref in decided.staged] == ["runs/r1/staged/1.parquet"]


def test_rows_of_two_versions_of_the_rules_do_not_go_in_together(house: House) -> None:
    house.start(THREE)
    house.note(house.catalogued(*THREE), house.hydrated(*THREE), house.rated("PSE:JFC", "PSE:BDO"))
    newer = e.Rules(name="screener", version="2")
    (decided,) = decisions(house.note(house.rated("PSE:SM", batch=1, rules=newer)))
    assert decided.reason == "ratings were staged by different rules: screener 1, screener 2"
    _, caused = house.command("retry")
    assert orders(caused)[0].arguments["bars"] == ["PSE:JFC", "PSE:BDO"]
    house.tick(1)
    (decided,) = decisions(house.note(house.rated("PSE:JFC", "PSE:BDO", batch=2, rules=newer)))
    assert decided.decision == "granted"
    assert decided.rules == newer


def test_a_granted_run_is_neither_retried_nor_waived(house: House) -> None:
    house.start(THREE)
    house.note(*house.all_of(THREE))
    assert house.command("retry")[0].outcome == "refused"
    assert house.command("waive", symbols=["PSE:BDO"], **WAIVER)[0].outcome == "refused"


def test_a_standing_waiver_holds_for_every_run_until_it_expires(house: House) -> None:
    no_code, _ = house.command("waive", None, symbols=["PSE:BDO"], **WAIVER)
    assert "has to name the error code" in no_code.message
    preview, _ = house.command("waive", None, symbols=["PSE:BDO"], code="no_bars", preview=True, **WAIVER)
    assert (preview.outcome, "waived" in house.ledger()) == ("refused", False)
    result, _ = house.command("waive", None, symbols=["PSE:BDO"], code="no_bars", **WAIVER)
    assert result.outcome == "done"
    for run_id, decision in (("r1", "granted"), ("r2", "blocked")):
        house.start(THREE, run_id=run_id)
        house.note(house.catalogued(*THREE, run_id=run_id))
        house.note(house.hydrated("PSE:JFC", "PSE:SM", run_id=run_id, failed={"PSE:BDO": failure()}))
        (decided,) = decisions(house.note(house.rated("PSE:JFC", "PSE:SM", run_id=run_id)))
        assert decided.decision == decision
        house.tick(60 * 86_400)


def test_a_waiver_of_another_run_code_or_stage_does_not_count(house: House) -> None:
    house.command("waive", None, symbols=["PSE:BDO"], code="toxic", **WAIVER)
    blocked(house)
    house.command("waive", "r1", symbols=["PSE:BDO"], **WAIVER)
    blocked(house, "r2")
    assert [gap.symbol for gap in house.coverage("r2").waived] == []


def test_two_approvers_are_two_people_and_neither_asked_for_the_run(house: House) -> None:
    house.desk = dataclasses.replace(house.desk, approvals=Approvals(needed=2))
    house.start(THREE, requested_by="ana")
    house.note(house.catalogued(*THREE), house.hydrated("PSE:JFC", "PSE:SM", failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", "PSE:SM"))
    for approver, decision in (("ben", "blocked"), ("ben", "blocked"), ("ana", "blocked"), ("cleo", "granted")):
        _, caused = house.command("waive", symbols=["PSE:BDO"], **{**WAIVER, "approver": approver})
        assert decisions(caused)[0].decision == decision
    assert house.coverage().waived[0].approvers == ("ana", "ben", "cleo")


def test_with_keys_a_waiver_counts_only_with_its_approvers_signature(house: House, tmp_path: Path) -> None:
    private, public = new_key()
    other, _ = new_key()
    key_file, other_file = tmp_path / "ben.key", tmp_path / "other.key"
    for file, text in ((key_file, private), (other_file, other)):
        file.write_text(text)
        file.chmod(0o600)
    approvers = tmp_path / "approvers.toml"
    approvers.write_text(f'[approvers]\nben = "{public}"\n')
    house.desk = dataclasses.replace(house.desk, approvers=ApproverKeys.read(approvers))
    blocked(house)
    arguments = {"symbols": ["PSE:BDO"], **WAIVER}
    evidence = house.coverage().evidence_sha256

    def signed(by: Path, **changes: object) -> str:
        request = read_request({**arguments, **changes})
        return sign(read_private_key(by), statement(request, run_id="r1", evidence_sha256=evidence))

    assert "is not signed" in house.command("waive", **arguments)[0].message
    wrong_key = house.command("waive", **arguments, signature=signed(other_file))[0]
    assert "is not 'ben''s" in wrong_key.message
    changed = house.command("waive", **arguments, signature=signed(key_file, reason="something else"))[0]
    assert changed.outcome == "refused"
    stranger = house.command("waive", **{**arguments, "approver": "eve"}, signature=signed(key_file))[0]
    assert "'eve' is no approver here" in stranger.message
    done, _ = house.command("waive", **arguments, signature=signed(key_file))
    assert done.outcome == "done"
    assert "not verified" not in done.message
    assert house.coverage().waived[0].verified
    blocked(house, "r2")
    reused = house.command("waive", "r2", **arguments, signature=signed(key_file))[0]
    assert (reused.outcome, "over this waiver" in reused.message) == ("refused", True)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(new_key()[0])
    file.chmod(0o644)
    with pytest.raises(ContractError, match="chmod 600"):
        read_private_key(file)


def test_commands_of_others_are_left_to_them(house: House) -> None:
    assert house.command("retire", None, symbols=["PSE:JFC"]) == (None, [])


@pytest.mark.parametrize("kind", ["waive", "promote", "retry", "report"])
def test_a_run_that_is_unknown_or_open_is_refused_by_name(house: House, kind: str) -> None:
    arguments = {"symbols": ["PSE:BDO"], **WAIVER} if kind == "waive" else {}
    result, _ = house.command(kind, "nope", **arguments)
    assert (result.outcome, "there is no run 'nope'" in result.message) == ("refused", True)
    house.start(THREE)
    result, _ = house.command(kind, "r1", **arguments)
    assert (result.outcome, "run r1 is still open" in result.message) == ("refused", True)


def test_a_command_delivered_twice_does_one_thing(house: House) -> None:
    blocked(house)
    first = house.command("waive", command_id="w1", symbols=["PSE:BDO"], **WAIVER)
    entries = house.ledger()
    assert house.command("waive", command_id="w1", symbols=["PSE:BDO"], **WAIVER) == first
    again = house.command("retry", command_id="x1")
    assert house.command("retry", command_id="x1") == again
    assert house.ledger() == [*entries, "reopened"]
