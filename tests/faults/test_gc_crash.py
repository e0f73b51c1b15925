"""kill -9 at every step of `asof gc` and of a repair: what is named is whole at any time, the next one finishes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from asof.audits import run_audit, run_repair
from asof.gc import collect_house
from services.catalog import MetadataCatalog
from shared.bars import BarsTable
from shared.paths import Home
from shared.tables import open_table
from tests.integration.gc_house import NOW, SYMBOL, build, litter, versions

STEPS = ("link", "unlink", "rename", "replace", "rmdir", "fsync")


def collect(home: Home) -> None:
    collect_house(home, older_than=timedelta(0), now=NOW, apply=True)


def repair(home: Home) -> None:
    run_repair("pit", home, now=NOW, by="a test")


def die_at(act: Callable[[Home], None], home: Home, fatal: int) -> None:
    taken = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    act(home)


def in_a_fork(act: Callable[[Home], None], home: Home, fatal: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(act, home, fatal)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_kill_9_at_every_step_of_a_collection_loses_nothing_that_is_named(tmp_path: Path) -> None:
    made = build(tmp_path / "made")
    litter(made)
    for fatal in range(1, 200):
        home = Home.at(tmp_path / str(fatal))
        shutil.copytree(made.root, home.root)
        status = in_a_fork(collect, home, fatal)
        bars = BarsTable.open(home.bars_table("1d", SYMBOL))
        assert [len(bars.read(version)) for version in (2, 3, 5)] == [2, 3, 5], f"killed at step {fatal}"
        assert MetadataCatalog.open(home.symbols_table).audit() == []
        features = open_table(home.features_table("1d", "screener"))
        assert [features.load(version).read().num_rows for version in (1, 2, 4)] == [1, 2, 3]
        collect_house(home, older_than=timedelta(0), now=NOW, apply=True)
        assert versions(home) == {"bars": [2, 3, 5], "catalog": [2, 3, 5], "features": [1, 2, 4]}
        again = collect_house(home, older_than=timedelta(0), now=NOW, apply=False)
        assert again.groups == [], f"killed at step {fatal}"
        shutil.rmtree(home.root)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0, "the walk did not reach the end"
    assert fatal > 20


def test_kill_9_at_every_step_of_a_repair_leaves_it_to_be_done_again(tmp_path: Path) -> None:
    made = build(tmp_path / "made")
    root = made.symbols_table
    (root / "manifests" / f"{2:020d}.json").unlink()
    damaged = next((root / "segments").glob("000000000005-*"))
    damaged.write_bytes(b"torn")
    for fatal in range(1, 200):
        home = Home.at(tmp_path / str(fatal))
        shutil.copytree(made.root, home.root)
        status = in_a_fork(repair, home, fatal)
        repair(home)
        assert run_audit("pit", home, None).violations == (), f"killed at step {fatal}"
        table = open_table(home.symbols_table)
        assert table.versions() == [0, 1, 3, 4, 6], f"killed at step {fatal}"
        assert table.load().segments == table.load(4).segments
        kept = [path.read_bytes() for path in table.root.glob(f"damaged/*/segments/{damaged.name}")]
        assert b"torn" in kept
        shutil.rmtree(home.root)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0, "the walk did not reach the end"
    assert fatal > 20
