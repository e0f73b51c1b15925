"""`asof retry`: ask for what failed once more, and follow the run to its new verdict."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from asof.follow import FOLLOWED, Progress
from asof.runner import house_at_work
from asof.session import Session
from asof.settings import house_settings
from asof.verdict import Verdict, read_verdict
from shared.clock import parse_instant
from shared.errors import TransientError
from shared.events import CommandResult

# The auditor closes the run at its new deadline; what is still missing a while after that is the auditor itself.
_GRACE = timedelta(seconds=60)
_ENTERED_S = 10


def retry_run(run_id: str, *, detach: bool) -> tuple[CommandResult, Verdict | None]:
    """The auditor's answer and, unless it refused or nobody waits, the verdict that the run then came to."""
    return asyncio.run(_retry_run(run_id, detach=detach))


async def _retry_run(run_id: str, *, detach: bool) -> tuple[CommandResult, Verdict | None]:
    async with house_at_work(house_settings()) as session:
        positions = await session.newest(*FOLLOWED)
        result = await session.ask("retry", {}, run_id=run_id)
        if detach or result.outcome != "done":
            return result, None
        asked = result.references.get("symbols")
        progress = Progress(run_id, len(asked) if isinstance(asked, list) else 0)
        deadline = result.references.get("deadline_at")
        left = parse_instant(str(deadline)) - session.clock() if deadline else timedelta(0)
        async for event in session.follow(positions, timeout_s=(left + _GRACE).total_seconds()):
            progress.note(event)
            if progress.over:
                break
        else:
            raise TransientError(
                f"run {run_id} has no new verdict",
                cause="the auditor said nothing; the run goes on",
                fix="asof doctor",
            )
        return result, await _verdict(session, progress)


async def _verdict(session: Session, progress: Progress) -> Verdict:
    """The verdict from the run's files, once the auditor has entered the promotion that the streams told of."""
    run = session.lake().run(progress.run_id)
    for _ in range(_ENTERED_S * 10):
        verdict = read_verdict(run)
        if progress.promoted is None or verdict.promoted_version is not None:
            break
        await asyncio.sleep(0.1)
    return verdict
