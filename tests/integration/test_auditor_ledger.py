"""A real ledger, and everything that somebody could do to it: found, and named, by both verifiers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.auditor import verify_ledger
from services.auditor.domain import chain
from shared.paths import Home
from tests.integration.auditor_house import House, failure

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "verify_ledger.py"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Home:
    house = House(tmp_path_factory.mktemp("house") / "data")
    for run_id in ("r1", "r2", "r3"):
        house.start(["PSE:JFC", "PSE:BDO"], run_id=run_id, requested_by="añá 𝄞")
        house.note(house.catalogued("PSE:JFC", "PSE:BDO", run_id=run_id))
    for run_id in ("r2", "r1", "r3"):
        house.note(house.hydrated("PSE:JFC", run_id=run_id, failed={"PSE:BDO": failure()}))
        house.note(house.rated("PSE:JFC", run_id=run_id))
    house.command(
        "waive", "r1", symbols=["PSE:BDO"], stage="bars", reason="halted", approver="ben", expires="2022-01-31"
    )
    house.command("report", "r1")
    return house.home


@pytest.fixture
def house(sound: Home, tmp_path: Path) -> Home:
    """A copy of the sound ledger, without anything beside it that remembers heads."""
    home = Home.at(tmp_path / "copy")
    home.root.mkdir()
    home.ledger.write_bytes(sound.ledger.read_bytes())
    return home


def script(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", SCRIPT, path, *arguments], capture_output=True, text=True, check=False)


def test_a_sound_ledger_is_sound_to_both_verifiers(sound: Home) -> None:
    flaws, entries, head = verify_ledger(sound)
    assert flaws == []
    assert entries == 13
    said = script(sound.ledger, "--head", head)
    assert (said.returncode, said.stdout) == (0, f"sound: {entries} entries, head {head}\n")


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every byte changed, and in turn taken, doubled or followed by a blank; every entry taken, moved, swapped."""
    for at in range(len(data)):
        yield f"byte {at} changed", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        others = (
            (f"byte {at} taken", data[:at] + data[at + 1 :]),
            (f"byte {at} doubled", data[: at + 1] + data[at:]),
            (f"blank after byte {at}", data[: at + 1] + b" " + data[at + 1 :]),
        )
        yield others[at % 3]
    lines = data.splitlines(keepends=True)
    for at in range(len(lines)):
        rest = lines[:at] + lines[at + 1 :]
        if at < len(lines) - 1:
            yield f"entry {at + 1} taken", b"".join(rest)
            swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
            yield f"entries {at + 1} and {at + 2} swapped", b"".join(swapped)
        yield f"entry {at + 1} doubled", b"".join([*lines[: at + 1], *lines[at:]])
        for to in range(at):
            yield f"entry {at + 1} moved", b"".join([*rest[:to], lines[at], *rest[to:]])


def test_every_tampering_is_found_and_named(sound: Home) -> None:
    data = sound.ledger.read_bytes()
    _, last = chain.verify(data.splitlines(keepends=True))
    assert last is not None
    for what, changed in damages(data):
        flaws, _ = chain.verify(changed.splitlines(keepends=True))
        assert flaws, what
        assert flaws[0].problem


def test_both_verifiers_find_the_same_place(house: Home) -> None:
    data = house.ledger.read_bytes()
    chosen = random.Random(3).sample(list(damages(data)), 40)
    for what, changed in chosen:
        house.ledger.write_bytes(changed)
        flaws, _, _ = verify_ledger(house)
        said = script(house.ledger)
        assert said.returncode == 5, what
        assert said.stdout.splitlines()[-1].startswith("NOT SOUND")
        assert f"entry {flaws[0].n} " in said.stdout, what


def test_every_truncation_inside_an_entry_is_found_by_itself(house: Home) -> None:
    data = house.ledger.read_bytes()
    for length in range(1, len(data), 3):
        if data[length - 1 : length] != b"\n":
            flaws, _ = chain.verify(data[:length].splitlines(keepends=True))
            assert flaws, length


def test_a_cut_at_an_entrys_end_is_found_by_any_head_that_somebody_remembers(sound: Home, house: Home) -> None:
    _, entries, head = verify_ledger(sound)
    lines = house.ledger.read_bytes().splitlines(keepends=True)
    for left in range(entries):
        kept = lines[:left]
        assert chain.verify(kept)[0] == []
        assert chain.verify(kept, {entries: head})[0][0].n == entries
    house.ledger.write_bytes(b"".join(lines[:-1]))
    assert script(house.ledger).returncode == 0
    assert script(house.ledger, "--head", head).returncode == 5


def test_the_house_itself_remembers_its_heads(sound: Home, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(sound.root, root)
    home = Home.at(root)
    lines = home.ledger.read_bytes().splitlines(keepends=True)
    home.ledger.write_bytes(b"".join(lines[:-2]))
    (home.state / "auditor" / "ledger-head.json").unlink()
    flaws, _, _ = verify_ledger(home)
    assert "the tail was cut off" in flaws[0].problem
    assert script(home.ledger).returncode == 5


def test_a_ledger_written_anew_as_a_whole_is_found_by_a_published_head(house: Home, sound: Home) -> None:
    _, entries, head = verify_ledger(sound)
    last = None
    forged = []
    for line in house.ledger.read_bytes().splitlines():
        fields = json.loads(line)
        last = chain.next_entry(
            last, **{name: fields[name] for name in ("time", "kind", "run_id", "key")}, data={**fields["data"], "x": 1}
        )
        forged.append(last.line())
    assert chain.verify(forged)[0] == []
    assert "another entry stood here" in chain.verify(forged, {entries: head})[0][0].problem


def test_an_extract_proves_its_entries_without_the_ledger(sound: Home, tmp_path: Path) -> None:
    copy = tmp_path / "audit.jsonl"
    data = sound.run("r1").audit.read_bytes()
    copy.write_bytes(data)
    assert script(copy).returncode == 0
    lines = data.splitlines(keepends=True)
    assert len(lines) == 7
    assert any(json.loads(line)["between"] for line in lines)
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        copy.write_bytes(changed)
        if at % 91 == 0:
            assert script(copy).returncode == 5, at
        assert chain.verify_extract(changed.splitlines(keepends=True)), at


def test_a_torn_last_line_of_a_killed_writer_goes_and_the_chain_goes_on(tmp_path: Path) -> None:
    house = House(tmp_path / "data")
    house.start(["PSE:JFC"])
    with house.home.ledger.open("ab") as file:
        file.write(b'{"data":{"counts"')
    house.restart()
    house.note(*house.all_of(["PSE:JFC"]))
    flaws, entries, _ = verify_ledger(house.home)
    assert (flaws, entries) == ([], 3)
