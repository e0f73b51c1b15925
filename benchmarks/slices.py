"""What a slice of the feature store costs: 69 symbols of 1,212, beside the plain wide export read with pandas.

    .venv/bin/python benchmarks/slices.py [BARS]            default 1000 daily bars a symbol

Each way of reading runs in a process of its own, with the files in the page cache: seconds are of processor time, the
best of nine reads, bytes are those that one read asked the system for, memory is the peak above what was held before.
Ratios are to the first line. Adjacent symbols came in the same batches of a run, spread ones are every 17th of all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from services.features.adapters.matrix import MATRIX_FEATURES, wide_table
from services.features.adapters.reader import FeatureReader
from services.features.adapters.rows import LOCAL, SCHEMA, STAMP
from services.features.domain.validation_features import FEATURES
from shared.paths import Home
from shared.tables import Changes, NewSegment, open_table

SYMBOLS, SLICE, BATCH = 1_212, 69, 50
NAMES = [f"X:S{number:04}" for number in range(SYMBOLS)]
ADJACENT, SPREAD = NAMES[100 : 100 + SLICE], NAMES[::17][:SLICE]
FIRST = datetime(2020, 1, 1, tzinfo=UTC)


def main(bars: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _make(Home.at(folder), bars)
        ways = _ways(Home.at(folder), bars)
        print(f"\n{SLICE} of {SYMBOLS:,} symbols × {bars:,} bars{'processor s':>20}{'MB read':>17}{'MiB memory':>18}")
        first: tuple[float, float, float] | None = None
        for name in ways:
            done = subprocess.run(
                [sys.executable, __file__, str(bars), folder, name], check=True, capture_output=True, text=True
            )
            found = tuple(json.loads(done.stdout))
            first = first or found
            text = "".join(f"{x:9.3g} {f'({x / one:.2g}×)':>8}" for x, one in zip(found, first, strict=True))
            print(f"  {name:36}{text}")


def _ways(home: Home, bars: int) -> dict[str, Callable[[], Any]]:
    """What a person would call; each reader is new, so that nothing is kept from the read before."""
    last = FIRST + timedelta(days=bars - 1)
    year, wide = last - timedelta(days=365), home.features_export
    columns = [str((symbol, feature)) for symbol in SPREAD for feature in MATRIX_FEATURES]
    return {
        "matrix, 69 adjacent": lambda: FeatureReader(home).matrix(ADJACENT),
        "matrix, 69 adjacent, the last year": lambda: FeatureReader(home).matrix(ADJACENT, start=year),
        "at, 69 adjacent": lambda: FeatureReader(home).at(last, ADJACENT),
        "matrix, 69 spread": lambda: FeatureReader(home).matrix(SPREAD),
        "matrix, 69 spread, the last year": lambda: FeatureReader(home).matrix(SPREAD, start=year),
        "at, 69 spread": lambda: FeatureReader(home).at(last, SPREAD),
        "matrix, all": lambda: FeatureReader(home).matrix(),
        "at, all": lambda: FeatureReader(home).at(last),
        "pandas, wide file, columns of 69": lambda: pd.read_parquet(wide, columns=columns),
        "pandas, wide file, whole": lambda: pd.read_parquet(wide),
    }


def _measure(way: Callable[[], Any]) -> tuple[float, float, float]:
    """Seconds, 10⁶ bytes, MiB."""
    held, asked = _of_process("status", "VmRSS"), _of_process("io", "rchar")
    way()
    asked, peak = _of_process("io", "rchar") - asked, _of_process("status", "VmHWM")
    seconds = []
    for _ in range(9):
        began = time.process_time()
        way()
        seconds.append(time.process_time() - began)
    return min(seconds), asked / 1e6, (peak - held) / 2**10


def _of_process(file: str, name: str) -> int:
    """A number that Linux keeps of this process."""
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _make(home: Home, bars: int) -> None:
    """A table as a promotion writes it, a segment a batch, and its export."""
    batches = [NAMES[start : start + BATCH] for start in range(0, SYMBOLS, BATCH)]
    table = open_table(home.features_table("1d", "screener"))
    segments = tuple(NewSegment(_rows(batch, bars, seed), keys=tuple(batch)) for seed, batch in enumerate(batches))
    meta = {"promoted_at": "2026-01-01T00:00:00Z", "run_id": "benchmark"}
    table.commit(0, Changes(append=segments), meta=meta)
    table.export(home.features_export, 1, wide_table)
    print(f"{len(segments)} segments, {table.load().bytes / 1e6:.1f} MB; the wide file", end=" ")
    print(f"{home.features_export.stat().st_size / 1e6:.1f} MB")


def _rows(symbols: list[str], bars: int, seed: int) -> pa.Table:
    """Ratings as votes make them (few distinct values), RSI and ADX as they are (all distinct)."""
    random = np.random.default_rng(seed)
    count = len(symbols) * bars
    day = 86_400_000_000
    stamps = int(FIRST.timestamp() * 1e6) + day * np.tile(np.arange(bars), len(symbols))
    values = {
        name: random.random(count) * 100 if name in {"rsi", "adx"} else random.integers(-15, 16, count) / 15
        for name in FEATURES
    }
    words = {"source": LOCAL, "rules": "screener", "rules_version": "1"}
    columns: dict[str, pa.Array[Any]] = {
        "symbol": pa.array(np.repeat(symbols, bars).tolist(), pa.string()),
        "ts": pa.array(stamps, STAMP),
        **{name: pa.array(numbers) for name, numbers in values.items()},
        "available_at": pa.array(stamps + day, STAMP),
        **{name: pa.array([word] * count, pa.string()) for name, word in words.items()},
    }
    return pa.table(columns).cast(SCHEMA)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        ways = _ways(Home.at(sys.argv[2]), int(sys.argv[1]))
        print(json.dumps(_measure(ways[sys.argv[3]])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
