"""One durable commit of 50 changed symbols, side by side with what else one would pick, as a table of ratios.

    .venv/bin/python benchmarks/tables.py [--sizes 1130,100000,1000000] [--repeat 15]

Every contender does the same job: 50 of N symbols changed, and after it returns the change survives a power cut.
Appending systems append 50 rows; rewriting ones read, concatenate and replace the file; DuckDB and SQLite update 50
rows and insert 50 (the closed and the open version); delta-rs is measured appending and merging. Medians, one process.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
from rich.console import Console
from rich.table import Table as Grid

from shared import files
from shared.tables import Changes, NewSegment, Table, open_table

CHANGED = 50
TEXT = ("exchange", "base", "quote", "currency", "type", "subtype", "description", "sector", "industry", "country")
NUMBERS = ("tick_size", "lot_size", "min_notional", "contract_size", "minmov", "minmove2", "pricescale")
FEW = frozenset({"exchange", "quote", "currency", "type", "subtype", "sector", "industry", "country"})

Step = Callable[[int], None]


def symbols(count: int, seed: int = 0) -> pa.Table:
    """`count` symbols with 25 columns as the symbol catalog has them."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"symbol": pa.array([f"VENUE:S{number:07d}" for number in range(count)])}
    for name in TEXT:
        if name in FEW:
            columns[name] = pa.array([f"{name}{code}" for code in random.integers(0, 20, count)]).dictionary_encode()
        else:
            columns[name] = pa.array([f"{name} of {number}" for number in range(count)])
    for name in NUMBERS:
        columns[name] = pa.array(random.integers(1, 10_000, count) / 100)
    columns["session"] = pa.array(["24x7"] * count).dictionary_encode()
    columns["timezone"] = pa.array(["UTC"] * count).dictionary_encode()
    columns["active"] = pa.array([True] * count)
    columns["run_id"] = pa.array(["run-1"] * count).dictionary_encode()
    for name in ("valid_from", "valid_until", "updated_at"):
        columns[name] = pa.array(np.full(count, 1_700_000_000_000_000), pa.timestamp("us", "UTC"))
    return pa.table(columns)


def changed(base: pa.Table, step: int) -> pa.Table:
    picked = np.random.default_rng(step).choice(base.num_rows, CHANGED, replace=False)
    rows = base.take(np.sort(picked))
    sizes = pa.array(np.random.default_rng(step).integers(1, 10_000, CHANGED) / 1000)
    rows = rows.set_column(rows.schema.get_field_index("tick_size"), "tick_size", sizes)
    stamps = pa.array(np.full(CHANGED, 1_700_000_000_000_000 + step), pa.timestamp("us", "UTC"))
    return rows.set_column(rows.schema.get_field_index("valid_from"), "valid_from", stamps)


def of_versioned_table(folder: Path, base: pa.Table, backend: str) -> Step:
    table: Table = open_table(folder / "table", backend="delta" if backend == "delta" else "native")
    table.commit(0, Changes((NewSegment(base),)))

    def step(number: int) -> None:
        version = table.load().version
        table.commit(version, Changes((NewSegment(changed(base, number)),)), meta={"run_id": "run-1"})
        if number % 32 == 31:  # as the catalog does, every few dozen commits
            table.compact(small_only=True)

    return step


def of_pandas(folder: Path, base: pa.Table) -> Step:
    path = folder / "symbols.parquet"
    base.to_pandas().to_parquet(path)

    def step(number: int) -> None:
        frame = pd.concat([pd.read_parquet(path), changed(base, number).to_pandas()], ignore_index=True)
        aside = path.with_suffix(".tmp")
        frame.to_parquet(aside)
        replace_durably(aside, path)

    return step


def of_polars(folder: Path, base: pa.Table) -> Step:
    path = folder / "symbols.parquet"
    plain(base).write_parquet(path)

    def step(number: int) -> None:
        aside = path.with_suffix(".tmp")
        pl.concat([pl.read_parquet(path), plain(changed(base, number))]).write_parquet(aside)
        replace_durably(aside, path)

    return step


def of_duckdb(folder: Path, base: pa.Table) -> Step:
    connection = duckdb.connect(str(folder / "symbols.duckdb"))
    connection.register("base", base)
    connection.execute("create table symbols as select * from base")

    def step(number: int) -> None:
        connection.register("changes", changed(base, number))
        connection.execute("begin")
        connection.execute(
            "update symbols set valid_until = c.valid_from from changes c "
            "where symbols.symbol = c.symbol and symbols.valid_until = symbols.valid_from"
        )
        connection.execute("insert into symbols select * from changes")
        connection.execute("commit")

    return step


def of_sqlite(folder: Path, base: pa.Table) -> Step:
    connection = sqlite3.connect(folder / "symbols.sqlite", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    names = base.column_names
    marks = ", ".join("?" * len(names))
    connection.execute(f"create table symbols ({', '.join(names)})")
    connection.execute("begin")
    connection.executemany(f"insert into symbols values ({marks})", sql_rows(base))
    connection.execute("create index by_symbol on symbols (symbol, valid_until)")
    connection.execute("commit")

    def step(number: int) -> None:
        rows = sql_rows(changed(base, number))
        connection.execute("begin")
        connection.executemany(
            "update symbols set valid_until = ? where symbol = ? and valid_until = ?",
            [(row[names.index("valid_from")], row[0], row[names.index("valid_until")]) for row in rows],
        )
        connection.executemany(f"insert into symbols values ({marks})", rows)
        connection.execute("commit")

    return step


def of_delta_append(folder: Path, base: pa.Table) -> Step:
    path = folder / "delta"
    deltalake.write_deltalake(path, plain(base).to_arrow())

    def step(number: int) -> None:
        deltalake.write_deltalake(path, plain(changed(base, number)).to_arrow(), mode="append")

    return step


def of_delta_merge(folder: Path, base: pa.Table) -> Step:
    path = folder / "delta"
    deltalake.write_deltalake(path, plain(base).to_arrow())

    def step(number: int) -> None:
        merge = deltalake.DeltaTable(path).merge(
            plain(changed(base, number)).to_arrow(), "old.symbol = new.symbol", source_alias="new", target_alias="old"
        )
        merge.when_matched_update({"valid_until": "new.valid_from"}).execute()

    return step


CONTENDERS: dict[str, Callable[[Path, pa.Table], Step]] = {
    "shared.tables, native": lambda folder, base: of_versioned_table(folder, base, "native"),
    "shared.tables, delta": lambda folder, base: of_versioned_table(folder, base, "delta"),
    "SQLite WAL, synchronous=FULL": of_sqlite,
    "DuckDB update + insert": of_duckdb,
    "delta-rs append (no fsync)": of_delta_append,
    "delta-rs merge (no fsync)": of_delta_merge,
    "polars rewrite": of_polars,
    "pandas rewrite": of_pandas,
}


def plain(rows: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def sql_rows(rows: pa.Table) -> list[tuple[object, ...]]:
    stamps = [name for name in rows.column_names if pa.types.is_timestamp(rows.schema.field(name).type)]
    for name in stamps:
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(pa.int64()))
    return list(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def replace_durably(aside: Path, path: Path) -> None:
    files.sync_file(aside)
    aside.replace(path)
    files.sync_dir(path.parent)


def measure(
    make: Callable[[Path, pa.Table], Step], base: pa.Table, repeat: int, seconds: float
) -> tuple[float, float, float]:
    """Median and 95th percentile in milliseconds, and bytes written for each commit, as the kernel counts them."""
    folder = Path(tempfile.mkdtemp(prefix="asof-bench-"))
    try:
        step = make(folder, base)
        step(0)
        process, times = psutil.Process(), []
        before = process.io_counters().write_chars
        stop = time.perf_counter() + seconds
        for number in range(1, repeat + 1):
            began = time.perf_counter()
            step(number)
            times.append(time.perf_counter() - began)
            if time.perf_counter() > stop and number >= 3:
                break
        written = (process.io_counters().write_chars - before) / len(times)
        ordered = sorted(times)
        return statistics.median(times) * 1e3, ordered[int(0.95 * (len(ordered) - 1))] * 1e3, written
    finally:
        shutil.rmtree(folder)


def commits(sizes: list[int], repeat: int, console: Console) -> None:
    grid = Grid(title=f"durable commit of {CHANGED} changed symbols: median ms (× native), 95th percentile, kB written")
    grid.add_column("")
    for size in sizes:
        grid.add_column(f"{size:,} symbols", justify="right")
    cells: dict[str, list[str]] = {name: [] for name in CONTENDERS}
    for size in sizes:
        base = symbols(size)
        reference = 0.0
        for name, make in CONTENDERS.items():
            median, high, written = measure(make, base, repeat, seconds=20)
            reference = reference or median
            cells[name].append(f"{median:8.2f} ({median / reference:6.1f}×) {high:8.1f} {written / 1e3:9.1f}")
    for name, row in cells.items():
        grid.add_row(name, *row)
    console.print(grid)


def reading(sizes: list[int], console: Console) -> None:
    grid = Grid(title="native table with 64 deltas: reading and compaction, ms")
    for title in ("symbols", "load newest, cold", "load newest, warm", "read all", "read 2 columns", "merge deltas",
                  "compact all", "verify", "MB live"):  # fmt: skip
        grid.add_column(title, justify="right")
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="asof-bench-"))
        try:
            grid.add_row(f"{size:,}", *reading_one(open_table(folder / "table"), symbols(size)))
        finally:
            shutil.rmtree(folder)
    console.print(grid)


def reading_one(table: Table, base: pa.Table) -> list[str]:
    table.commit(0, Changes((NewSegment(base),)))
    for number in range(1, 65):
        table.commit(number, Changes((NewSegment(changed(base, number)),)))
    newest = table.load()
    times = [
        clocked(lambda: open_table(table.root).load(), 9),
        clocked(table.load, 99),
        clocked(newest.read, 3),
        clocked(partial(newest.read, ["symbol", "valid_from"]), 3),
        clocked(partial(table.compact, small_only=True), 1),
        clocked(table.compact, 1),
        clocked(table.verify, 1),
    ]
    return [*(f"{each:.3f}" for each in times), f"{table.load().bytes / 1e6:.1f}"]


def clocked(act: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1130,100000,1000000")
    parser.add_argument("--repeat", type=int, default=100)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    console = Console(width=200)
    commits(sizes, arguments.repeat, console)
    reading(sizes, console)


if __name__ == "__main__":
    main()
