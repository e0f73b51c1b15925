"""From a universe that somebody asks for to candidates, and to a catalog that knows what has vanished."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from asof.lakehouse import Lakehouse
from asof.upstream.app import endpoints
from asof.upstream.made import made_source
from tests.integration.fetcher_fleet import NOW, replaying

ROOT = Path(__file__).resolve().parents[2]


async def asof(home, base, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")} | {
        "ASOF_HOME": str(home),
        "ASOF_FETCHER_SCANNER_URL": endpoints(base)["scanner_url"],
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "asof", *arguments, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"exit {ended.returncode}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return json.loads(ended.stdout)


async def test_a_universe_becomes_candidates_and_what_vanished_from_it_is_retired(tmp_path):
    home = tmp_path / "house"
    async with replaying(made_source(until=NOW, stocks=4)) as (_, base):
        said = await asof(home, base, "discover", "--exchange", "MADE")
    assert said["references"]["symbols"] == 4
    candidates = json.loads(Path(said["file"]).read_text())
    assert [one["symbol"] for one in candidates["data"]] == [f"MADE:S{number:04}" for number in range(4)]
    assert all("Recommend.All" in one["metadata"] for one in candidates["data"])

    later = NOW + timedelta(days=30)
    async with replaying(made_source(until=NOW, stocks=3)) as (replay, base):
        replay.clock.set(later)
        await asof(home, base, "discover", "--exchange", "MADE")
    catalog = Lakehouse(home).catalog
    known = {number: catalog.get_instrument(f"MADE:S{number:04}", as_of=later) for number in (2, 3)}
    assert known[2]["active"] is not False
    assert known[3]["active"] is False
    assert catalog.get_instrument("MADE:S0003", as_of=NOW)["active"] is not False
