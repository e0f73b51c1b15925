"""The catalog side by side with what else one would pick: upserts, single reads, the bulk as-of join, memory.

    .venv/bin/python benchmarks/catalog.py [--sizes 1130,100000,1000000] [--repeat 40] [--pairs 1000000]

Every contender of a table does the same job, one step of each in turn, so that a busy machine is busy for all of them.
An upsert takes 50 records of which a field changed, compares them with what is stored, closes the old version and adds
the new one, durably. Medians of one process; `ratio` is against the catalog. The CPU column is the process's own time.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as Grid

from services.catalog.adapters.catalog import MetadataCatalog
from services.catalog.adapters.facts import arrow_schema
from services.catalog.adapters.frames import codes_of, find_places, micros_of
from services.catalog.domain.schema import SYMBOLS
from shared.files import sync_dir, sync_file
from shared.tables import Changes, NewSegment, open_table

CHANGED = 50
START = 1_704_067_200_000_000  # 2024-01-01, in microseconds
DAY = 86_400_000_000
NOW = datetime(2024, 6, 1, tzinfo=UTC)
FEW = ("exchange", "quote", "currency", "type", "subtype", "sector", "industry", "country", "timezone", "session")

Step = Callable[[list[dict[str, Any]], int], None]


def name_of(number: int) -> str:
    return f"VENUE:S{number:07d}"


def facts(symbols: int, versions: int = 1) -> pa.Table:
    """`versions` facts a symbol, a day apart, as the catalog stores them; the tick size changes with each."""
    random = np.random.default_rng(0)
    count = symbols * versions
    which = np.repeat(np.arange(symbols), versions)
    turn = np.tile(np.arange(versions), symbols)
    names: Any = pa.array([name_of(number) for number in range(symbols)])
    columns: dict[str, Any] = {}
    for one in arrow_schema(SYMBOLS):
        if one.name == "symbol":
            columns[one.name] = names if versions == 1 else names.take(which)
        elif one.name == "kind":
            columns[one.name] = pa.array(["record"] * count).dictionary_encode()
        elif one.name in {"effective", "known"}:
            columns[one.name] = pa.array(START + turn * DAY, one.type)
        elif one.name == "stated":
            columns[one.name] = pa.array(np.full(count, (1 << len(SYMBOLS.attributes)) - 1))
        elif one.name in FEW:
            columns[one.name] = pa.array([f"{one.name}{code}" for code in random.integers(0, 20, symbols)])
            columns[one.name] = columns[one.name].dictionary_encode().take(which)
        elif one.name in {"base", "description"}:
            columns[one.name] = pa.array([f"{one.name} of {number}" for number in range(symbols)])
            columns[one.name] = columns[one.name].take(which)
        elif pa.types.is_floating(one.type):
            columns[one.name] = pa.array((random.integers(1, 10_000, symbols)[which] + turn) / 100)
        elif pa.types.is_boolean(one.type):
            columns[one.name] = pa.array(np.full(count, one.name == "active"))
        elif pa.types.is_integer(one.type):
            columns[one.name] = pa.array(random.integers(1, 10_000, symbols)[which])
        else:
            columns[one.name] = pa.nulls(count, one.type)
    return pa.table(columns)


def house(folder: Path, rows: pa.Table) -> MetadataCatalog:
    open_table(folder).commit(0, Changes((NewSegment(rows),)))
    return MetadataCatalog.open(folder, clock=lambda: NOW)


def versioned(rows: pa.Table) -> pa.Table:
    """The same as versions with their ends, for those who store versions."""
    plain = rows.select(["symbol", *SYMBOLS.attributes])
    for name in plain.column_names:
        if pa.types.is_dictionary(plain[name].type):
            plain = plain.set_column(plain.column_names.index(name), name, plain[name].cast(pa.string()))
    plain = plain.append_column("valid_from", rows["effective"])
    symbols = rows["symbol"].to_numpy(zero_copy_only=False)
    ends = np.append(symbols[1:] != symbols[:-1], True)
    until = np.append(rows["effective"].cast(pa.int64()).to_numpy()[1:], 0)
    return plain.append_column("valid_until", pa.array(until, mask=ends).cast(pa.timestamp("us", "UTC")))


def changes(symbols: int, step: int) -> list[dict[str, Any]]:
    picked = np.random.default_rng(step).choice(symbols, CHANGED, replace=False)
    return [{"symbol": name_of(number), "tick_size": (step + 1) / 1000, "sector": "Food"} for number in picked.tolist()]


# -- the contenders


def of_sqlite(folder: Path, base: pa.Table) -> tuple[Step, sqlite3.Connection]:
    connection = sqlite3.connect(folder / "symbols.sqlite", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    names = base.column_names
    connection.execute(f"create table symbols ({', '.join(names)})")
    plain = base.set_column(names.index("valid_from"), "valid_from", base["valid_from"].cast(pa.int64()))
    plain = plain.set_column(names.index("valid_until"), "valid_until", plain["valid_until"].cast(pa.int64()))
    connection.execute("begin")
    for batch in plain.to_batches(max_chunksize=50_000):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        connection.executemany(f"insert into symbols values ({', '.join('?' * len(names))})", rows)
    connection.execute("commit")
    connection.execute("create index by_symbol on symbols (symbol, valid_from)")

    def step(records: list[dict[str, Any]], number: int) -> None:
        at = START + (number + 1000) * 1000
        connection.execute("begin immediate")
        for record in records:
            found = connection.execute(
                "select * from symbols where symbol = ? and valid_until is null", (record["symbol"],)
            ).fetchone()
            new = {**dict(zip(names, found, strict=True)), **record, "valid_from": at}
            if tuple(new.values())[:-2] == found[:-2]:
                continue
            connection.execute(
                "update symbols set valid_until = ? where symbol = ? and valid_until is null", (at, record["symbol"])
            )
            connection.execute(f"insert into symbols values ({', '.join('?' * len(names))})", tuple(new.values()))
        connection.execute("commit")

    return step, connection


def of_duckdb(folder: Path, base: pa.Table) -> Step:
    connection = duckdb.connect(str(folder / "symbols.duckdb"))
    connection.register("base", base)
    connection.execute("create table symbols as select * from base")

    def step(records: list[dict[str, Any]], number: int) -> None:
        connection.register("news", pa.Table.from_pylist(records))
        connection.execute("begin")
        connection.execute(
            "create or replace temp table fresh as select s.* replace (n.tick_size as tick_size, n.sector as sector,"
            f" make_timestamptz({START + (number + 1000) * 1000}) as valid_from)"
            " from symbols s join news n using (symbol)"
            " where s.valid_until is null and (s.tick_size, s.sector) is distinct from (n.tick_size, n.sector)"
        )
        connection.execute(
            "update symbols set valid_until = f.valid_from from fresh f"
            " where symbols.symbol = f.symbol and symbols.valid_until is null"
        )
        connection.execute("insert into symbols select * from fresh")
        connection.execute("commit")

    return step


def of_pandas(folder: Path, base: pa.Table) -> Step:
    path = folder / "symbols-pandas.parquet"
    base.to_pandas().to_parquet(path)

    def step(records: list[dict[str, Any]], number: int) -> None:
        frame = pd.read_parquet(path)
        news = pd.DataFrame(records).set_index("symbol")
        at = pd.Timestamp(START + (number + 1000) * 1000, unit="us", tz="UTC")
        rows = frame[frame["valid_until"].isna() & frame["symbol"].isin(news.index)]
        fresh = rows.assign(
            tick_size=news["tick_size"].reindex(rows["symbol"]).to_numpy(),
            sector=news["sector"].reindex(rows["symbol"]).to_numpy(),
            valid_from=at,
        )
        frame.loc[rows.index, "valid_until"] = at
        replace(pd.concat([frame, fresh], ignore_index=True).to_parquet, path)

    return step


def of_polars(folder: Path, base: pa.Table) -> Step:
    path = folder / "symbols-polars.parquet"
    pq.write_table(base, path)

    def step(records: list[dict[str, Any]], number: int) -> None:
        frame, news = pl.read_parquet(path), pl.DataFrame(records)
        at = pl.lit(START + (number + 1000) * 1000).cast(pl.Datetime("us", "UTC"))
        is_open = pl.col("valid_until").is_null() & pl.col("symbol").is_in(news["symbol"].implode())
        fresh = frame.filter(is_open).update(news, on="symbol").with_columns(valid_from=at)
        closed = frame.with_columns(valid_until=pl.when(is_open).then(at).otherwise(pl.col("valid_until")))
        replace(pl.concat([closed, fresh]).write_parquet, path)

    return step


def replace(write: Callable[[Path], Any], path: Path) -> None:
    aside = path.with_suffix(".tmp")
    write(aside)
    sync_file(aside)
    aside.replace(path)
    sync_dir(path.parent)


# -- measuring


@dataclass
class Times:
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, act: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        act()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    @property
    def ms(self) -> float:
        return statistics.median(self.wall) * 1000

    @property
    def cpu_ms(self) -> float:
        return statistics.median(self.cpu) * 1000


def show(console: Console, title: str, found: Mapping[str, Times], note: Mapping[str, str] | None = None) -> None:
    grid = Grid(title=title, title_justify="left")
    for name in ("", "ms", "CPU ms", "ratio", ""):
        grid.add_column(name, justify="left" if not name else "right")
    ours = next(iter(found.values())).ms
    for name, times in found.items():
        grid.add_row(
            name, f"{times.ms:.4g}", f"{times.cpu_ms:.4g}", f"{times.ms / ours:.3g}", (note or {}).get(name, "")
        )
    console.print(grid)


def resident() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def upserts(sizes: list[int], repeat: int, console: Console) -> None:
    floor = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            rows = facts(size)
            base = versioned(rows)
            house(folder / "table", rows)
            del rows
            before = resident()
            opening = Times()
            catalog = MetadataCatalog.open(folder / "table", clock=lambda: NOW)
            opening.take(lambda catalog=catalog: catalog.get_instrument(name_of(0), as_of=NOW))  # type: ignore[misc]
            memory = resident() - before
            sqlite_step, connection = of_sqlite(folder, base)
            steps: dict[str, Step] = {
                "catalog": lambda records, number, catalog=catalog: catalog.upsert_symbols(  # type: ignore[misc]
                    records, known_at=datetime.fromtimestamp(START / 1e6 + number + 1000, UTC), run_id="run-1"
                ),
                "SQLite, WAL, synchronous=FULL": sqlite_step,
                "DuckDB": of_duckdb(folder, base),
                "polars rewrite": of_polars(folder, base),
                "pandas rewrite": of_pandas(folder, base),
            }
            del base
            found = {name: Times() for name in steps}
            slow = max(3, repeat // 10)
            for number in range(repeat):
                for name, step in steps.items():
                    if name.endswith("rewrite") and number >= slow:
                        continue
                    records = changes(size, number)
                    found[name].take(lambda step=step, records=records, number=number: step(records, number))  # type: ignore[misc]
            written = catalog._table.load().manifest.written
            floor[size] = found["catalog"].ms
            show(
                console,
                f"Upsert, 50 changed of {size:,} symbols (load {os.getloadavg()[0]:.1f})",
                found,
                {"catalog": f"{written:,} bytes"},
            )
            console.print(
                f"  opening and the first read {opening.wall[0]:.2f} s ({opening.cpu[0]:.2f} s CPU),"
                f" {memory:.0f} MB more\n"
            )
            single_reads(catalog, connection, size, console)
            connection.close()
    if len(floor) > 1:
        console.print(f"growth from {min(floor):,} to {max(floor):,}: {floor[max(floor)] / floor[min(floor)]:.2f} x\n")


def single_reads(catalog: MetadataCatalog, connection: sqlite3.Connection, size: int, console: Console) -> None:
    random = np.random.default_rng(1)
    names = [name_of(number) for number in random.integers(0, size, 500).tolist()]
    for name in names:
        catalog.get_instrument(name, as_of=NOW)
    at = int(NOW.timestamp() * 1e6)

    def ours() -> None:
        for name in names:
            catalog.get_instrument(name, as_of=NOW)

    def sqlite() -> None:
        for name in names:
            connection.execute(
                "select * from symbols where symbol = ? and valid_from <= ? order by valid_from desc limit 1",
                (name, at),
            ).fetchone()

    found = {"catalog": Times(), "SQLite": Times()}
    for _ in range(9):
        found["catalog"].take(ours)
        found["SQLite"].take(sqlite)
    show(console, f"500 warm as_of reads at {size:,} symbols (microseconds each: twice the figure)", found)


def joins(pairs: int, console: Console) -> None:
    symbols, versions = 100_000, 5
    with tempfile.TemporaryDirectory() as scratch:
        rows = facts(symbols, versions)
        catalog = house(Path(scratch) / "table", rows)
        table = versioned(rows).select(["symbol", "valid_from", "tick_size"])
        random = np.random.default_rng(2)
        which = random.integers(0, symbols, pairs)
        stamps = pd.DatetimeIndex(START + random.integers(0, versions * DAY, pairs), dtype="datetime64[us]")
        names = np.array([name_of(number) for number in range(symbols)])
        text = pd.DataFrame({"symbol": pd.Series(names[which]), "ts": stamps.tz_localize("UTC")})
        coded = text.assign(symbol=pd.Categorical.from_codes(which, categories=pd.Index(names)))
        first = Times()
        first.take(lambda: catalog.join(text.head(1), columns=["tick_size"]))
        panel, codes = catalog._panel(None), catalog._book.codes
        own = codes_of(coded["symbol"], panel, codes)
        instants = micros_of(text["ts"])
        versions_frame = table.to_pandas().sort_values("valid_from", kind="stable")
        left = text.sort_values("ts", kind="stable")
        connection = duckdb.connect()
        connection.register("versions", table)
        connection.register("pairs", pa.Table.from_pandas(text, preserve_index=False))
        of_polars = pl.from_arrow(table)
        polars_left = pl.from_pandas(text)
        assert isinstance(of_polars, pl.DataFrame)
        contenders: dict[str, Callable[[], Any]] = {
            "catalog, search with codes": lambda: panel.find(own, instants),
            "catalog, search with text": lambda: find_places(text["symbol"], text["ts"], panel, codes),
            "catalog.join, categorical, one column": lambda: catalog.join(coded, columns=["tick_size"]),
            "catalog.join, text, one column": lambda: catalog.join(text, columns=["tick_size"]),
            "catalog.join, text, all columns": lambda: catalog.join(text),
            "polars join_asof": lambda: polars_left.sort("ts").join_asof(
                of_polars.sort("valid_from"), left_on="ts", right_on="valid_from", by="symbol"
            ),
            "DuckDB asof join": lambda: connection.execute(
                "select p.*, v.tick_size from pairs p asof left join versions v"
                " on p.symbol = v.symbol and p.ts >= v.valid_from"
            ).to_arrow_table(),
            "pandas merge_asof, both sorted before": lambda: pd.merge_asof(
                left, versions_frame, left_on="ts", right_on="valid_from", by="symbol"
            ),
        }
        found = {name: Times() for name in contenders}
        for _ in range(5):
            for name, act in contenders.items():
                found[name].take(act)
        there = catalog.join(text, columns=["tick_size"])["tick_size"].to_numpy()
        expected = left.assign(tick_size=contenders["pandas merge_asof, both sorted before"]()["tick_size"].to_numpy())
        assert np.array_equal(there, expected.sort_index()["tick_size"].to_numpy(), equal_nan=True)
        title = f"{pairs:,} pairs against {symbols * versions:,} versions (load {os.getloadavg()[0]:.1f})"
        show(console, title, found)
        console.print(f"  the first bulk read of a version derives its columns once: {first.wall[0]:.2f} s\n")


def observations(size: int, console: Console) -> None:
    """What it costs to remember that nothing changed."""
    with tempfile.TemporaryDirectory() as scratch:
        catalog = house(Path(scratch) / "table", facts(size))
        catalog.version  # noqa: B018  reads the table
        records = [{"symbol": name_of(number), "subtype": None, "active": True} for number in range(size)]
        before = catalog._book.nbytes
        times = Times()
        times.take(lambda: catalog.upsert_symbols(records, effective_at=NOW, known_at=NOW))
        written = catalog._table.load().manifest.written
        grown = catalog._book.nbytes - before
        console.print(
            f"{size:,} observations that change nothing: {times.wall[0]:.1f} s, on disk {written / size:.1f} and in"
            f" memory {grown / size:.1f} bytes each\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1130,100000,1000000")
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    arguments = parser.parse_args()
    console = Console(width=140)
    upserts([int(size) for size in arguments.sizes.split(",")], arguments.repeat, console)
    joins(arguments.pairs, console)
    observations(100_000, console)


if __name__ == "__main__":
    main()
