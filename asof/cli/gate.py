"""waive, promote, report and audit: evidence, exceptions and the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asof.cli.output import AsJson, Exit, emit

if TYPE_CHECKING:
    from rich.console import Console

RunId = Annotated[str, typer.Argument(help="a run, as `asof runs` lists them")]


def register(app: typer.Typer) -> None:
    app.command()(audit)
    app.command()(waive)
    app.command()(promote)
    app.command()(report)


def waive(
    run_id: RunId,
    symbols: Annotated[
        list[str], typer.Option("--symbol", "-s", help="EXCHANGE:TICKER; several with commas, or repeated")
    ],
    stage: Annotated[str, typer.Option(help="metadata, bars, validation or ratings: where the gap is")],
    reason: Annotated[str, typer.Option(help="why its absence is acceptable")],
    approver: Annotated[str, typer.Option(help="who signs for it")],
    expires: Annotated[str, typer.Option(help="until when, ISO 8601")],
    preview: Annotated[
        bool, typer.Option("--preview", help="say what the gate would decide, and change nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Accept that symbols of a run are missing. A waiver accepts an absence; it never lets data in."""
    from asof.cli.ask import ask

    arguments = {
        "symbols": [symbol for listed in symbols for symbol in listed.split(",")],
        "stage": stage,
        "reason": reason,
        "approver": approver,
        "expires": expires,
        "preview": preview,
    }
    ask("waive", arguments, run_id=run_id, as_json=as_json)


def promote(run_id: RunId, as_json: AsJson = False) -> None:
    """Ask the gate again whether a run may be promoted. There is no way to force it."""
    from asof.cli.ask import ask

    ask("promote", {}, run_id=run_id, as_json=as_json)


def report(run_id: RunId, as_json: AsJson = False) -> None:
    """Write a run's report: one HTML file that opens without a network."""
    from asof.cli.ask import ask

    ask("report", {}, run_id=run_id, as_json=as_json)


def audit(
    what: Annotated[str, typer.Argument(help="pit, features or ledger")],
    run_id: Annotated[str | None, typer.Argument(help="only this run's entries (ledger)")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that history is sound: the catalog's intervals, the feature store's files, or the ledger's chain."""
    from asof.audits import run_audit
    from asof.settings import house_settings

    result = run_audit(what, house_settings().paths(), run_id)
    emit(result.as_dict(), as_json=as_json, render=lambda console: _draw_audit(console, result.as_dict()))
    if result.violations:
        raise typer.Exit(Exit.INTEGRITY)


def _draw_audit(console: Console, result: dict[str, Any]) -> None:
    for name, count in result["counts"].items():
        console.print(f"{name:24} {count:,}")
    for violation in result["violations"]:
        console.print(violation, style="red")
    console.print("sound" if not result["violations"] else f"{len(result['violations']):,} violations", style="bold")
