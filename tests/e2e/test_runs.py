"""Runs as their users meet them: event in, verdict out, over real processes, a real Redis and real HTTP."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import duckdb
import pandas as pd
import pytest

from asof import Lakehouse
from shared.bus.tracing import trace_of_run
from shared.streams import SERVICES
from shared.tables import open_table
from tests.e2e.conftest import AS_OF, House

pytestmark = pytest.mark.timeout(180)

SYMBOLS = ["PSE:JFC", "PSE:BDO", "PSE:SM"]


@pytest.fixture
def running(house: House) -> House:
    house.services()
    return house


def test_a_bare_payload_starts_one_run_on_which_all_services_agree(running: House):
    entry_id = running.publish(candidates=SYMBOLS, as_of=AS_OF)
    verdict = running.verdict(entry_id)
    assert (verdict["decision"], verdict["covered"], verdict["expected"]) == ("granted", 1.0, 3)
    assert running.wait(lambda: running.asof("show", entry_id)["promoted_version"], "the promotion") == 1
    run = running.home.run(entry_id)
    running.wait(lambda: run.metadata.exists() and run.features.exists(), "the run's files")
    assert sorted(pd.read_parquet(run.metadata)["symbol"]) == sorted(SYMBOLS)

    # The same payload tomorrow is another run; it finds the bars that are stored.
    again = running.publish(candidates=SYMBOLS, as_of=AS_OF)
    assert again != entry_id
    assert running.verdict(again)["decision"] == "granted"


def test_flat_fields_and_an_object_with_unreadable_items_run_too(running: House):
    running.redis().xadd("run-candidates", {"candidates": '["PSE:JFC", 5, {"x": 1}]', "run_id": "flat", "as_of": AS_OF})
    verdict = running.verdict("flat")
    assert verdict["decision"] == "blocked"
    assert [(gap["symbol"], gap["stage"]) for gap in verdict["gaps"]] == [("#1", "candidates"), ("#2", "candidates")]


def test_a_run_is_one_trace_through_all_four_services_that_a_person_can_read(house: House):
    house.environment["ASOF_BUS_TRACES"] = "true"
    house.services()
    house.publish(candidates=SYMBOLS, as_of=AS_OF, run_id="traced")
    assert house.verdict("traced")["decision"] == "granted"
    house.wait(lambda: house.asof("show", "traced")["promoted_version"], "the promotion")
    for name in SERVICES:  # which write their last spans when they stop
        house.stop(name)

    rows = [json.loads(line) for file in house.home.state.glob("*/traces/*.jsonl") for line in file.open()]
    own = [row for row in rows if row["attributes"]["asof.run_id"] == "traced"]
    assert {row["trace"] for row in own} == {trace_of_run("traced")}
    assert {row["attributes"]["asof.service"] for row in own} == set(SERVICES)

    spans = house.asof("show", "traced", "--trace")
    assert {span["id"] for span in spans} == {row["span"] for row in own}
    by_id = {span["id"]: span for span in spans}

    def causes(span: dict[str, Any]) -> list[str]:
        cause = by_id.get(span["parent"])
        return [f"{span['service']} {span['stream']}", *(causes(cause) if cause else [])]

    chains = {chain[0]: chain for chain in map(causes, spans)}
    # Back to the candidates through everybody's hands: that is what one trace is for.
    fetched = ["fetcher fetch-tasks", "fetcher run-candidates"]
    assert chains["auditor ratings-computed"][1:] == ["features bars-hydrated", *fetched]
    assert chains["auditor catalog-updated"][1:] == ["catalog symbol-metadata", *fetched]
    assert {"features promotion-decided", "catalog promotion-decided"} <= chains.keys()
    drawn = house.text("show", "traced", "--trace")
    for service in SERVICES:
        assert re.search(rf"^ *{service} [a-z-]+ +[\d,]+ +[\d,.]+ ms +█", drawn, re.MULTILINE), drawn


def test_the_same_run_id_with_other_content_is_refused_and_the_first_run_stands(running: House):
    running.publish(candidates=SYMBOLS[:1], as_of=AS_OF, run_id="taken")
    assert running.verdict("taken")["decision"] == "granted"
    running.publish(candidates=SYMBOLS[:2], as_of=AS_OF, run_id="taken")
    refused = running.wait(
        lambda: [letter for letter in running.dead_letters() if letter["group"] == "auditor"], "a refusal"
    )
    assert "exists with other content" in refused[0]["error"]["message"]
    assert running.asof("show", "taken")["expected"] == 1


def test_two_runs_at_once_keep_what_each_of_them_saw(running: House):
    overlapping = {"left": (SYMBOLS[:2], 0.1), "right": (SYMBOLS[1:], -0.25)}
    for run_id, (symbols, rating) in overlapping.items():
        candidates = [{"symbol": symbol, "metadata": {"Recommend.All": rating}} for symbol in symbols]
        running.publish(candidates=candidates, as_of=AS_OF, run_id=run_id)
    for run_id, (symbols, rating) in overlapping.items():
        assert running.verdict(run_id)["decision"] == "granted"
        run = running.home.run(run_id)
        running.wait(lambda run=run: run.metadata.exists() and run.features.exists(), "the run's files")
        seen = pd.read_parquet(run.metadata)
        assert sorted(seen["symbol"]) == sorted(symbols)
        rows = pd.read_parquet(run.features)
        assert set(rows["symbol"]) == set(symbols)
        shown = rows[rows["source"] == "screener"]
        assert dict(zip(shown["symbol"], shown["recommend_all"], strict=True)) == dict.fromkeys(symbols, rating)


@pytest.mark.parametrize("victim", SERVICES)
def test_a_service_killed_in_the_middle_of_a_run_and_started_again_completes_it(house: House, victim: str):
    house.services(*(name for name in SERVICES if name != victim))
    run_id = house.publish(candidates=[*SYMBOLS, "PSE:AC", "PSE:ALI"], as_of=AS_OF)
    process = house.service(victim)
    # As soon as it has taken something into its hands, it dies.
    house.wait(lambda: any_delivered(house, victim) or process.poll() is not None, f"{victim} to begin")
    house.kill(victim)
    house.service(victim)
    verdict = house.verdict(run_id)
    assert (verdict["decision"], verdict["covered"]) == ("granted", 1.0)
    assert house.wait(lambda: house.asof("show", run_id)["promoted_version"], "the promotion") == 1


def any_delivered(house: House, service: str) -> bool:
    from shared.streams import consumed_by

    client = house.redis()
    for stream in consumed_by(service):
        if client.exists(stream):
            for group in client.xinfo_groups(stream):
                if group["name"].decode() == service and group["entries-read"]:
                    return True
    return False


def test_silence_of_a_stopped_service_becomes_named_gaps_an_alert_and_a_blocked_run(house: House):
    house.services("fetcher", "catalog", "auditor")
    house.publish(candidates=SYMBOLS, as_of=AS_OF, run_id="silent", deadline_s=6)
    verdict = house.verdict("silent", timeout_s=30)
    assert verdict["decision"] == "blocked"
    assert {(gap["symbol"], gap["stage"], gap["code"]) for gap in verdict["gaps"]} == {
        (symbol, "validation", "silence") for symbol in SYMBOLS
    }
    coverage = json.loads(house.home.run("silent").coverage.read_text())
    assert sum(1 for symbol in coverage["expected"] if symbol in coverage["outcomes"]) == len(SYMBOLS)
    alerts = house.wait(lambda: house.redis().xrange("alerts"), "an alert")
    fired = [json.loads(fields[b"data"])["data"] for _, fields in alerts]
    assert any("silent" in json.dumps(alert) and alert["status"] == "firing" for alert in fired)


BAD = [
    (b"{", "JSON"),
    (b"[]", "no JSON object"),
    (b'{"candidates": []}', "empty"),
    (b"{}", "asof refresh"),
    (b'{"candidates": ["PSE:JFC"], "surprise": 1}', "surprise"),
    (b'{"candidates": ["PSE:JFC"], "run_id": "a/b"}', "run_id"),
    (b'{"candidates": ["PSE:JFC"], "deadline_s": "soon"}', "deadline_s"),
    (b"x" * (10 << 20), "bytes"),
    (b"[" * 50_000, "JSON"),
]


def test_bad_input_is_dead_lettered_with_the_reason_and_stops_nothing_else(running: House):
    client = running.redis()
    for raw, _ in BAD:
        client.xadd("run-candidates", {"data": raw})
    client.xadd("symbol-metadata", {"data": b'{"symbol": "../../etc/passwd"}'})
    client.xadd("run-candidates", {"surprise": b"1"})
    after = running.publish(candidates=["PSE:JFC", "../../etc/passwd", "PSE:../../etc/passwd"], as_of=AS_OF)
    verdict = running.verdict(after)
    outcomes = {gap["symbol"]: gap["stage"] for gap in verdict["gaps"]}
    assert outcomes == {"#1": "candidates", "PSE:../../etc/passwd": "metadata"}
    by_entry: dict[str, dict[str, str]] = {}
    for letter in running.dead_letters():
        by_entry.setdefault(letter["entry_id"], {})[letter["group"]] = letter["error"]["message"]
    entries = client.xrange("run-candidates")
    for (entry_id, _), (raw, words) in zip(entries, BAD, strict=False):
        assert words in by_entry[entry_id.decode()]["auditor"], raw[:60]
    running.wait(
        lambda: all(group["pending"] == 0 for group in client.xinfo_groups("run-candidates")), "nothing pending"
    )
    assert not list(running.home.root.parent.glob("**/passwd"))


def test_pandas_and_duckdb_open_every_file_that_a_run_leaves(running: House):
    run_id = running.publish(candidates=SYMBOLS, as_of=AS_OF)
    running.verdict(run_id)
    export = running.home.features_export
    running.wait(lambda: export.exists() and running.home.run(run_id).features.exists(), "the exports")
    running.wait(lambda: running.home.symbols_export.exists(), "the symbols export")
    files = list(running.home.root.glob("**/*.parquet"))
    assert len(files) > 8
    for file in files:
        assert len(pd.read_parquet(file)) == duckdb.sql(f"select count(*) from read_parquet('{file}')").fetchall()[0][0]
    matrix = pd.read_parquet(export)
    assert isinstance(matrix.index, pd.DatetimeIndex)
    assert str(matrix.index.tz) == "UTC"
    assert matrix.columns.nlevels == 2
    assert ("PSE:JFC", "recommend_all") in matrix.columns


def test_dead_letters_are_looked_at_put_back_once_and_dropped_with_a_reason(house: House):
    house.services("features", "auditor")
    client = house.redis()
    client.xadd("run-candidates", {"data": b'{"candidates": ["PSE:JFC"], "surprise": 1}'})
    house.wait(lambda: len(house.asof("dead-letters")) == 2, "a letter of each service")
    letters = house.asof("dead-letters")
    assert {letter["service"] for letter in letters} == {"features", "auditor"}
    shown = house.asof("dead-letters", "show", letters[0]["id"])
    assert "surprise" in shown["error"]["message"]
    assert "surprise" in shown["entry"]["data"]

    # Two services gave up on one entry: it is put back once, and both give up again.
    assert len(house.asof("dead-letters", "replay", "--all")["replayed"]) == 2
    assert client.xlen("run-candidates") == 2
    house.wait(lambda: len(house.asof("dead-letters")) == 2, "the letters of the replay")
    again = [letter["id"] for letter in house.asof("dead-letters")]
    assert len(house.asof("dead-letters", "--all")) == 4
    assert house.asof("dead-letters", "drop", *again, "--reason", " ", code=2)["error"]["next"]
    house.asof("dead-letters", "drop", *again, "--reason", "a typing error")
    assert house.asof("dead-letters") == []


def test_make_ingests_and_refreshes_metadata(running: House):
    file = running.home.root / "candidates.json"
    file.write_text(json.dumps({"meta": {}, "data": [{"physical_symbol": "PSE:JFC"}, "PSE:BDO"]}))
    running.make("meta-ingest", f"CANDIDATES_FILE={file}", "WORKERS=2")
    assert sorted(record["symbol"] for record in running.asof("runs")[0]["gaps"]) == []
    assert running.asof("get", "PSE:JFC")["currency"] == "PHP"
    running.make("meta-refresh", "WORKERS=2")
    assert [run["expected"] for run in running.asof("runs")] == [2, 2]


def test_a_split_symbol_passes_once_its_split_is_recorded_and_the_run_is_retried(running: House):
    running.publish(candidates=["PSE:PA", "PSE:JFC"], as_of=AS_OF, run_id="split", stages=["bars", "ratings"])
    blocked = running.verdict("split")
    assert [(gap["symbol"], gap["code"]) for gap in blocked["gaps"]] == [("PSE:PA", "toxic")]
    # A waiver would accept that it is missing; a record of what happened lets it in.
    wrong = running.asof("adjust", "PSE:PA", "--date", "2019-12-04", "--reason", "a split", code=3)
    assert "factor" in wrong["message"]
    running.asof("adjust", "PSE:PA", "--date", "2019-12-04", "--factor", "100", "--reason", "reverse split, 100 into 1")
    running.asof("retry", "split")
    granted = running.verdict("split")
    assert (granted["decision"], granted["covered"]) == ("granted", 1.0)
    running.wait(lambda: running.home.features_export.exists(), "the export")
    matrix = pd.read_parquet(running.home.features_export)
    assert "PSE:PA" in matrix.columns.get_level_values("symbol")


def test_a_strict_run_ends_at_a_symbol_that_fails_validation_with_exit_code_3_and_says_which_and_why(running: House):
    file = running.home.root / "candidates.json"
    file.write_text(json.dumps(["PSE:JFC", "PSE:PA"]))  # PSE:PA: a split that nobody has recorded
    asked = ("run", str(file), "--strict", "--stages", "bars,ratings", "--as-of", AS_OF)
    printed = " ".join(running.text(*asked, "--run-id", "strict", code=3).split())
    assert "fatal: the run is strict and PSE:PA failed: close went from 0.038 to 6.51 on 2019-12-04" in printed
    assert "next: asof waive strict --symbol PSE:PA --stage validation" in printed
    assert "PSE:JFC next: asof retry strict" in printed
    assert "BLOCKED the run is strict and 2 of 2 candidates have a gap" in printed
    log = (running.home.root.parent / "features.log").read_text()
    assert re.search(r"critical.*strict_run_aborted.*PSE:PA", log), log[-2000:]
    assert not running.home.features_export.exists()

    verdict = running.asof(*asked, "--run-id", "told", code=3)
    gaps = {gap["symbol"]: gap for gap in verdict["gaps"]}
    assert {symbol: (gap["code"], gap["retryable"]) for symbol, gap in gaps.items()} == {
        "PSE:JFC": ("aborted", True),
        "PSE:PA": ("toxic", False),
    }
    assert gaps["PSE:PA"]["cause"].startswith("fatal: the run is strict and PSE:PA failed: ")
    assert (verdict["decision"], verdict["promoted_version"]) == ("blocked", None)


def test_a_days_run_goes_on_from_yesterdays_and_shows_how_it_compares_with_the_screener(running: House):
    """The screener is read after the close in Manila: what it shows is the rating of that day's bar."""
    running.publish(candidates=SYMBOLS[:2], as_of="2021-12-14T08:00:00Z", run_id="yesterday")
    assert running.verdict("yesterday")["decision"] == "granted"
    running.wait(lambda: running.asof("show", "yesterday")["promoted_version"], "the promotion")
    running.publish(candidates=SYMBOLS[:2], as_of=AS_OF, run_id="plain")
    assert running.verdict("plain")["decision"] == "granted"
    running.wait(lambda: running.asof("show", "plain")["promoted_version"], "the promotion")
    assert running.asof("show", "plain")["parity"] == {}
    local = Lakehouse(running.home.root).features.at(AS_OF)
    assert (local["ts"] == pd.Timestamp("2021-12-15T00:00:00Z")).all()
    shown = [local.loc[SYMBOLS[0], "recommend_all"], -local.loc[SYMBOLS[1], "recommend_all"] - 0.125]
    candidates = [
        {"symbol": symbol, "metadata": {"Recommend.All": value}, "observed_at": AS_OF}
        for symbol, value in zip(SYMBOLS, shown, strict=False)
    ]
    running.publish(candidates=candidates, as_of=AS_OF, run_id="compared")
    assert running.verdict("compared")["decision"] == "granted"
    version = running.wait(lambda: running.asof("show", "compared")["promoted_version"], "the promotion")
    said = running.asof("show", "compared")["parity"]
    assert said["badge"] == "parity 1e-6: 1 of 2"
    assert said["differences"][SYMBOLS[0]] == {"recommend_all": 0.0}
    expected = local.loc[SYMBOLS[1], "recommend_all"] - shown[1]
    assert said["differences"][SYMBOLS[1]] == {"recommend_all": expected}
    table = open_table(running.home.features_table("1d", "screener"))
    assert table.load(version).meta["parity"] == said
    assert [table.load(number).meta["ratings"]["continued"] for number in (1, 2, 3)] == [0, 2, 2]
    for run_id in ("plain", "compared"):
        assert running.asof("reproduce", run_id)["reproduced"]


def test_an_existing_house_is_taken_over_part_by_part_and_what_is_broken_in_it_is_named(running: House):
    """The house that a run of this one left, with one more symbol of everything that is broken."""
    running.publish(candidates=SYMBOLS[:2], as_of=AS_OF, run_id="first")
    assert running.verdict("first")["decision"] == "granted"
    running.wait(lambda: running.asof("show", "first")["promoted_version"], "the promotion")
    lake = Lakehouse(running.home.root)
    old = running.home.root / "old"
    (old / "bars").mkdir(parents=True)
    for symbol in SYMBOLS[:2]:
        lake.bars(symbol).to_parquet(old / "bars" / f"{symbol.replace(':', '_')}.parquet")
    broken = lake.bars(SYMBOLS[0]).copy()
    broken.iloc[3, 3] = -1.0
    broken.to_parquet(old / "bars" / "PSE_BROKEN.parquet")
    lake.bars(SYMBOLS[0]).to_parquet(old / "bars" / "PSE_NEW.parquet")
    running.wait(running.home.features_export.exists, "the export")
    matrix = pd.read_parquet(running.home.features_export)
    matrix[("PSE:BROKEN", "recommend_all")] = 1.5
    matrix.to_parquet(old / "features_matrix.parquet")
    shutil.copy(running.home.symbols_export, old)

    dry = running.asof("import", str(old))
    assert [part["kind"] for part in dry["parts"]] == ["import", "import-bars", "import-features"]
    assert [file["refused"].keys() & {"PSE:BROKEN"} for file in dry["references"]["files"][1:]] == [{"PSE:BROKEN"}] * 2
    assert not running.home.bars_table("1d", "PSE:NEW").exists()
    done = running.asof("import", str(old), "--apply")
    assert done["outcome"] == "done"
    pd.testing.assert_frame_equal(lake.bars("PSE:NEW"), lake.bars(SYMBOLS[0]))
    imported = lake.features.matrix(rules="imported")
    pd.testing.assert_frame_equal(imported, lake.features.matrix(), check_exact=True)
    assert open_table(running.home.features_table("1d", "screener")).tags() == {"prod": 1}
    assert running.asof("import", str(running.home.runs), code=2)["error"]["what"].endswith("nothing to take over")
    (old / "features_matrix.parquet").write_bytes(b"torn")
    refused = running.asof("import", str(old), code=3)
    assert [part["outcome"] for part in refused["parts"]] == ["done", "done", "refused"]

    # What was imported is rated like everything else: by a run, through the gate.
    running.publish(candidates=["PSE:NEW"], as_of=AS_OF, run_id="rated", bars="lakehouse", stages=["ratings"])
    assert running.verdict("rated")["decision"] == "granted"
