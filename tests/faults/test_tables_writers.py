"""Four writers that are stopped and killed at any moment: no acknowledged write is lost, no read is torn.

Every writer reads all rows, counts them, and commits one row that says the count: so a write that did not see the one
before it shows, as does one that vanished. The negative control lets the manifest be overwritten, and must lose some.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from shared.errors import CommitConflict, NotFoundError
from shared.tables import Changes, NewSegment, Table, open_table


def write_until_told(table: Table, acknowledged: Path, name: str, stop: Path) -> None:
    """Commits rows one after another and notes each that was acknowledged."""
    ours = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while not stop.exists():
        snapshot = table.load()
        try:
            count = snapshot.read(columns=["count"]).num_rows
        except NotFoundError:
            continue  # slept until its version was collected
        row = pa.table({"writer": [f"{name}-{number}"], "count": [count]})
        try:
            table.commit(snapshot.version, Changes((NewSegment(row),)))
        except CommitConflict:
            continue
        os.write(ours, f"{name}-{number}\n".encode())
        number += 1


def look_after(table: Table, stop: Path) -> None:
    """Compacts and collects beside the writers."""
    while not stop.exists():
        time.sleep(0.05)
        try:
            table.compact(small_only=True)
        except (CommitConflict, NotFoundError):
            continue
        table.collect(keep_last=20, apply=True)


def read_until_told(table: Table, stop: Path) -> None:
    """Fails when a version holds anything but the rows 0, 1, … of the writes before it, or when versions go back."""
    version = rows = 0
    while not stop.exists():
        snapshot = table.load()
        try:
            counts = snapshot.read(columns=["count"])["count"].to_pylist()
        except NotFoundError:
            continue
        assert counts == list(range(len(counts)))
        assert (snapshot.version, len(counts)) >= (version, rows)
        version, rows = snapshot.version, len(counts)


def without_the_guard() -> None:
    """The manifest replaces one of the same number, as a plain rename would."""
    link = os.link

    def overwrite(source: Path, target: Path) -> None:
        aside = f"{target}.{os.getpid()}"
        link(source, aside)
        os.replace(aside, target)  # noqa: PTH105

    os.link = overwrite  # type: ignore[assignment]


def fork(act: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


Backend = Literal["native", "delta"]


@dataclass
class Outcome:
    acknowledged: set[str]
    table: Table
    others: list[int]
    kills: int


def trial(tmp_path: Path, seed: int, commits: int, *, guarded: bool = True, backend: Backend = "native") -> Outcome:
    chance = random.Random(seed)
    root, stop, notes = tmp_path / "table", tmp_path / "stop", tmp_path / "acknowledged"
    notes.mkdir()
    started = 0

    def writer() -> int:
        nonlocal started
        started += 1
        name = f"w{started}"

        def act() -> None:
            if not guarded:
                without_the_guard()
            write_until_told(open_table(root, backend=backend), notes / name, name, stop)

        return fork(act)

    writers = [writer() for _ in range(4)]
    others = []
    if guarded:
        for act in (look_after, read_until_told):
            others.append(fork(lambda act=act: act(open_table(root, backend=backend), stop)))
    kills = 0
    deadline = time.monotonic() + 120
    try:
        while sum(path.read_bytes().count(b"\n") for path in notes.iterdir()) < commits:
            assert time.monotonic() < deadline, "too slow"
            victim = chance.randrange(4)
            if chance.random() < 0.3:
                os.kill(writers[victim], signal.SIGKILL)
                os.waitpid(writers[victim], 0)
                writers[victim] = writer()
                kills += 1
            else:
                os.kill(writers[victim], signal.SIGSTOP)
                time.sleep(chance.uniform(0.005, 0.05))
                os.kill(writers[victim], signal.SIGCONT)
            time.sleep(chance.uniform(0, 0.02))
    finally:
        stop.touch()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in [*writers, *others]]
    acknowledged = {line for path in notes.iterdir() for line in path.read_text().split()}
    return Outcome(acknowledged, open_table(root, backend=backend), codes, kills)


def check_nothing_lost(outcome: Outcome) -> None:
    assert set(outcome.others) == {0}
    assert outcome.kills > 3
    rows = outcome.table.load().read()
    assert outcome.acknowledged <= set(rows["writer"].to_pylist())
    assert len(set(rows["writer"].to_pylist())) == rows.num_rows
    assert rows["count"].to_pylist() == list(range(rows.num_rows))
    # A killed writer may have committed without having said so, at most once in its life.
    assert rows.num_rows - len(outcome.acknowledged) <= outcome.kills
    assert outcome.table.verify() == []


def test_a_thousand_commits_of_stopped_and_killed_writers_lose_no_acknowledged_write(tmp_path: Path) -> None:
    check_nothing_lost(trial(tmp_path, seed=1, commits=1000))


def delta_trial(tmp_path: str) -> None:
    check_nothing_lost(trial(Path(tmp_path), seed=1, commits=60, backend="delta"))


def test_a_delta_log_loses_none_either(tmp_path: Path) -> None:
    # delta-rs refuses to work in a fork of a process that used it before, as other tests have in this one.
    fresh = multiprocessing.get_context("spawn").Process(target=delta_trial, args=(str(tmp_path),))
    fresh.start()
    fresh.join()
    assert fresh.exitcode == 0


def test_without_create_if_absent_the_same_trial_loses_writes(tmp_path: Path) -> None:
    outcome = trial(tmp_path, seed=1, commits=100, guarded=False)
    kept = set(outcome.table.load().read()["writer"].to_pylist())
    assert outcome.acknowledged - kept
