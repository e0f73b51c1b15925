"""The command line as a person, a script and an alarm at night use it: on the house that the demo left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from asof import Lakehouse
from shared.errors import ContractError, NotFoundError

ROOT = Path(__file__).resolve().parents[2]
RUN = "demo-2021-12-15"

pytestmark = pytest.mark.timeout(240)


class Terminal:
    """`asof` with this house as ASOF_HOME, in a working folder of its own."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")}
        self.environment = own | {"ASOF_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "asof", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr

    def json(self, *arguments: str, code: int = 0, **environment: str) -> Any:
        ended, out, err = self(*arguments, "--json", **environment)
        assert ended == code, f"exit {ended}: {out[-2000:]}{err[-4000:]}"
        return json.loads(out)


@pytest.fixture
def terminal(played: tuple[Path, dict[str, Any]], tmp_path: Path) -> Terminal:
    return Terminal(played[0], tmp_path)


READS = [
    ("runs",),
    ("show", RUN),
    ("get", "PSE:JFC", "--as-of", "2020-12-15"),
    ("history", "PSE:JFC"),
    ("features", "--symbols", "PSE:JFC", "--start", "2021-12-01"),
    ("features", "--at", "2021-12-15", "--symbols", "PSE:JFC"),
    ("features", "--run", RUN, "--symbols", "PSE:JFC"),
    ("explain", "PSE:JFC", "--at", "2021-12-15"),
    ("audit", "pit"),
    ("audit", "features"),
    ("audit", "ledger"),
    ("audit", "ledger", RUN),
    ("config",),
]


ABORTS_WHEN_TORN_DOWN = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)  # as a library's threads do that still run
sys.argv = ["asof", "config", "--json"]
from asof.__main__ import main
main()
"""


def test_a_command_that_is_done_ends_well_whatever_its_libraries_do_when_they_are_torn_down(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", ABORTS_WHEN_TORN_DOWN],
        cwd=ROOT, env={**os.environ, "ASOF_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_every_read_has_a_form_for_people_and_one_for_programs(terminal: Terminal, command: tuple[str, ...]):
    code, out, err = terminal(*command)
    assert (code, err) == (0, "")
    assert out.strip()
    assert terminal.json(*command)


def test_every_command_that_help_lists_has_json(terminal: Terminal):
    _, out, _ = terminal("--help")
    commands = [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()]
    assert len(commands) > 15
    for command in commands:
        shown = terminal(command, "--help")[1]
        if "Commands:" in shown:
            inner = [line.split()[0] for line in shown.split("Commands:")[1].splitlines() if line.strip()]
            shown = "".join(terminal(command, name, "--help")[1] for name in inner)
        assert "--json" in shown, command


REFUSED = [
    (("show", "nobody"), "there is no run", "asof runs"),
    (("show", "../../etc"), "run id", ""),
    (("get", "PSE:NOBODY"), "PSE:NOBODY", "asof run"),
    (("get", "jfc"), "jfc", "asof get PSE:JFC"),
    (("get", "PSE:JFC", "--as-of", "1990-01-01"), "PSE:JFC", "asof history PSE:JFC"),
    (("history", "PSE:JFCC"), "PSE:JFCC", "asof history PSE:JFC"),
    (("features", "--symbols", "PSE:JFC,PSE:JFCC"), "PSE:JFCC", "was PSE:JFC meant?"),
    (("features", "--symbols", "PSE:JFC", "--output", "jfc.xlsx"), "jfc.xlsx", ".csv"),
    (("features", "--start", "2021-12-10", "--end", "2021-12-01"), "is after end", "exchange them"),
    (("get", "nonsense nonsense"), "nonsense", ""),
    (("features", "--symbols", "PSE:NOBODY"), "PSE:NOBODY", "asof run"),
    (("features", "--at", "yesterday"), "yesterday", "ISO 8601"),
    (("features", "--rules", "mine"), "mine", ""),
    (("explain", "PSE:NOBODY"), "PSE:NOBODY", "asof run"),
    (("explain", "PSE:JFC", "--at", "1990-01-01"), "no bar of it was known", "later"),
    (("audit", "everything"), "everything", "asof audit"),
    (("run", "absent.json"), "absent.json", ""),
]


@pytest.mark.parametrize(("command", "named", "next_step"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_a_mistake_ends_with_code_2_and_says_what_and_what_next(
    terminal: Terminal, command: tuple[str, ...], named: str, next_step: str
):
    code, out, err = terminal(*command)
    assert (code, out) == (2, "")
    assert named in err
    assert next_step in err
    assert "Traceback" not in err
    fault = terminal.json(*command, code=2)["error"]
    assert fault["retryable"] is False
    assert fault["next"]


CANDIDATES = [
    ("[]", "asof refresh"),
    ('{"data": []}', "asof refresh"),
    ("{", "no JSON"),
    ('"PSE:JFC"', "candidates"),
    ("[" * 100_000, "no JSON"),
]


@pytest.mark.parametrize(("text", "words"), CANDIDATES, ids=[text[:20] for text, _ in CANDIDATES])
def test_a_candidates_file_that_names_nobody_starts_nothing(terminal: Terminal, text: str, words: str):
    (terminal.folder / "candidates.json").write_text(text)
    code, _, err = terminal("run", "candidates.json")
    assert (code, "Traceback" in err) == (2, False)
    assert words in err


def test_candidates_of_which_none_can_be_read_start_nothing(terminal: Terminal, tmp_path: Path):
    (terminal.folder / "candidates.json").write_text('[{"name": "x"}, 5]')
    error = terminal.json("run", "candidates.json", code=2, ASOF_HOME=str(tmp_path / "fresh"))["error"]
    assert error["what"] == "candidates.json names no symbol"
    assert 'item 1 of 2: {"name": "x"}' in error["cause"]


def test_a_file_outside_the_roots_is_refused_through_dots_and_symlinks_too(terminal: Terminal, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.json"
    secret.write_text('["PSE:JFC"]')
    (terminal.folder / "link.json").symlink_to(secret)
    for path in (str(secret), os.path.relpath(secret, terminal.folder), "link.json"):
        code, _, err = terminal("run", path)
        assert code == 2
        assert "outside the allowed folders" in err


def test_the_same_run_id_with_other_content_is_refused(terminal: Terminal):
    (terminal.folder / "candidates.json").write_text('["PSE:JFC"]')
    code, _, err = terminal("run", "candidates.json", "--run-id", RUN)
    assert code == 2
    assert "other content" in err


def test_a_redis_that_is_not_there_is_exit_code_6(terminal: Terminal):
    (terminal.folder / "candidates.json").write_text('["PSE:JFC"]')
    fault = terminal.json("run", "candidates.json", code=6, ASOF_REDIS_URL="redis://127.0.0.1:9/0")
    assert fault["error"]["retryable"] is True


def test_a_run_that_gets_nothing_at_all_is_exit_code_4(terminal: Terminal, tmp_path: Path):
    (terminal.folder / "candidates.json").write_text('["PSE:JFC", "PSE:BDO"]')
    nowhere = {
        "ASOF_HOME": str(tmp_path / "fresh"),
        "ASOF_FETCHER_SCANNER_URL": "http://127.0.0.1:9",
        "ASOF_FETCHER_WS_URL": "ws://127.0.0.1:9",
        "ASOF_FETCHER_BACKOFF_S": "0.05",
    }
    verdict = terminal.json("run", "candidates.json", "--deadline", "15", code=4, **nowhere)
    assert (verdict["decision"], verdict["covered"], len(verdict["gaps"])) == ("blocked", 0, 2)


def test_a_byte_changed_in_the_ledger_or_in_a_table_is_exit_code_5(terminal: Terminal, tmp_path: Path):
    home = tmp_path / "copy"
    shutil.copytree(terminal.environment["ASOF_HOME"], home, ignore=shutil.ignore_patterns("cache", "state"))
    ledger = home / "audit.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"granted"', b'"blocked"', 1))
    (violation,) = terminal.json("audit", "ledger", code=5, ASOF_HOME=str(home))["violations"]
    assert "/audit.jsonl has it as it was entered: decided" in violation
    assert "RED   ledger" in terminal("doctor", ASOF_HOME=str(home))[1]
    segment = max(
        home.glob("lakehouse/features/1d/screener/segments/**/*.parquet"), key=lambda path: path.stat().st_size
    )
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    assert terminal.json("audit", "features", code=5, ASOF_HOME=str(home))["violations"]


def test_a_run_tells_what_happened_to_it_and_who_signed_for_what(terminal: Terminal):
    kinds = [moment["kind"] for moment in terminal.json("show", RUN)["timeline"]]
    assert kinds == ["opened", *["covered", "decided", "waived"] * 2, "covered", "decided", "promoted"]
    shown = terminal("show", RUN)[1]
    assert "attempt 1   metadata 272 of 272 in" in shown
    assert "waived bars: no_bars, 15 by demo (the name is not verified) until" in shown
    assert "bars: no_bars  in run demo-2021-12-15, 15 symbols" in terminal("waivers")[1]


def test_a_run_that_was_rolled_back_says_so_and_its_decision_stays(terminal: Terminal, tmp_path: Path):
    home = tmp_path / "copy"
    shutil.copytree(terminal.environment["ASOF_HOME"], home, ignore=shutil.ignore_patterns("cache", "state"))
    assert terminal.json("show", RUN, ASOF_HOME=str(home))["withdrawn_by"] is None
    version = terminal.json("rollback", ASOF_HOME=str(home))["references"]["version"]
    shown = terminal.json("show", RUN, ASOF_HOME=str(home))
    assert (shown["decision"], shown["promoted_version"], shown["withdrawn_by"]) == ("granted", 1, version)
    assert "ROLLED BACK" in terminal("show", RUN, ASOF_HOME=str(home))[1]
    terminal.json("rollback", "--to", "1", ASOF_HOME=str(home))
    assert terminal.json("show", RUN, ASOF_HOME=str(home))["withdrawn_by"] is None


def test_the_client_reads_what_the_command_line_shows(terminal: Terminal):
    lake = Lakehouse(terminal.environment["ASOF_HOME"])
    assert lake.catalog.get_instrument("PSE:JFC", as_of="2020-12-15")["tick_size"] == 0.1
    assert len(lake.catalog.history("PSE:JFC")) == 3
    assert lake.bars("PSE:JFC").index.is_monotonic_increasing
    slice_ = lake.features.at("2021-12-15", ["PSE:JFC", "PSE:BDO"])
    assert list(slice_.index) == ["PSE:JFC", "PSE:BDO"]
    assert (slice_["available_at"] <= pd.Timestamp("2021-12-15", tz="UTC")).all()
    matrix = lake.features.matrix(["PSE:JFC"], start="2021-12-01", end="2021-12-14")
    assert matrix[("PSE:JFC", "recommend_all")].iloc[-1] == slice_.loc["PSE:JFC", "recommend_all"]


def test_an_explanation_comes_to_the_ratings_that_are_promoted(terminal: Terminal):
    for at in ("2021-12-15", "2020-03-20"):
        (row,) = terminal.json("features", "--at", at, "--symbols", "PSE:JFC")
        explained = terminal.json("explain", "PSE:JFC", "--at", at)
        for name in ("recommend_ma", "recommend_other", "recommend_all", "available_at"):
            assert explained[name] == row[name]
        assert (explained["at"], explained["promoted"]["same"]) == (row["ts"], True)
        for group, rating in (("ma", "recommend_ma"), ("other", "recommend_other")):
            votes = [vote["vote"] for vote in explained["votes"] if vote["group"] == group and vote["vote"] is not None]
            assert sum(votes) / len(votes) == pytest.approx(row[rating], abs=1e-15)
        shown = terminal("explain", "PSE:JFC", "--at", at)[1]
        assert all(f"\n{vote['name']} " in shown for vote in explained["votes"])
        assert f"(MA + Other) / 2 = {row['recommend_all']:.4f}" in shown


def test_the_client_refuses_a_time_without_a_zone_and_a_symbol_nobody_knows(terminal: Terminal):
    lake = Lakehouse(terminal.environment["ASOF_HOME"])
    with pytest.raises(ContractError, match="no time zone"):
        lake.features.at(pd.Timestamp("2021-12-15").to_pydatetime(), ["PSE:JFC"])
    with pytest.raises(NotFoundError, match="PSE:NOBODY"):
        lake.features.at("2021-12-15", ["PSE:JFC", "PSE:NOBODY"])
    with pytest.raises(NotFoundError, match="no bars are stored"):
        lake.bars("PSE:NOBODY")


def test_what_was_not_promoted_by_then_is_not_read(terminal: Terminal):
    lake = Lakehouse(terminal.environment["ASOF_HOME"])
    with pytest.raises(NotFoundError, match="promoted by 2022-01-01"):
        lake.features.at("2021-12-15", known_at="2022-01-01")
    assert lake.catalog.get_instrument("PSE:JFC", as_of="2021-12-16", known_at="2022-01-01") is None
