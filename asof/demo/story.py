"""The demo, step by step. Every step is a run, a waiver or a read that a user could have asked for by hand.

Run ids are fixed, so a second demo finds the verdicts of the first and asks only for what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asof.demo.replay import Replay, replay_upstream
from asof.lakehouse import Lakehouse
from asof.runner import house_at_work, import_services
from asof.running import run_to_verdict
from asof.session import Session
from asof.settings import HouseSettings
from asof.upstream import Instrument, pse_companies
from asof.verdict import Verdict, read_verdict
from shared.errors import ContractError
from shared.events import FeaturesPromoted

# Two earlier looks at the exchange, then the day of the run, each after the close in Manila.
OBSERVED = (datetime(2019, 6, 3, 8, tzinfo=UTC), datetime(2020, 12, 1, 8, tzinfo=UTC))
RUN_DAY = datetime(2021, 12, 15, 8, tzinfo=UTC)
RUN_ID = "demo-2021-12-15"
REASON = "known hole in the recorded data of the exchange; accepted for the demo"
APPROVER = "demo"

Say = Callable[[str], None]
Show = Callable[[Verdict], None]


@dataclass(frozen=True)
class Story:
    """What the demo made: the run's first verdict, its last, and the house they stand in."""

    home: Path
    blocked: Verdict | None
    promoted: Verdict
    symbols: int
    repeated: bool


async def play(settings: HouseSettings, *, say: Say, show: Show, quiet: bool) -> Story:
    """Play it; `say` gets a line a step, `show` each verdict on the run as soon as it stands."""
    home = settings.paths()
    home.root.mkdir(parents=True, exist_ok=True)
    final = _verdict(home.root, RUN_ID)
    if final is not None and final.promoted_version is not None:
        say("the demo has run here before; nothing is fetched or computed again")
        show(final)
        return Story(home.root, None, final, final.expected, repeated=True)
    companies = pse_companies()
    imported = asyncio.create_task(asyncio.to_thread(import_services))
    async with replay_upstream(home, OBSERVED[0]) as replay:
        await imported
        embedded = settings.model_copy(update={"redis_url": None})
        async with house_at_work(embedded, overrides={"fetcher": _pointed_at(replay)}) as session:
            for day in OBSERVED:
                symbols = _listed(companies, day)
                say(f"{day:%Y-%m-%d}: observing the metadata of {len(symbols)} listed companies")
                await replay.set_clock(day)
                await run_to_verdict(session, _observation(day, symbols), quiet=quiet)
            await replay.set_clock(RUN_DAY)
            symbols = _listed(companies, RUN_DAY)
            say(f"{RUN_DAY:%Y-%m-%d}: one run-candidates event with all {len(symbols)} listed companies")
            blocked = await run_to_verdict(session, _run(symbols), quiet=quiet)
            show(blocked)
            promoted = await sign_for_gaps(session, blocked, say=say)
            show(promoted)
            return Story(home.root, blocked, promoted, len(symbols), repeated=False)


async def sign_for_gaps(session: Session, blocked: Verdict, *, say: Say) -> Verdict:
    """Waive exactly the gaps that the verdict names, stage by stage; the last valid waiver promotes the run."""
    positions = await session.newest("features-promoted")
    expires = (session.clock() + timedelta(days=30)).isoformat()
    for stage, symbols in blocked.open_gaps_by_stage().items():
        say(f"signing for {len(symbols)} symbols missing in {stage}")
        arguments = {
            "symbols": symbols,
            "stage": stage,
            "reason": REASON,
            "approver": APPROVER,
            "expires": expires,
            "preview": False,
        }
        result = await session.ask("waive", arguments, run_id=blocked.run_id)
        if result.outcome != "done":
            raise ContractError(result.message, fix=f"asof show {blocked.run_id}")
    async for event in session.follow(positions, timeout_s=60):
        if isinstance(event.data, FeaturesPromoted) and event.data.run_id == blocked.run_id:
            break
    await session.settle()
    return read_verdict(session.lake().run(blocked.run_id))


def _pointed_at(replay: Replay) -> dict[str, str]:
    return {"scanner_url": replay.endpoints["scanner_url"], "ws_url": replay.endpoints["scanner_ws_url"]}


def _listed(companies: Sequence[Instrument], day: datetime) -> list[str]:
    return sorted(company.symbol for company in companies if company.is_listed(day.timestamp()))


def _observation(day: datetime, symbols: list[str]) -> dict[str, object]:
    return {
        "candidates": symbols,
        "run_id": f"demo-observed-{day:%Y-%m-%d}",
        "profile": "demo",
        "as_of": day,
        "stages": ["metadata"],
    }


def _run(symbols: list[str]) -> dict[str, object]:
    return {"candidates": symbols, "run_id": RUN_ID, "profile": "demo", "as_of": RUN_DAY}


def _verdict(home: Path, run_id: str) -> Verdict | None:
    lake = Lakehouse(home)
    return read_verdict(lake.run(run_id)) if run_id in lake.runs() else None
