"""A real ledger, and everything that somebody could do to it: found, and named, by both verifiers."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from asof.audits import run_audit
from services.auditor import verify_ledger
from services.auditor.adapters.keys import LedgerSigner, ledger_signer
from services.auditor.adapters.ledger_file import LedgerFile
from services.auditor.domain import chain
from services.auditor.domain.canonical import canonical
from shared.paths import Home
from tests.integration.auditor_house import House, alerts, failure

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "verify_ledger.py"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Home:
    house = House(tmp_path_factory.mktemp("house") / "data")
    for run_id in ("r1", "r2"):
        house.start(["PSE:JFC", "PSE:BDO"], run_id=run_id, requested_by="añá 𝄞")
        house.note(house.catalogued("PSE:JFC", "PSE:BDO", run_id=run_id))
    for run_id in ("r2", "r1"):
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
    assert entries == 10
    said = script(sound.ledger, "--head", head)
    assert (said.returncode, said.stdout) == (0, f"sound: {entries} entries, head {head}\n")


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every byte changed, and in turn taken, doubled or followed by a blank; every entry taken, moved, swapped; ranges
    of any length taken, overwritten by others of the file, or put where they do not belong."""
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
    chosen = random.Random(5)
    ends = {0, *(end for end in range(len(data) + 1) if data[:end].endswith(b"\n"))}
    for _ in range(600):
        start = chosen.randrange(len(data))
        end = min(len(data), start + chosen.choice((2, 3, 8, 64, 65, 400, 2000)))
        other = chosen.randrange(len(data))
        piece = data[other : other + end - start]
        if not (start in ends and end == len(data)):  # which is a cut at an entry's end: found by heads alone
            yield f"bytes {start} to {end} taken", data[:start] + data[end:]
        if piece != data[start : start + len(piece)]:
            yield f"bytes {start} on overwritten by {other} on", data[:start] + piece + data[start + len(piece) :]
        yield f"bytes {other} on put in at {start}", data[:start] + piece + data[start:]


def test_every_tampering_is_found_by_the_house_and_by_the_stand_alone_verifier(house: Home) -> None:
    # The first six entries, which are a ledger too: opened, covered, decided, of two runs.
    data = b"".join(house.ledger.read_bytes().splitlines(keepends=True)[:6])
    stand_alone = stand_alone_verifier()
    found: dict[str, int] = {"house": 0, "alone": 0}
    for number, (what, changed) in enumerate(damages(data)):
        # Each looks at half of every kind of damage, and both at every tenth: the first flaw is then at one place.
        turn = (number + number // 2) % 2
        if turn or number % 10 == 0:
            flaws, _ = chain.verify(changed.splitlines(keepends=True))
            assert flaws, what
            assert flaws[0].problem
            found["house"] += 1
        if not turn or number % 10 == 0:
            house.ledger.write_bytes(changed)
            problems, _, _ = stand_alone.check_ledger(house.ledger, [])
            assert problems, what
            found["alone"] += 1
        if number % 10 == 0:
            assert problems[0].startswith(f"entry {flaws[0].n} "), what
    assert min(found.values()) > len(data)


def stand_alone_verifier() -> Any:
    specification = importlib.util.spec_from_file_location("verify_ledger", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_what_the_two_commands_say_of_a_damage_names_its_place(house: Home) -> None:
    data = house.ledger.read_bytes()
    chosen = random.Random(3).sample(list(damages(data)), 12)
    for what, changed in chosen:
        house.ledger.write_bytes(changed)
        flaws, _, _ = verify_ledger(house)
        said = script(house.ledger)
        assert said.returncode == 5, what
        assert said.stdout.splitlines()[-1].startswith("NOT SOUND")
        assert f"entry {flaws[0].n} " in said.stdout, what
        audit = run_audit("ledger", house, None)
        assert any(f"entry {flaws[0].n} " in violation for violation in audit.violations), what


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


def key_file(path: Path, number: int) -> Path:
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(bytes([number] * 32)).decode())
    return path


@pytest.fixture
def signed(tmp_path: Path) -> House:
    file = key_file(tmp_path / "ledger.key", 1)
    house = House(tmp_path / "data")
    ledger = LedgerFile(house.home, signer=ledger_signer(file))
    house.desk = dataclasses.replace(house.desk, ledger=ledger)
    house.start(["PSE:JFC"])
    house.note(*house.all_of(["PSE:JFC"]))
    return house


def test_a_signed_ledger_says_who_wrote_it_and_every_changed_byte_shows(signed: House) -> None:
    path = signed.home.ledger
    data = path.read_bytes()
    key = json.loads(data.splitlines()[0])["data"]["signed_by"]
    assert script(path, "--key", key).returncode == 0
    assert script(signed.home.run("r1").audit, "--key", key).returncode == 0
    assert verify_ledger(signed.home)[:2] == ([], 3)
    assert f"entry 1 at byte 0: it is not signed by {key[::-1]}" in script(path, "--key", key[::-1]).stdout
    stand_alone = stand_alone_verifier()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        path.write_bytes(changed)
        flaws, _, _ = verify_ledger(signed.home)
        assert flaws, at
        if at % 50 == 0 or data[at + 1 : at + 3] == b"==":
            assert stand_alone.check_ledger(path, [])[0][0].startswith(f"entry {flaws[0].n} "), at


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda entry, key: entry.pop("signature"), "its signature was taken away"),
        (lambda entry, key: entry.update(signature=key.sign(entry["hash"])), "another key than"),
        (lambda entry, key: entry["signature"].update(ed25519=key.sign(entry["hash"])["ed25519"]), "is not that of"),
        (lambda entry, key: entry["signature"].update(ed25519="AAAA"), "is not that of"),
        (lambda entry, key: entry["signature"].update(more="x"), "is not that of"),
        (lambda entry, key: entry.update(signature="x"), "is not that of"),
    ],
)
def test_a_signature_that_was_taken_away_or_replaced_is_named_and_nothing_is_promoted(
    signed: House, tmp_path: Path, spoil: Callable[[dict[str, Any], LedgerSigner], object], said: str
) -> None:
    other = key_file(tmp_path / "other.key", 2)
    path = signed.home.ledger
    first, *rest = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(first)
    spoil(entry, ledger_signer(other))
    path.write_bytes(canonical(entry) + b"\n" + b"".join(rest))
    flaws, _, _ = verify_ledger(signed.home)
    assert flaws[0].n == 1
    assert said in flaws[0].problem
    assert said in script(path).stdout
    signed.restart()
    assert [alert.labels["alertname"] for alert in alerts(signed.tick())] == ["LedgerBroken"]


def test_the_stand_alone_verifier_knows_a_signature_as_the_library_does() -> None:
    signs = stand_alone_verifier().signs
    for number in range(8):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number] * 32))
        public, message = key.public_key().public_bytes_raw(), b"x" * number
        signature = key.sign(message)
        assert signs(public, signature, message)
        assert not signs(public, signature, message + b"!")
        assert not signs(public, signature[:32] + bytes([signature[32] ^ 1]) + signature[33:], message)
        # The same point with a larger factor: a second spelling, which nobody may have.
        order = stand_alone_verifier().ORDER
        larger = int.from_bytes(signature[32:], "little") + order
        assert not signs(public, signature[:32] + larger.to_bytes(32, "little"), message)
