"""The ledger and the gate side by side with the obvious way to write them, as a table of ratios.

    .venv/bin/python benchmarks/auditor.py [--runs 1000] [--symbols 10000] [--repeat 20]

The ledger: what one durable entry, one look-up and one check of the chain cost after so many runs. The obvious way is
the same file of hashed lines, read from its beginning whenever something is asked; SQLite in its durable mode is a
store that keeps no chain. The gate: one run with so many symbols, from its events to its decision; the obvious way
looks at every outcome after every event. Medians in one process; every contender fsyncs what it writes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from services.auditor.adapters.ledger_file import LedgerFile, verify_ledger
from services.auditor.app import open_desk
from services.auditor.domain.assess import assess
from services.auditor.domain.chain import verify
from services.auditor.domain.gate import Facts, decide
from services.auditor.domain.notes import Note, note_of
from services.auditor.domain.tally import fold
from services.auditor.handlers import runs
from services.auditor.handlers.desk import Desk
from services.auditor.settings import Settings
from shared import events as e
from shared.clock import format_instant
from shared.paths import Home

NOW = datetime(2021, 12, 15, 8, 0, tzinfo=UTC)
BATCH = 50
SHA = "ab" * 32
RULES = e.Rules(name="screener", version="1")
Row = tuple[str, str, float, float]


# -- what the other services say of a run


def opening(symbols: Sequence[str], run_id: str) -> e.Event[Any]:
    return event(e.RunCandidates(candidates=list(symbols), run_id=run_id))


def story(home: Home, symbols: Sequence[str], run_id: str) -> Iterator[e.Event[Any]]:
    """A run's events, batch by batch; the first symbol of every batch is toxic."""
    for symbol in symbols:
        yield event(e.SymbolMetadata(run_id=run_id, symbol=symbol, observed_at=NOW, record={"currency": "PHP"}))
    for number, start in enumerate(range(0, len(symbols), BATCH)):
        batch = symbols[start : start + BATCH]
        toxic = e.Rejected(stage="validation", failure=e.Failure(code="toxic", message="+900 %", retryable=False))
        staged = tuple(e.Staged(symbol=symbol, rows=1, last_bar=NOW, bars_sha256=SHA) for symbol in batch[1:])
        attempts = {"fetched": len(batch), "failed": 0, "started_at": NOW, "duration_s": 1.0}
        yield event(e.CatalogUpdated(run_id=run_id, catalog_version=number + 1, inserted=tuple(batch)))
        yield event(e.FetchAttempted(run_id=run_id, kind="metadata", batch=number, idx=1, **attempts))
        yield event(
            e.BarsHydrated(run_id=run_id, batch=number, interval="1d", hydrated=tuple(bars(home, one) for one in batch))
        )
        yield event(e.FetchAttempted(run_id=run_id, kind="bars", batch=number, idx=1, **attempts))
        yield event(
            e.RatingsComputed(
                run_id=run_id,
                batch=number,
                interval="1d",
                rules=RULES,
                file=staged_file(home, run_id, number),
                staged=staged,
                rejected={batch[0]: toxic},
            )
        )


def bars(home: Home, symbol: str) -> e.Bars:
    path = home.relative(home.bars_table("1d", symbol))
    return e.Bars(
        symbol=symbol, path=path, table_version=1, sha256=SHA, rows=300, first_bar=NOW, last_bar=NOW, added=300
    )


def staged_file(home: Home, run_id: str, batch: int) -> e.FileRef:
    path = home.run(run_id).staged_parts / f"{batch}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"rows")
    return e.FileRef(path=home.relative(path), sha256=hashlib.sha256(b"rows").hexdigest(), rows=1)


def event(payload: e.Payload) -> e.Event[Any]:
    return e.Event.of(payload, source="benchmark", time=NOW, subject=payload.run)


# -- the obvious ledger: read it all, whenever anything is asked


class Obvious:
    """Hashed lines in a file, and nothing remembered between two questions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[dict[str, Any]]:
        entries, prev = [], "0" * 64
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            entry = json.loads(line)
            body = {name: value for name, value in entry.items() if name not in ("hash", "prev")}
            assert entry["prev"] == prev
            assert entry["hash"] == hashlib.sha256((prev + json.dumps(body, sort_keys=True)).encode()).hexdigest()
            prev = entry["hash"]
            entries.append(entry)
        return entries

    def append(self, key: str, data: dict[str, Any]) -> None:
        entries = self.entries()
        if any(entry["key"] == key for entry in entries):
            return
        prev = entries[-1]["hash"] if entries else "0" * 64
        body = {"n": len(entries) + 1, "key": key, "run_id": key.split(":")[1], "data": data}
        text = prev + json.dumps(body, sort_keys=True)
        with self.path.open("ab") as file:
            hashed = {**body, "prev": prev, "hash": hashlib.sha256(text.encode()).hexdigest()}
            file.write(json.dumps(hashed, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def find(self, key: str) -> dict[str, Any] | None:
        return next((entry for entry in self.entries() if entry["key"] == key), None)

    def of_run(self, run_id: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries() if entry["run_id"] == run_id]


class Database:
    """A table in SQLite, its log fsynced at every commit; no chain."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("pragma journal_mode = wal")
        self.connection.execute("pragma synchronous = full")
        self.connection.execute("create table entries (n integer primary key, key text unique, run_id text, data text)")
        self.connection.execute("create index by_run on entries (run_id)")

    def append(self, key: str, data: dict[str, Any]) -> None:
        row = (key, key.split(":")[1], json.dumps(data))
        self.connection.execute("insert or ignore into entries (key, run_id, data) values (?, ?, ?)", row)

    def find(self, key: str) -> object:
        return self.connection.execute("select data from entries where key = ?", (key,)).fetchone()

    def of_run(self, run_id: str) -> list[Any]:
        return self.connection.execute("select data from entries where run_id = ?", (run_id,)).fetchall()


def ledger_rows(folder: Path, count: int, repeat: int) -> Iterator[Row]:
    """Four entries a run, as large as real ones, then each question `repeat` times."""
    home = Home.at(folder / "house")
    home.root.mkdir()
    ours, obvious, database = LedgerFile(home), Obvious(folder / "obvious.jsonl"), Database(folder / "ledger.db")
    data = {"coverage": {"path": "runs/r/feature_ingest_coverage.json", "sha256": SHA}, "reason": "x" * 400, "n": 4}
    keys = [f"{kind}:r{run}" for run in range(count) for kind in ("opened", "covered", "decided", "promoted")]
    fill_obvious(obvious, keys, data)
    database.connection.execute("begin")
    for key in keys:
        enter(ours, key, data)
        database.append(key, data)
    database.connection.execute("commit")
    new = iter(range(10**9))
    middle, run = keys[len(keys) // 2], keys[len(keys) // 2].split(":")[1]
    questions: list[tuple[str, Callable[[], object], Callable[[], object], Callable[[], object] | None]] = [
        (
            "one durable entry",
            lambda: enter(ours, f"opened:new{next(new)}", data),
            lambda: obvious.append(f"opened:new{next(new)}", data),
            lambda: database.append(f"opened:new{next(new)}", data),
        ),
        ("find a fact", lambda: ours.find(middle), lambda: obvious.find(middle), lambda: database.find(middle)),
        ("a run's entries", lambda: ours.of_run(run), lambda: obvious.of_run(run), lambda: database.of_run(run)),
        ("a run's extract", lambda: ours.extract(run), lambda: obvious.of_run(run), None),
        ("is it whole (before each decision)", ours.broken, obvious.entries, None),
    ]
    for name, first, second, third in questions:
        took = median_ms(first, repeat)
        yield name, "as here", took, 1.0
        naive = median_ms(second, max(3, repeat // 4))
        yield "", "read it all", naive, naive / took
        if third is not None:
            stored = median_ms(third, repeat)
            yield "", "SQLite, no chain", stored, stored / took
    lines = home.ledger.read_bytes().splitlines(keepends=True)
    yield f"start: read and check {len(lines):,} entries", "as here", median_ms(LedgerFile(home).refresh, 1), 1.0
    yield "asof audit ledger, all of it", "as here", median_ms(lambda: verify_ledger(home), 3), 1.0
    assert verify(lines)[0] == []


def enter(ledger: LedgerFile, key: str, data: dict[str, Any]) -> object:
    kind, _, run_id = key.partition(":")
    return ledger.append(kind, key=key, data=data, time=NOW, run_id=run_id)


def fill_obvious(obvious: Obvious, keys: Sequence[str], data: dict[str, Any]) -> None:
    """What its own `append` would have written, without reading all of it for every line."""
    prev, lines = "0" * 64, []
    for n, key in enumerate(keys, start=1):
        body = {"n": n, "key": key, "run_id": key.split(":")[1], "data": data}
        digest = hashlib.sha256((prev + json.dumps(body, sort_keys=True)).encode()).hexdigest()
        lines.append(json.dumps({**body, "prev": prev, "hash": digest}, sort_keys=True))
        prev = digest
    obvious.path.write_text("\n".join(lines) + "\n")


# -- the gate


def gate_rows(folder: Path, count: int) -> Iterator[Row]:
    home, desk = new_house(folder)
    symbols = [f"PSE:S{number:05}" for number in range(count)]
    events = list(story(home, symbols, "r1"))
    run_loop = asyncio.Runner()
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    run_loop.run(runs.open_(opening(symbols, "r1"), desk=desk))
    for start in range(0, len(events), 64):
        run_loop.run(runs.note(events[start : start + 64], desk=desk))
    spent = (time.process_time() - begun) * 1000
    run_loop.close()
    (decided,) = desk.ledger.of_run("r1", "decided")
    assert decided.data["decision"] == "blocked"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024
    yield f"{count:,} symbols, {len(events):,} events: CPU", f"as here (+{grown:.0f} MB)", spent, 1.0
    naive = look_at_all(desk, events, every=max(1, len(events) // 12))
    yield "", "look at all after every event", naive, naive / spent
    with desk.runs.hold("r1") as run:
        manifest, tally = run.manifest, run.journal.tally
        assert manifest is not None
        took = median_ms(lambda: assess(manifest, tally, closed_at=NOW, closed_by="complete"), 5)
        yield "coverage of all of them, once", "as here", took, 1.0
        most = fold([note_of(one) for one in events[: len(events) - len(events) // 20]])
        took = median_ms(lambda: most.is_complete(manifest), 50)
        yield "is it complete (asked after each batch)", "as here", took, 1.0
        everything = median_ms(lambda: complete_by_looking(manifest.expected, most), 20)
        yield "", "look at every symbol", everything, everything / took
    facts = Facts(expected=count, gaps=count // BATCH, waived=0)
    yield "the decision itself", "as here", median_ms(lambda: decide(facts), 1000), 1.0


def look_at_all(desk: Desk, events: Sequence[e.Event[Any]], *, every: int) -> float:
    """CPU for coverage anew after every event, measured at every so many-th and scaled up."""
    with desk.runs.hold("r1") as run:
        manifest = run.manifest
    assert manifest is not None
    notes: list[Note] = []
    spent = 0.0
    for number, one in enumerate(events):
        notes.append(note_of(one))
        if number % every == 0:
            tally = fold(notes)
            begun = time.process_time()
            assess(manifest, tally, closed_at=NOW, closed_by="complete")
            spent += (time.process_time() - begun) * every
    return spent * 1000


def complete_by_looking(expected: Sequence[str], tally: Any) -> bool:
    return all(symbol in tally.metadata and symbol in tally.rated for symbol in expected)


def many_rows(folder: Path, count: int) -> Iterator[Row]:
    """A house's life: `count` runs of twenty symbols one after the other, and what one costs early and late."""
    home, desk = new_house(folder)
    symbols = [f"PSE:S{number:02}" for number in range(20)]
    run_loop = asyncio.Runner()
    costs = []
    for number in range(count):
        run_id = f"r{number}"
        events = list(story(home, symbols, run_id))
        begun = time.perf_counter()
        run_loop.run(runs.open_(opening(symbols, run_id), desk=desk))
        run_loop.run(runs.note(events, desk=desk))
        costs.append((time.perf_counter() - begun) * 1000)
    run_loop.close()
    assert len(desk.ledger.of_kind("decided")) == count
    edge = max(1, min(100, count // 3))
    early, late = statistics.median(costs[:edge]), statistics.median(costs[-edge:])
    yield f"a run of 20 symbols: the first {edge}", "as here", early, 1.0
    yield f"the last {edge} of {count:,}", "as here", late, late / early


def new_house(folder: Path) -> tuple[Home, Desk]:
    home = Home.at(folder)
    return home, open_desk(Settings(home=folder), home, lambda: NOW + timedelta(seconds=1))


def median_ms(act: Callable[[], object], repeat: int) -> float:
    took = []
    for _ in range(repeat):
        begun = time.perf_counter()
        act()
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--symbols", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    grid = Grid(title=f"the auditor, {format_instant(datetime.now(UTC))[:10]}, {os.cpu_count()} cores", box=None)
    for name in ("what", "how", "ms", "ratio"):
        grid.add_column(name, justify="right" if name in ("ms", "ratio") else "left")
    with tempfile.TemporaryDirectory() as folder:
        parts = {"ledger": Path(folder) / "a", "gate": Path(folder) / "b", "many": Path(folder) / "c"}
        parts["ledger"].mkdir()
        for row in (
            *ledger_rows(parts["ledger"], arguments.runs, arguments.repeat),
            *gate_rows(parts["gate"], arguments.symbols),
            *many_rows(parts["many"], arguments.runs),
        ):
            grid.add_row(row[0], row[1], f"{row[2]:,.3f}", f"{row[3]:,.1f} x")
    Console(width=120).print(grid)


if __name__ == "__main__":
    main()
