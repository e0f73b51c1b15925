"""The replay upstream of the demo: a process of its own, so that it has a core of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx

from shared.clock import format_instant
from shared.errors import TransientError
from shared.paths import Home

_START_S = 30


@dataclass(frozen=True)
class Replay:
    url: str
    endpoints: dict[str, str]

    async def set_clock(self, now: datetime) -> None:
        """From here on nothing later than `now` is served."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{self.url}/_replay/clock", json={"now": format_instant(now)})
            answer.raise_for_status()


@asynccontextmanager
async def replay_upstream(home: Home, now: datetime) -> AsyncIterator[Replay]:
    """`asof upstream` on a free loopback port while the context is open."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asof", "upstream", "--port", "0", "--now", format_instant(now), "--json"),
        env=_environment(home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield await _announced(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _announced(process: asyncio.subprocess.Process) -> Replay:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_S)
    except TimeoutError as fault:
        raise TransientError(
            "the replay upstream did not start", cause=f"no word in {_START_S} s", fix="asof upstream"
        ) from fault
    if not line:
        cause = (await process.stderr.read()).decode(errors="replace").strip()
        raise TransientError("the replay upstream did not start", cause=cause[-500:], fix="asof upstream")
    said = json.loads(line)
    return Replay(said["url"], said["endpoints"])


def _environment(home: Home) -> dict[str, str]:
    return {**os.environ, "ASOF_HOME": str(home.root)}
