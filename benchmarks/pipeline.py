"""Time and peak memory of the main job (`asof demo`, 272 symbols, 538,408 bars), by stage; then the same job again.

    .venv/bin/python benchmarks/pipeline.py

Stages overlap: a batch's ratings are computed while the next batch's bars travel. A stage's seconds are those from the
run's opening to the stage's first and last event, by the events' own times.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from asof.embedded import embedded_redis
from shared.paths import Home

RUN_ID = "demo-2021-12-15"
STAGES = (
    ("metadata fetched", "symbol-metadata"),
    ("metadata versioned", "catalog-updated"),
    ("bars fetched and stored", "bars-hydrated"),
    ("ratings computed and staged", "ratings-computed"),
    ("merged into the store", "features-promoted"),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "data"
        first, peaks = demo(home)
        second, _ = demo(home)
        print(f"{'first run':32}{first:8.2f} s")
        print(f"{'second run, nothing to do':32}{second:8.2f} s")
        print(f"{'embedded server, until ready':32}{asyncio.run(server_start()):8.2f} s, median of 9")
        print()
        print(f"{'stage of the 2021-12-15 run':32}{'first':>8}{'last':>9}   seconds after its opening")
        for name, begun, ended in stages(home):
            print(f"{name:32}{begun:8.2f}{ended:9.2f}")
        print()
        for name, peak in sorted(peaks.items(), key=lambda item: -item[1]):
            print(f"{name:32}{peak / 2**20:8.0f} MiB peak")


def demo(home: Path) -> tuple[float, dict[str, int]]:
    """Seconds of one `asof demo`, and the peak resident memory of each of its processes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "asof", "demo", "--json"],
        env={**environment, "ASOF_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    peaks: dict[str, int] = {}
    while process.poll() is None:
        for name, resident in memory(psutil.Process(process.pid)):
            peaks[name] = max(peaks.get(name, 0), resident)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"asof demo ended with exit code {process.returncode}")
    return time.perf_counter() - began, peaks


async def server_start() -> float:
    took = []
    for _ in range(9):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            async with embedded_redis(Home.at(folder)):
                took.append(time.perf_counter() - began)
    return statistics.median(took)


def memory(parent: psutil.Process) -> Iterator[tuple[str, int]]:
    for process in (parent, *parent.children(recursive=True)):
        try:
            command, resident = process.cmdline(), process.memory_info().rss
        except psutil.Error:
            continue  # it ended between being listed and being looked at
        if "upstream" in command:
            yield "replay upstream", resident
        elif any("valkey" in part or "redis" in part for part in command[:1]):
            yield "redis", resident
        elif process == parent:
            yield "the four services", resident


def stages(home: Path) -> Iterator[tuple[str, float, float]]:
    run = home / "runs" / RUN_ID
    opened = datetime.fromisoformat(json.loads((run / "manifest.json").read_text())["opened_at"])
    lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "outcomes.jsonl").read_text().splitlines()]
    for name, stream in STAGES:
        times = [datetime.fromisoformat(line["time"]) for line in lines if line.get("stream") == stream]
        if times:
            yield name, (min(times) - opened).total_seconds(), (max(times) - opened).total_seconds()


if __name__ == "__main__":
    main()
