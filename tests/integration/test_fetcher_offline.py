"""What a person gets when nobody answers: stored bars without the network, and a hard failure when nothing came."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asof.upstream.app import endpoints
from asof.upstream.made import made_source
from tests.integration.fetcher_fleet import NOW, replaying

ROOT = Path(__file__).resolve().parents[2]
# Nobody listens on port 9 of this machine.
DEAD = {
    **{
        f"ASOF_FETCHER_{name}_URL": "http://127.0.0.1:9"
        for name in ("SCANNER", "BINANCE", "BINANCE_USDM", "OKX", "BYBIT")
    },
    "ASOF_FETCHER_WS_URL": "ws://127.0.0.1:9/ws",
    "ASOF_FETCHER_BACKOFF_S": "0.02",
    "ASOF_FETCHER_OUTAGE_S": "1",
}


async def asof(home, upstreams, symbols, *options, code):
    """`asof run` over `symbols`, in its own process with its own Redis; gives the JSON it printed."""
    home.mkdir(exist_ok=True)
    file = home / "candidates.json"
    file.write_text(json.dumps(symbols))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASOF_")}
    command = [sys.executable, "-m", "asof", "run", str(file), "--as-of", NOW.isoformat(), "--json", *options]
    ended = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=environment | upstreams | {"ASOF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == code, f"exit {ended.returncode}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return json.loads(ended.stdout)


async def test_stored_bars_are_used_without_the_network_and_what_is_not_stored_is_named(tmp_path):
    home, symbols = tmp_path / "house", ["MADE:S0000", "MADE:S0001"]
    async with replaying(made_source(until=NOW, stocks=3, days=400)) as (replay, base):
        addresses = endpoints(base)
        living = {
            "ASOF_FETCHER_SCANNER_URL": addresses["scanner_url"],
            "ASOF_FETCHER_WS_URL": addresses["scanner_ws_url"],
        }
        hydrated = await asof(home, living, symbols, "--run-id", "hydrated", "--stages", "bars,ratings", code=0)
        assert hydrated["covered"] == 1
        asked = len(replay.record.entries())
        assert asked > 0
        offline = await asof(
            home, DEAD, [*symbols, "MADE:S0002"],
            *("--run-id", "offline", "--stages", "bars,ratings", "--bars", "lakehouse"),
            code=3,
        )  # fmt: skip
    assert (offline["expected"], offline["covered"]) == (3, pytest.approx(2 / 3))
    assert {gap["symbol"] for gap in offline["gaps"]} == {"MADE:S0002"}
    assert {gap["stage"] for gap in offline["gaps"]} == {"bars"}


async def test_nothing_that_came_after_the_last_attempt_is_exit_code_4_with_the_exact_error_of_each_symbol(tmp_path):
    symbols = ["MADE:S0000", "BINANCE:BTCUSDT", "OKX:BTCUSDT.P"]
    failed = await asof(tmp_path / "house", DEAD, symbols, "--run-id", "dead", "--stages", "metadata,bars", code=4)
    assert failed["covered"] == 0
    assert {(gap["symbol"], gap["stage"]) for gap in failed["gaps"]} >= {(symbol, "metadata") for symbol in symbols}
    for gap in failed["gaps"]:
        assert gap["code"] == "unreachable"
        assert "127.0.0.1:9" in json.dumps(gap)
