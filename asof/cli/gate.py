"""waive, promote, report and audit: evidence, exceptions and the gate."""

from __future__ import annotations

from pathlib import Path
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
    run_id: Annotated[
        str | None, typer.Argument(help="a run, as `asof runs` lists them; every run until it expires when absent")
    ] = None,
    *,
    symbols: Annotated[
        list[str], typer.Option("--symbol", "-s", help="EXCHANGE:TICKER; several with commas, or repeated")
    ],
    stage: Annotated[str, typer.Option(help="where the gap is: candidates, metadata, bars, validation or ratings")],
    reason: Annotated[str, typer.Option(help="why its absence is acceptable")],
    approver: Annotated[str, typer.Option(help="who signs for it")],
    expires: Annotated[str, typer.Option(help="until when, ISO 8601")],
    code: Annotated[
        str | None,
        typer.Option(help="the gap's error code; one for every run has to name it (a halted stock: no_bars)"),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="a file with the approver's private key, where the house asks for signatures")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="say what the gate would decide, and change nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Accept that symbols are missing, in one run or until a date. It accepts an absence; it never lets data in."""
    from asof.cli.ask import ask

    arguments: dict[str, Any] = {
        "symbols": [symbol for listed in symbols for symbol in listed.split(",")],
        "stage": stage,
        "reason": reason,
        "approver": approver,
        "expires": expires,
        "preview": preview,
        **({} if code is None else {"code": code}),
    }
    if key is not None:
        arguments["signature"] = _signature(arguments, run_id, key)
    ask("waive", arguments, run_id=run_id, as_json=as_json)


def _signature(arguments: dict[str, Any], run_id: str | None, key: Path) -> str:
    """The approver's, over the waiver and the evidence that it accepts."""
    from asof.cli.lake import open_lake
    from services.auditor import decided_coverage, read_private_key, read_request, sign, statement

    private = read_private_key(key)
    evidence = None if run_id is None else decided_coverage(open_lake().home, run_id).evidence_sha256
    return sign(private, statement(read_request(arguments), run_id=run_id, evidence_sha256=evidence))


def promote(run_id: RunId, as_json: AsJson = False) -> None:
    """Ask the gate again whether a run may be promoted. There is no way to force it."""
    from asof.cli.ask import ask

    ask("promote", {}, run_id=run_id, as_json=as_json)


def report(run_id: RunId, as_json: AsJson = False) -> None:
    """Write a run's report: one HTML file that opens without a network."""
    from asof.cli.ask import ask

    ask("report", {}, run_id=run_id, as_json=as_json)


def audit(
    what: Annotated[str, typer.Argument(help="pit, features, bars, tables (all of them), ledger or metadata")],
    run_id: Annotated[str | None, typer.Argument(help="only this run's entries (ledger)")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="go back to the newest sound version of each damaged table")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="so many symbols, by chance; all active ones when absent (metadata)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the sample: the same one chooses the same symbols")] = 0,
    as_json: AsJson = False,
) -> None:
    """Prove that history is sound: intervals, files, the ledger's chain, or that the catalog is what upstreams say."""
    if what == "metadata":
        from asof.cli.metadata import audit_metadata

        audit_metadata(sample, seed, as_json=as_json)
        return
    import os

    from asof.audits import run_audit, run_repair
    from asof.settings import house_settings
    from shared.clock import system_clock

    home = house_settings().paths()
    result = (
        run_repair(what, home, now=system_clock(), by=os.environ.get("USER") or f"uid {os.getuid()}")
        if repair
        else run_audit(what, home, run_id)
    )
    emit(result.as_dict(), as_json=as_json, render=lambda console: _draw_audit(console, result.as_dict()))
    if result.violations:
        raise typer.Exit(Exit.INTEGRITY)


def _draw_audit(console: Console, result: dict[str, Any]) -> None:
    for name, count in result["counts"].items():
        console.print(f"{name:24} {count:,}")
    for violation in result["violations"]:
        console.print(violation, style="red", soft_wrap=True)
    for table in result.get("repairable", ()):
        console.print(f"a repair of {_given_up(table)}", style="yellow", soft_wrap=True)
        console.print(f"next: {table['next']}", style="cyan", soft_wrap=True)
    for table in result.get("repaired", ()):
        console.print(f"the repair of {_given_up(table)}; its files are in {table['kept_aside']}", soft_wrap=True)
        if table["next"]:
            console.print(f"next: {table['next']}", style="cyan", soft_wrap=True)
    count = len(result["violations"])
    console.print("sound" if not count else f"{count:,} {'violation' if count == 1 else 'violations'}", style="bold")


def _given_up(table: dict[str, Any]) -> str:
    versions = ", ".join(map(str, table["gives_up"]))
    rows = "an unknown number of rows" if table["rows_lost"] is None else f"{table['rows_lost']:,} rows"
    runs = f" of {', '.join(table['runs'])}" if table["runs"] else ""
    if table["goes_back_to"] == 0:
        return f"{table['table']} is not possible: none of its versions is sound ({versions})"
    back = "the newest stays" if table["goes_back_to"] is None else f"goes back to version {table['goes_back_to']}"
    return f"{table['table']} gives up version {versions} with {rows}{runs}; {back}"
