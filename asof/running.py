"""Starting runs from the command line: read the candidates, publish one event, follow it to the verdict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asof.follow import FOLLOWED, Progress
from asof.progress import ProgressBars
from asof.runner import house_at_work
from asof.session import Session
from asof.settings import house_settings
from asof.verdict import Verdict, detached, read_verdict
from services.auditor.domain.manifest import RunManifest, check_same
from services.auditor.settings import Settings as AuditorSettings
from shared.candidates import Candidates, parse_candidates
from shared.errors import ContractError, TransientError
from shared.events import RunCandidates, explain
from shared.paths import ensure_safe_path

_BYTE_CAP = 64 << 20
# The auditor closes a run at its deadline; what is still missing a while after that is the auditor itself.
_GRACE_S = 60.0


def candidates_from(file: Path) -> Any:
    """The JSON of a candidates file, checked to hold at least one candidate.

    Raises UnsafePathError for a file outside the working folder and ASOF_HOME (symlinks resolved), ContractError for
    one that is no JSON or names no candidate.
    """
    settings = house_settings()
    path = ensure_safe_path(file, [Path.cwd(), settings.home], must_exist=True)
    if path.stat().st_size > _BYTE_CAP:
        raise ContractError(f"{file} has {path.stat().st_size:,} bytes, more than {_BYTE_CAP:,}", fix="split the run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as fault:
        raise ContractError(f"{file} is no JSON", cause=str(fault), fix='write a list such as ["PSE:JFC"]') from fault
    parsed = parse_candidates(content, default_exchange=settings.default_exchange)
    if not parsed.items:
        raise ContractError(
            f"{file} names no symbol",
            cause=parsed.malformed[0].reason,
            fix='write a list such as ["PSE:JFC"] or [{"symbol": "PSE:JFC"}]',
        )
    return content


def start_run(request: Mapping[str, Any], *, detach: bool, quiet: bool) -> Verdict:
    """Publish one `run-candidates` and follow it to the verdict; with `detach` return as soon as it is published."""
    return asyncio.run(_start_run(request, detach=detach, quiet=quiet))


async def _start_run(request: Mapping[str, Any], *, detach: bool, quiet: bool) -> Verdict:
    settings = house_settings()
    async with house_at_work(settings) as session:
        return await run_to_verdict(
            session, request, detach=detach, quiet=quiet, default_exchange=settings.default_exchange
        )


async def run_to_verdict(
    session: Session,
    request: Mapping[str, Any],
    *,
    detach: bool = False,
    quiet: bool = False,
    default_exchange: str | None = None,
) -> Verdict:
    """Publish the run and follow it. A run that is decided already is read back, not run again."""
    try:
        payload = RunCandidates(**{"requested_by": session.requested_by, **request})
    except ValueError as fault:
        cause = explain(fault) if hasattr(fault, "errors") else str(fault)  # type: ignore[arg-type]
        raise ContractError("the run cannot be started", cause=cause, fix="asof run --help") from fault
    parsed = parse_candidates(payload.candidates, default_exchange=default_exchange)
    before = _as_it_stands(session, payload)
    if before is not None and before.decision is not None:
        return before
    positions = await session.newest(*FOLLOWED)
    run_id = await session.start(payload)
    if detach:
        return detached(run_id, payload.profile, len(parsed.items) + len(parsed.malformed))
    followed = await _follow(session, run_id, parsed, payload, positions, quiet=quiet)
    return followed.completed(read_verdict(session.lake().run(run_id)))


def _as_it_stands(session: Session, payload: RunCandidates) -> Verdict | None:
    """The run of this id as its files have it. Raises ContractError when it was started with other content."""
    if payload.run_id is None or not session.home.run(payload.run_id).manifest.is_file():
        return None
    run = session.lake().run(payload.run_id)
    check_same(RunManifest.model_validate(run.manifest), payload)
    return read_verdict(run)


async def _follow(
    session: Session,
    run_id: str,
    parsed: Candidates,
    payload: RunCandidates,
    positions: Mapping[str, str],
    *,
    quiet: bool,
) -> Progress:
    progress = Progress(run_id, len(parsed.items))
    with ProgressBars(progress, payload.stages, quiet=quiet) as bars:
        async for event in session.follow(positions, timeout_s=_patience_s(payload, progress.expected)):
            if progress.note(event):
                bars.update()
            if progress.over:
                return progress
    raise TransientError(
        f"run {run_id} has no verdict",
        cause="the auditor said nothing; the run goes on",
        fix="asof doctor",
    )


def _patience_s(payload: RunCandidates, symbols: int) -> float:
    """How long the auditor may keep the run open, and a while more for the verdict to arrive."""
    return (payload.deadline_s or AuditorSettings().deadlines().seconds(symbols)) + _GRACE_S


def refresh_catalog(*, profile: str, workers: int | None, detach: bool, quiet: bool) -> Verdict:
    """Ask for a metadata run over every active symbol of the catalog and follow it."""
    return asyncio.run(_refresh(profile=profile, workers=workers, detach=detach, quiet=quiet))


async def _refresh(*, profile: str, workers: int | None, detach: bool, quiet: bool) -> Verdict:
    settings = house_settings()
    async with house_at_work(settings) as session:
        positions = await session.newest("run-candidates", *FOLLOWED)
        result = await session.ask("refresh", {"profile": profile, "workers": workers})
        if result.outcome != "done":
            raise ContractError(result.message, fix="asof run FILE, to bring symbols into the catalog first")
        run_id = str(result.references["run_id"])
        async for event in session.follow({"run-candidates": positions["run-candidates"]}, timeout_s=_GRACE_S):
            if isinstance(event.data, RunCandidates) and event.data.run_id == run_id:
                break
        else:
            raise TransientError(f"run {run_id} was announced but not published", fix="asof doctor")
        payload = event.data
        parsed = parse_candidates(payload.candidates, default_exchange=settings.default_exchange)
        if detach:
            return detached(run_id, payload.profile, len(parsed.items))
        followed = {stream: positions[stream] for stream in FOLLOWED}
        seen = await _follow(session, run_id, parsed, payload, followed, quiet=quiet)
        return seen.completed(read_verdict(session.lake().run(run_id)))
