"""A full disk, and a folder that may not be written: a clear error, and the table is intact."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shared.bars import BarsTable
from shared.errors import TransientError
from shared.tables import Changes, NewSegment, open_table


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One megabyte of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def noise(kilobytes: int, seed: int) -> Changes:
    values = np.random.default_rng(seed).random(kilobytes * 128)
    return Changes((NewSegment(pa.table({"value": values})),))


@pytest.mark.parametrize("backend", ["native", "delta"])
def test_a_full_disk_is_a_clear_error_and_the_table_is_intact(small_disk: Path, backend: str) -> None:
    table = open_table(small_disk / "table", backend=backend)
    version = 0
    while os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize > 80 << 10:
        version = table.commit(version, noise(64, version))
    with pytest.raises(TransientError, match="disk is full; nothing was committed and the table is intact"):
        table.commit(table.commit(version, noise(64, version)), noise(64, version))
    version = table.load().version
    assert version > 3
    assert table.load().version == version
    assert table.load().read().num_rows == version * 64 * 128
    assert table.verify() == []
    # Nothing was left behind: removing one file makes room for the next commit.
    left = {path.name for path in (small_disk / "table" / "segments").iterdir()}
    assert left == {Path(segment.file).name for segment in table.load().segments}


def test_any_step_may_meet_a_full_disk(small_disk: Path) -> None:
    """Leaves from nothing to 80 kB free, so that the space runs out at the segment, the manifest or the folder."""
    refused = 0
    for pages in range(20):
        root = small_disk / "table"
        table = open_table(root)
        base = table.load().version
        filler = small_disk / "filler"
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
        filler.write_bytes(b"x" * max(0, free - pages * 4096))
        before = table.load().read() if base else None
        try:
            table.commit(base, noise(8, pages))
        except TransientError:
            refused += 1
            assert open_table(root).load().version == base
            assert before is None or open_table(root).load().read().equals(before)
        filler.unlink()
    assert 3 <= refused < 20
    assert open_table(small_disk / "table").verify() == []


def test_bars_say_so_too(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * ((1 << 20) - 4096))
    index = pd.date_range("2024-01-01", periods=2, tz="UTC")
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0), index=index)
    table = BarsTable.open(small_disk / "PSE%3AJFC")
    with pytest.raises(TransientError, match="PSE%3AJFC: the disk is full"):
        table.append(bars, run_id="r1")
    assert table.info().version == 0
