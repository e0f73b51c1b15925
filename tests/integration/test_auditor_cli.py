"""What the person on duty does, by the commands themselves, in a house of real processes on a real server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import asof.cli
from asof import Lakehouse
from asof.cli.reproducing import reproduce
from services.auditor import new_key
from services.features.adapters.adjustments import LakehouseAdjustments
from shared.paths import Home
from shared.tables import Changes, NewSegment, open_table
from tests.e2e.conftest import AS_OF, ROOT, House

pytestmark = pytest.mark.timeout(120)

TWO = ["PSE:JFC", "PSE:BDO"]
UNKNOWN = "PSE:NOSUCH"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Every service runs; the run `silent` was closed by its deadline while there was no fetcher."""
    house = House(tmp_path_factory.mktemp("house"), tmp_path_factory.mktemp("cache"))
    try:
        house.server()
        house.replay()
        house.services("catalog", "features", "auditor")
        house.publish(candidates=TWO, as_of=AS_OF, run_id="silent", deadline_s=1)
        house.verdict("silent")
        house.service("fetcher")
        yield house
    finally:
        house.close()


@pytest.fixture(scope="module")
def promoted(house: House) -> House:
    """The run `whole` is promoted, from other bars than the run `silent` promotes after it."""
    house.publish(candidates=TWO, as_of="2021-12-14T08:00:00Z", run_id="whole")
    house.verdict("whole")
    house.wait(lambda: answer(house, "show", "whole")["promoted_version"], "the promotion")
    return house


def blocked(house: House, run_id: str) -> dict[str, Any]:
    """A run that lacks a symbol which the upstream does not know."""
    house.publish(candidates=[*TWO, UNKNOWN], as_of=AS_OF, run_id=run_id)
    verdict = house.verdict(run_id)
    assert verdict["decision"] == "blocked"
    return verdict


def printed(house: House | SimpleNamespace, *arguments: str, code: int = 0) -> str:
    """What the command says, by the door of the `asof` program but without a process of its own, which is slow."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        for name in [name for name in os.environ if name.startswith("ASOF_")]:
            patch.delenv(name)
        for name, value in house.environment.items():
            patch.setenv(name, value)
        ended = asof.cli.run(arguments)
    assert ended == code, f"exit {ended}: {said.getvalue()}"
    return said.getvalue()


def answer(house: House | SimpleNamespace, *arguments: str, code: int = 0) -> Any:
    """The JSON that the command prints."""
    return json.loads(printed(house, *arguments, "--json", code=code))


def in_a_process(house: House, *arguments: str, code: int = 0) -> str:
    """What the program says; for commands that set up logging for the rest of their process."""
    ended = subprocess.run(
        [sys.executable, "-m", "asof", *arguments],
        cwd=ROOT, env=house.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == code, f"exit {ended.returncode}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@contextmanager
def changed(path: Path, old: bytes, new: bytes) -> Iterator[None]:
    original = path.read_bytes()
    assert old in original
    path.write_bytes(original.replace(old, new))
    yield
    path.write_bytes(original)


def test_a_dead_service_is_an_alert_and_the_retry_that_it_names_promotes_the_run(promoted: House) -> None:
    house = promoted
    (alert,) = [row for row in answer(house, "alerts") if row["labels"].get("code") == "silence"]
    assert alert["annotations"]["symbols"].split() == TWO
    assert "the fetcher said nothing" in alert["error"]
    assert alert["next_command"] == "asof retry silent"
    verdict = answer(house, *alert["next_command"].split()[1:])
    assert (verdict["decision"], verdict["covered"]) == ("granted", 1.0)
    assert verdict["promoted_version"] > 1
    assert [row for row in answer(house, "alerts") if row["run_id"] == "silent"] == []
    ended = [row for row in answer(house, "alerts", "--all") if row["run_id"] == "silent"]
    assert {row["status"] for row in ended} == {"resolved"}
    # Nothing is left that could be asked for again.
    refused = answer(house, "retry", "silent", code=3)
    assert refused["outcome"] == "refused"
    assert "its promotion is granted" in refused["message"]


def test_alerts_are_read_acknowledged_and_silenced(house: House) -> None:
    blocked(house, "noisy")
    text = printed(house, "alerts")
    assert f"FIRING  1 symbol of run noisy failed at metadata (unknown_symbol): {UNKNOWN}" in text
    assert f"next        asof waive noisy --symbol {UNKNOWN} --stage metadata" in text
    first, second = [row for row in answer(house, "alerts") if row["run_id"] == "noisy"]
    answer(house, "alerts", "ack", first["fingerprint"][:10])
    until = "2099-01-01T00:00:00Z"
    answer(house, "alerts", "silence", second["fingerprint"], "--until", until, "--reason", "we know")
    answer(house, "alerts", "silence", "--label", "stage=nowhere", "--until", until)
    rows = {row["fingerprint"]: row for row in answer(house, "alerts")}
    assert rows[first["fingerprint"]]["acknowledged_by"]
    assert rows[first["fingerprint"]]["silenced_until"] is None
    assert rows[second["fingerprint"]]["silenced_until"] == until
    assert f"silent      until {until}" in printed(house, "alerts")


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("alerts", "ack", "nonsense"), 3, "no alert that lasts"),
        (("alerts", "silence", "--until", "2001-01-01", "-l", "stage=bars"), 3, "has passed"),
        (("alerts", "silence", "--until", "2099-01-01"), 3, "would hold back every alert"),
        (("alerts", "silence", "--until", "2099-01-01", "-l", "stage"), 2, "'stage' is no label"),
        (("alerts", "silence"), 2, "--until"),
        (("retry", "nope"), 3, "there is no run 'nope'"),
        (("rollback", "--to", "99"), 3, "99"),
        (("promote", "nope"), 3, "there is no run 'nope'"),
        (("promote", "silent", "--force"), 2, "No such option"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason_and_its_exit_code(
    house: House, arguments: tuple[str, ...], code: int, what: str
) -> None:
    assert what in json.dumps(answer(house, *arguments, code=code))


def test_a_waiver_is_previewed_given_listed_and_lets_the_rest_in(house: House) -> None:
    blocked(house, "waived")
    waiver = ["--symbol", UNKNOWN, "--stage", "metadata", "--reason", "halted", "--approver", "ben"]
    terms = [*waiver, "--expires", "2099-01-31"]
    preview = answer(house, "waive", "waived", *terms, "--preview")
    assert preview["references"]["decision"] == "granted"
    assert answer(house, "waivers", "waived") == []
    expired = answer(house, "waive", "waived", *waiver, "--expires", "2001-01-01", code=3)
    assert "expired" in expired["message"]
    done = answer(house, "waive", "waived", *terms)
    assert "not verified" in done["message"]
    (row,) = answer(house, "waivers", "waived")
    assert (row["symbol"], row["approver"], row["verified"], row["expired"]) == (UNKNOWN, "ben", False, False)
    assert answer(house, "waivers", "another") == []
    text = printed(house, "waivers")
    assert f"metadata: unknown_symbol  in run waived, 1 symbol\n  {UNKNOWN}\n" in text
    assert "reason      halted" in text
    assert "ben (the name is not verified)" in text
    verdict = answer(house, "show", "waived")
    assert (verdict["decision"], verdict["covered_with_waivers"]) == ("granted", 1.0)
    assert verdict["covered"] < 1


def test_with_keys_two_people_sign_and_a_standing_waiver_holds_for_the_next_run(tmp_path: Path) -> None:
    house = House(tmp_path, tmp_path)
    keys = {}
    for name in ("ben", "cleo"):
        private, keys[name] = new_key()
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(private)
    approvers = tmp_path / "approvers.toml"
    approvers.write_text("[approvers]\n" + "\n".join(f'{name} = "{key}"' for name, key in keys.items()))
    house.environment |= {"ASOF_AUDITOR_APPROVERS_FILE": str(approvers), "ASOF_AUDITOR_APPROVALS": "2"}
    waiver = ["--symbol", TWO[0], "--stage", "metadata", "--reason", "halted", "--expires", "2099-01-31"]

    def sign(*where: str, by: str, key: str, code: int = 0) -> str:
        done = answer(house, "waive", *where, *waiver, "--approver", by, "--key", str(tmp_path / key), code=code)
        return str(done["message"])

    try:
        house.server()
        house.service("auditor")  # and nobody else, so that every run ends in silence
        house.publish(candidates=TWO[:1], stages=["metadata"], run_id="r1", deadline_s=0.5, requested_by="ana")
        house.verdict("r1")
        assert "is not signed" in answer(house, "waive", "r1", *waiver, "--approver", "ben", code=3)["message"]
        assert "is not 'cleo''s" in sign("r1", by="cleo", key="ben", code=3)
        assert "blocked: 0 of 1 covered" in sign("r1", by="ben", key="ben")
        assert "granted: 0 of 1 covered, the other 1 waived" in sign("r1", by="cleo", key="cleo")
        signed = {(row["approver"], row["verified"]) for row in answer(house, "waivers")}
        assert signed == {("ben", True), ("cleo", True)}

        for name in keys:
            assert "1 standing waivers until 2099" in sign("--code", "silence", by=name, key=name)
        house.publish(candidates=TWO[:1], stages=["metadata"], run_id="r2", deadline_s=0.5)
        assert house.verdict("r2")["decision"] == "granted"
        assert "every run" in printed(house, "waivers")
    finally:
        house.close()


def test_a_run_is_reproduced_cell_by_cell_and_a_changed_input_is_named(promoted: House) -> None:
    house = promoted
    lake = Lakehouse(house.home.root)
    found = house.asof("reproduce", "whole")
    assert found["reproduced"]
    assert (found["symbols"], found["differing_cells"]) == (2, 0)
    assert found["rows_in_both"] > 400

    # What the run was rated by is changed: the first differing rows are shown.
    record = house.home.run("whole").staged_parts / "run.json"
    with changed(record, b'"as_of": "2021-12-14', b'"as_of": "2021-12-10'):
        text = in_a_process(house, "reproduce", "whole", code=5)
        assert "DIFFERS  run whole" in text
        assert f"{TWO[0]}  2021-12-13 00:00  local  only staged" in text

    # So are the bars: the run names their version and their hash.
    segment = max(house.home.bars_table("1d", TWO[0]).rglob("*.parquet"), key=lambda path: path.stat().st_size)
    with changed(segment, segment.read_bytes()[200:208], b"tampered"):
        differs = reproduce(lake, "whole")
        assert list(differs.unusable) == [TWO[0]]
        assert not differs.reproduced

    # A split that somebody recorded since then is not what the run knew.
    closes = lake.bars(TWO[0])["close"]
    day = closes.pct_change().abs().idxmax()
    book = LakehouseAdjustments(house.home)
    factor = closes[day] / closes.shift()[day]
    book.record(TWO[0], day.date(), float(factor), recorded_by="ben", reason="a test of what a run knew")
    assert reproduce(lake, "whole").reproduced
    book.withdraw(TWO[0], day.date(), recorded_by="ben", reason="the test is over")

    # And the artifact that pins them all.
    with changed(house.home.run("whole").coverage, b'"table_version": 1', b'"table_version": 2'):
        error = house.asof("reproduce", "whole", code=5)["error"]
        assert error["what"] == "the coverage artifact is not the one that was decided on"
    assert reproduce(lake, "whole").reproduced


def test_two_versions_are_compared_and_a_rollback_brings_the_older_one_back(promoted: House) -> None:
    house = promoted
    later = {"candidates": [*TWO, "PSE:SM"], "as_of": AS_OF, "run_id": "wider"}
    house.publish(**later)
    house.verdict("wider")
    version = house.wait(lambda: answer(house, "show", "wider")["promoted_version"], "the promotion")
    found = answer(house, "diff", "whole", "wider")
    assert (found["a"]["version"], found["a"]["run_id"]) == (1, "whole")
    assert (found["b"]["version"], found["b"]["run_id"]) == (version, "wider")
    assert "PSE:SM" in found["symbols"]["added"]
    assert found["symbols"]["removed"] == []
    # One more bar of each of the two, and nothing of the others rewritten.
    assert (found["rows_only_a"], found["rows_only_b"], found["differing_cells"]) == (0, 2, 0)
    text = printed(house, "diff", "1", "prod")
    assert "2 only b" in text

    back = answer(house, "rollback", "--to", "1", "--reason", "wrong bars upstream")
    assert back["references"] == {"version": version + 1, "equals": 1}
    assert answer(house, "diff", "1", "@prod")["symbols"] == {"added": [], "removed": [], "changed": 0, "same": 2}
    stated = f"{version + 1}".encode()
    export = house.home.features_export
    house.wait(lambda: pq.read_schema(export).metadata[b"asof.version"] == stated, "the plain file to follow")
    assert answer(house, "audit", "ledger")["violations"] == []
    entries = [json.loads(line) for line in house.home.ledger.read_bytes().splitlines()]
    (entry,) = [entry for entry in entries if entry["kind"] == "rolled_back"]
    assert (entry["data"]["to"], entry["data"]["reason"]) == (1, "wrong bars upstream")
    assert answer(house, "diff", "1", "99", code=2)["error"]["what"]
    assert answer(house, "diff", "1", "nope", code=2)["error"]["next"] == "asof runs"


def test_a_diff_shows_each_cell_that_changed_and_the_rows_of_one_side(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    table = open_table(home.features_table("1d", "screener"))

    def promote(run_id: str, **ratings: list[float]) -> None:
        days = [datetime(2021, 12, day, tzinfo=UTC) for day in (13, 14, 15)]
        rows = [
            {"symbol": f"PSE:{name}", "ts": day, "recommend_all": value, "rsi": None, "source": "local"}
            for name, values in ratings.items()
            for day, value in zip(days, values, strict=False)
        ]
        segment = NewSegment(pa.Table.from_pylist(rows), tuple(f"PSE:{name}" for name in ratings))
        table.commit(table.load().version, Changes(append=(segment,)), meta={"run_id": run_id, "catalog_version": 7})

    promote("first", A=[0.1, 0.2], B=[0.5, 0.5], C=[0.3])
    promote("second", A=[0.1, -0.4, 0.6], D=[1.0])
    house = SimpleNamespace(environment={"ASOF_HOME": str(tmp_path)})
    found = answer(house, "diff", "1", "2")
    assert found["symbols"] == {"added": ["PSE:D"], "removed": [], "changed": 1, "same": 2}
    assert (found["differing_cells"], found["differing_columns"]) == (1, {"recommend_all": 1})
    assert (found["rows_in_both"], found["rows_only_a"], found["rows_only_b"]) == (2, 0, 1)
    text = printed(house, "diff", "1", "2")
    assert "a  version 1: run first, 3 symbols, catalog version 7" in text
    assert "PSE:A  2021-12-14 00:00  local  recommend_all  a 0.2  b -0.4" in text
    assert "PSE:A  2021-12-15 00:00  local  only b" in text
    assert answer(house, "diff", "2", "1")["symbols"]["removed"] == ["PSE:D"]
    assert "0 changed, 4 the same" in printed(house, "diff", "2", "2")


def test_without_a_house_or_a_server_the_reason_and_the_next_command_are_said(tmp_path: Path) -> None:
    environment = {"ASOF_HOME": str(tmp_path / "none"), "ASOF_REDIS_URL": "redis://127.0.0.1:1/0"}
    nowhere = SimpleNamespace(environment=environment)
    error = answer(nowhere, "waivers", code=2)["error"]
    assert "there is no house" in error["what"]
    error = answer(nowhere, "retry", "r1", code=6)["error"]
    assert (error["retryable"], error["next"]) == (True, "asof doctor")
