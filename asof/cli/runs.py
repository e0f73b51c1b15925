"""run, refresh, runs and show: starting runs, following them to their verdict, and looking back at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asof.cli.output import AsJson, Exit, emit, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from asof.verdict import Verdict

Profile = Annotated[str, typer.Option(help="names the run's settings, for example canary")]
Workers = Annotated[int | None, typer.Option(min=1, max=32, help="symbols in flight at one upstream")]
Detach = Annotated[bool, typer.Option("--detach", help="publish and return; do not wait for the verdict")]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(refresh)
    app.command()(runs)
    app.command()(show)


def run(
    file: Annotated[Path, typer.Argument(help="candidates: a JSON list of symbols or objects")],
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="1 to 64 of A-Z a-z 0-9 _ -; the stream's entry id when absent")
    ] = None,
    profile: Profile = "default",
    interval: Annotated[str, typer.Option()] = "1d",
    rules: Annotated[str, typer.Option(help="of the ratings: screener, pine_v3 or institutional")] = "screener",
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="the last instant whose bars the run may use, UTC without a zone; else now"),
    ] = None,
    stages: Annotated[str, typer.Option(help="which work: metadata,bars,ratings")] = "metadata,bars,ratings",
    bars: Annotated[str, typer.Option(help="hydrate: fetch new bars; lakehouse: only what is stored")] = "hydrate",
    strict: Annotated[bool, typer.Option("--strict", help="abort at the first failure")] = False,
    strict_scope: Annotated[
        bool, typer.Option("--strict-scope", help="keep a matrix of only the run's symbols")
    ] = False,
    deadline: Annotated[float | None, typer.Option(help="seconds until silence is a gap; by size when absent")] = None,
    workers: Workers = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Start a run with the candidates in FILE and follow it to its verdict (exit code 3 when it is blocked)."""
    from asof.running import candidates_from, start_run
    from shared.clock import format_instant, parse_instant

    request = {
        "candidates": candidates_from(file),
        "run_id": run_id,
        "profile": profile,
        "interval": interval,
        "rules": rules,
        "as_of": None if as_of is None else format_instant(parse_instant(as_of, name="--as-of")),
        "stages": stages.split(","),
        "bars": bars,
        "strict": strict,
        "strict_scope": strict_scope,
        "deadline_s": deadline,
        "workers": workers,
    }
    _finish(start_run(request, detach=detach, quiet=as_json), as_json=as_json)


def refresh(
    profile: Profile = "default",
    workers: Workers = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the metadata of every active symbol in the catalog anew."""
    from asof.running import refresh_catalog

    _finish(refresh_catalog(profile=profile, workers=workers, detach=detach, quiet=as_json), as_json=as_json)


def runs(as_json: AsJson = False) -> None:
    """List the runs of this house, newest last."""
    from asof.cli.lake import open_lake
    from asof.verdict import read_verdict

    lake = open_lake()
    verdicts = [read_verdict(lake.run(run_id)) for run_id in lake.runs()]
    emit(
        [verdict.as_dict() for verdict in verdicts],
        as_json=as_json,
        render=lambda console: _draw_runs(console, verdicts),
    )


def show(
    run_id: Annotated[str, typer.Argument(help="a run, as `asof runs` lists them")],
    trace: Annotated[
        bool, typer.Option("--trace", help="where its time went, service by service (with ASOF_BUS_TRACES=true)")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one run: coverage, gaps with cause and the command that fixes them, decision, waivers, timeline."""
    from asof.cli.lake import open_lake
    from asof.cli.picture import draw_timeline, draw_verdict, draw_waived, draw_waterfall
    from asof.verdict import read_verdict, with_parity, with_rollback

    if trace:
        from dataclasses import asdict

        from shared.bus.traces import spans_of_run

        spans = spans_of_run(open_lake().home.state, run_id)
        emit([asdict(span) for span in spans], as_json=as_json, render=lambda console: draw_waterfall(console, spans))
        return
    found = open_lake().run(run_id)
    verdict = with_parity(found, with_rollback(found, read_verdict(found)))

    def draw(console: Console) -> None:
        draw_verdict(console, verdict)
        draw_waived(console, verdict)
        draw_timeline(console, verdict)

    emit(verdict.as_dict(), as_json=as_json, render=draw)


def _finish(verdict: Verdict, *, as_json: bool) -> None:
    from asof.cli.picture import draw_verdict

    emit(verdict.as_dict(), as_json=as_json, render=lambda console: draw_verdict(console, verdict))
    if verdict.decision == "blocked":
        raise typer.Exit(Exit.UPSTREAM if verdict.nothing_came else Exit.BLOCKED)


def _draw_runs(console: Console, verdicts: list[Verdict]) -> None:
    columns = ("run", "profile", "symbols", "covered", "with_waivers", "gaps", "verdict")
    print_table(console, columns, [_row(verdict) for verdict in verdicts], right="symbols covered with_waivers gaps")


def _row(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.run_id,
        verdict.profile,
        f"{verdict.expected:,}",
        "" if verdict.covered is None else f"{verdict.covered:.1%}",
        "" if verdict.covered_with_waivers is None else f"{verdict.covered_with_waivers:.1%}",
        f"{len(verdict.gaps):,}",
        verdict.decision or "open",
    )
