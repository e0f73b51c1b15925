"""retry, rollback, diff, reproduce, waivers and alerts: what the person on duty looks at and does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asof.cli.output import AsJson, Exit, emit

if TYPE_CHECKING:
    from rich.console import Console

RunId = Annotated[str, typer.Argument(help="a run, as `asof runs` lists them")]

alerts = typer.Typer(
    help="List the alerts that last; acknowledge one, or silence some until a time.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.command()(retry)
    app.command()(rollback)
    app.command()(diff)
    app.command()(reproduce)
    app.command()(waivers)
    app.add_typer(alerts, name="alerts")


def retry(
    run_id: RunId,
    detach: Annotated[bool, typer.Option("--detach", help="ask and return; do not wait for the new verdict")] = False,
    as_json: AsJson = False,
) -> None:
    """Open a blocked run again for what failed, only for that, and follow it to its new verdict."""
    from asof.cli.picture import draw_verdict
    from asof.cli.retrying import retry_run

    result, verdict = retry_run(run_id, detach=detach)
    if verdict is None:
        emit(
            result.model_dump(mode="json"),
            as_json=as_json,
            render=lambda console: console.print(f"{result.outcome}: {result.message}", soft_wrap=True),
        )
        if result.outcome != "done":
            raise typer.Exit(Exit.BLOCKED if result.outcome == "refused" else Exit.INTEGRITY)
        return
    emit(verdict.as_dict(), as_json=as_json, render=lambda console: draw_verdict(console, verdict))
    if verdict.decision != "granted":
        raise typer.Exit(Exit.UPSTREAM if verdict.nothing_came else Exit.BLOCKED)


def rollback(
    to: Annotated[
        int | None, typer.Option(help="a version of the feature table; the one before the present run's when absent")
    ] = None,
    reason: Annotated[str, typer.Option(help="why, for the ledger")] = "",
    interval: Annotated[str, typer.Option()] = "1d",
    rules: Annotated[str, typer.Option()] = "screener",
    as_json: AsJson = False,
) -> None:
    """Make the feature store what it was before a promotion, as a new version. Nothing is deleted."""
    from asof.cli.ask import ask

    ask("rollback", {"to": to, "reason": reason, "interval": interval, "rules": rules}, as_json=as_json)


def diff(
    a: Annotated[str, typer.Argument(help="a version of the feature store, `prod`, or a run that was promoted")],
    b: Annotated[str, typer.Argument(help="the same, usually the later one")],
    interval: Annotated[str, typer.Option()] = "1d",
    rules: Annotated[str, typer.Option()] = "screener",
    as_json: AsJson = False,
) -> None:
    """Show what changed in the feature store from one promoted version to another, cell by cell."""
    from asof.cli.differences import diff_versions
    from asof.cli.lake import open_lake

    found = diff_versions(open_lake(), a, b, interval=interval, rules=rules)
    emit(found, as_json=as_json, render=lambda console: _draw_diff(console, found))


def reproduce(run_id: RunId, as_json: AsJson = False) -> None:
    """Compute a run's ratings anew from the inputs it pinned, and compare every cell (exit code 5 when one differs)."""
    from asof.cli.lake import open_lake
    from asof.cli.reproducing import reproduce as compute
    from asof.logs import log_to_file

    lake = open_lake()
    log_to_file(lake.home.state / "services.log")
    found = compute(lake, run_id)
    emit(found.as_dict(), as_json=as_json, render=lambda console: _draw_reproduction(console, found.as_dict()))
    if not found.reproduced:
        raise typer.Exit(Exit.INTEGRITY)


def waivers(
    run_id: Annotated[str | None, typer.Argument(help="only those of this run, and standing ones")] = None,
    every: Annotated[bool, typer.Option("--all", help="expired ones too")] = False,
    as_json: AsJson = False,
) -> None:
    """List the waivers that hold: who accepted which absence, why, and until when."""
    from asof.cli.lake import open_lake
    from services.auditor import list_waivers
    from shared.clock import system_clock

    rows = [
        row
        for row in list_waivers(open_lake().home, now=system_clock())
        if (every or not row["expired"]) and (run_id is None or row["run_id"] in (None, run_id))
    ]
    emit(rows, as_json=as_json, render=lambda console: _draw_waivers(console, rows))


def _draw_diff(console: Console, found: dict[str, Any]) -> None:
    for side in ("a", "b"):
        version = found[side]
        by = f"run {version['run_id']}" if version["run_id"] else "nothing promoted"
        back = "" if version["rollback"] is None else f", rolled back to version {version['rollback']['to']}"
        console.print(
            f"{side}  version {version['version']}: {by}{back}, {version['symbols']:,} symbols, "
            f"catalog version {version['catalog_version'] or 0}",
            style="bold",
            soft_wrap=True,
        )
    symbols = found["symbols"]
    console.print(
        f"symbols  {len(symbols['added']):,} added, {len(symbols['removed']):,} removed, "
        f"{symbols['changed']:,} changed, {symbols['same']:,} the same"
    )
    for name in ("added", "removed"):
        if symbols[name]:
            console.print(f"  {name:8} {_few(symbols[name])}", soft_wrap=True)
    _draw_differences(console, found, ("a", "b"))


def _draw_reproduction(console: Console, found: dict[str, Any]) -> None:
    word, colour = ("REPRODUCED", "green") if found["reproduced"] else ("DIFFERS", "red")
    console.print(
        f"{word}  run {found['run_id']}: {found['symbols']:,} symbols, {found['rows_in_both']:,} rows, "
        f"rules {found['rules']}",
        style=f"bold {colour}",
        soft_wrap=True,
    )
    for symbol, why in found["unusable_inputs"].items():
        console.print(f"  {symbol}  {why}", soft_wrap=True)
    if not found["reproduced"]:
        _draw_differences(console, found, ("staged", "now"))


def _draw_differences(console: Console, found: dict[str, Any], sides: tuple[str, str]) -> None:
    left, right = sides
    columns = ", ".join(f"{name} {count:,}" for name, count in found["differing_columns"].items())
    console.print(
        f"rows     {found['rows_in_both']:,} in both, {found[f'rows_only_{left}']:,} only {left}, "
        f"{found[f'rows_only_{right}']:,} only {right}"
    )
    console.print(f"cells    {found['differing_cells']:,} differ{f' ({columns})' if columns else ''}", soft_wrap=True)
    for cell in found["first_cells"]:
        where = f"{cell['symbol']}  {cell['ts']:%Y-%m-%d %H:%M}  {cell['source']}  {cell['column']}"
        console.print(f"  {where}  {left} {cell[left]}  {right} {cell[right]}", soft_wrap=True)
    for row in found["first_rows"]:
        console.print(f"  {row['symbol']}  {row['ts']:%Y-%m-%d %H:%M}  {row['source']}  only {row['only']}")


def _few(names: list[str], shown: int = 20) -> str:
    return " ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def _draw_waivers(console: Console, rows: list[dict[str, Any]]) -> None:
    """What was signed for together is shown together."""
    if not rows:
        console.print("no waiver holds")
    together: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        where = "every run" if row["run_id"] is None else f"run {row['run_id']}"
        name = row["approver"] if row["verified"] else f"{row['approver']} (the name is not verified)"
        until = f"{row['expires']}{' (expired)' if row['expired'] else ''}"
        key = (f"{row['stage']}: {row['code']}  in {where}", str(row["entry"]), name, until, row["reason"])
        together.setdefault(key, []).append(row)
    for (what, entry, name, until, reason), signed in together.items():
        counted = "1 symbol" if len(signed) == 1 else f"{len(signed):,} symbols"
        console.print(f"{what}, {counted}", style="bold", soft_wrap=True)
        console.print(f"  {_few([row['symbol'] for row in signed], len(signed))}", soft_wrap=True)
        given = f"entry {entry} of the ledger, {signed[0]['given_at']}"
        _draw_details(console, {"waiver": given, "approver": name, "until": until, "reason": reason})


@alerts.callback()
def list_(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="those that ended too")] = False,
    as_json: AsJson = False,
) -> None:
    """List the alerts that last: what, which symbols, the exact error, since when, and what to do."""
    if context.invoked_subcommand is not None:
        return
    from asof.cli.lake import open_lake
    from services.auditor import list_alerts
    from shared.clock import system_clock

    rows = [row for row in list_alerts(open_lake().home, now=system_clock()) if every or row["status"] == "firing"]
    emit(rows, as_json=as_json, render=lambda console: _draw_alerts(console, rows))


@alerts.command()
def ack(
    fingerprint: Annotated[str, typer.Argument(help="as `asof alerts` shows it; its beginning is enough")],
    as_json: AsJson = False,
) -> None:
    """Say that you know of an alert: it is not repeated, and its end is still told."""
    from asof.cli.ask import ask

    ask("ack", {"fingerprint": fingerprint}, as_json=as_json)


@alerts.command()
def silence(
    until: Annotated[str, typer.Option(help="ISO 8601; without a zone it is UTC")],
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="NAME=VALUE that an alert has to have; may be repeated")
    ] = None,
    fingerprint: Annotated[str | None, typer.Argument(help="one alert, by its whole fingerprint")] = None,
    reason: Annotated[str, typer.Option(help="why")] = "",
    as_json: AsJson = False,
) -> None:
    """Hold back alerts until a time: one of them, or all that have the given labels."""
    from asof.cli.ask import ask

    labels = _labels(label or [])
    if fingerprint is not None:
        labels["fingerprint"] = fingerprint
    ask("silence", {"labels": labels, "until": until, "reason": reason}, as_json=as_json)


def _labels(stated: list[str]) -> dict[str, str]:
    from shared.errors import ContractError

    labels = {}
    for text in stated:
        name, mark, value = text.partition("=")
        if not (name and mark and value):
            raise ContractError(f"{text!r} is no label", fix="--label stage=bars, as `asof alerts --json` shows them")
        labels[name] = value
    return labels


def _draw_alerts(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("no alert lasts")
        return
    for row in rows:
        colour = "red" if row["status"] == "firing" else "green"
        console.print(f"{row['status'].upper()}  {row['annotations']['summary']}", style=colour, soft_wrap=True)
        details = {"fingerprint": row["fingerprint"], "since": row["starts_at"]}
        if row["status"] == "firing":
            details |= {"error": row["error"], "next": row["next_command"]}
        else:
            details |= {"ended": row["ends_at"]}
        if row["acknowledged_by"]:
            details["known to"] = row["acknowledged_by"]
        if row["silenced_until"]:
            details["silent"] = f"until {row['silenced_until']}"
        _draw_details(console, details)


def _draw_details(console: Console, details: dict[str, str]) -> None:
    for name, value in details.items():
        console.print(f"  {name:12}{value}", soft_wrap=True)
    console.print()
