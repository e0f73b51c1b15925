"""kill -9 at every step of a commit: afterwards the table is the old version or the new one, never another.

The steps are the calls to the operating system. A real process is killed before each of them in turn, and in the
middle of each write.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shared.tables import Changes, NewSegment, open_table

STEPS = ("open", "write", "fsync", "close", "link", "unlink", "rename", "replace", "mkdir")


def one_row(symbol: str) -> Changes:
    return Changes((NewSegment(pa.table({"symbol": [symbol]})),))


def contents(root: Path) -> tuple[int, list[str]]:
    table = open_table(root)
    assert table.verify() == []
    snapshot = table.load()
    return snapshot.version, snapshot.read(columns=["symbol"])["symbol"].to_pylist()


def in_a_fork(act: Callable[[], None]) -> int:
    """Runs `act` in a real process of its own; its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(root: Path, what: str, fatal: int) -> None:
    """Does `what` to a table, and kills its own process at step `fatal`."""
    table = open_table(root)
    base = table.load().version
    taken = 0

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken == fatal:
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, counted(name, getattr(os, name)))
    if what == "commit":
        table.commit(base, one_row("NEW"))
    elif what == "compact":
        table.compact()
    else:
        table.collect(apply=True)


# After 16 versions a commit writes a checkpoint as well and the hint; the first one makes every folder.
@pytest.mark.parametrize(("what", "versions"), [("commit", 0), ("commit", 16), ("compact", 3), ("collect", 3)])
def test_kill_9_at_every_step_leaves_the_old_version_or_the_new_one(tmp_path: Path, what: str, versions: int) -> None:
    seen: set[int] = set()
    for fatal in range(1, 100):
        root = tmp_path / str(fatal) / "table"
        for version in range(versions):
            open_table(root).commit(version, one_row(f"S{version}"))
        before = contents(root)
        status = in_a_fork(lambda root=root, fatal=fatal: die_at(root, what, fatal))
        after = contents(root)
        rows = [*before[1], "NEW"] if what == "commit" else before[1]
        assert after in [before, (before[0] + 1, rows)], f"killed at step {fatal}"
        seen.add(after[0])
        # What was left behind is in nobody's way.
        assert open_table(root).commit(after[0], one_row("NEXT")) == after[0] + 1
        assert contents(root) == (after[0] + 1, [*after[1], "NEXT"])
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0, "the walk did not reach the end"
    assert fatal > 10
    assert seen == ({before[0]} if what == "collect" else {before[0], before[0] + 1})
