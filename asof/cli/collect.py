"""gc: giving back the space of what nobody names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asof.cli.output import AsJson, Exit, emit, print_table

if TYPE_CHECKING:
    from datetime import timedelta

    from rich.console import Console

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def register(app: typer.Typer) -> None:
    app.command("gc")(collect)


def collect(
    apply: Annotated[bool, typer.Option("--apply", help="remove it; without it nothing is removed")] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", help="spare what was in use within this time: 90m, 12h, 7d")
    ] = "1d",
    as_json: AsJson = False,
) -> None:
    """Show, and with --apply remove, what no version, run, tag or ledger entry names."""
    from asof.cli.lake import open_lake
    from asof.gc import collect_house
    from shared.clock import system_clock

    spared = _duration(older_than)
    collected = collect_house(open_lake().home, older_than=spared, now=system_clock(), apply=apply)
    found = {**collected.as_dict(), "next": _next(apply, bool(collected.groups), bool(collected.refused), older_than)}
    emit(found, as_json=as_json, render=lambda console: _draw(console, found))
    if collected.refused:
        raise typer.Exit(Exit.INTEGRITY)


def _duration(text: str) -> timedelta:
    from datetime import timedelta

    from shared.errors import ContractError

    parts = re.fullmatch(r"(\d{1,6})([smhd]?)", text.strip())
    if parts is None or (not parts[2] and int(parts[1])):
        raise ContractError(
            f"--older-than {text!r} is no length of time", fix="a number with s, m, h or d: --older-than 12h"
        )
    return timedelta(seconds=int(parts[1]) * _UNITS[parts[2] or "s"])


def _next(applied: bool, something: bool, damaged: bool, older_than: str) -> str | None:
    if damaged:
        return "asof audit pit"
    if something and not applied:
        return "asof gc --apply" + ("" if older_than == "1d" else f" --older-than {older_than}")
    return None


def _draw(console: Console, found: dict[str, Any]) -> None:
    rows = [
        (
            group["where"],
            f"{group['tables']:,}" if group["tables"] else "",
            f"{group['versions']:,}" if group["versions"] else "",
            f"{group['files']:,}",
            _size(group["bytes"]),
            group["why"],
        )
        for group in found["groups"]
    ]
    if rows:
        print_table(
            console, ("where", "tables", "versions", "files", "size", "why"), rows, right="tables versions files size"
        )
    for run_id, since in found["open_runs"].items():
        console.print(
            f"run {run_id} is not decided: every version that was the newest since {since:%Y-%m-%d %H:%M} stays",
            style="yellow",
            soft_wrap=True,
        )
    for root, why in found["refused"].items():
        console.print(f"{root} is left as it is: {why}", style="red", soft_wrap=True)
    did = "removed" if found["applied"] else "would be removed"
    total = f"{found['files']:,} files, {_size(found['bytes'])} {did}" if rows else "nothing to remove"
    spared = f"spared is what was in use since {found['newest_since']:%Y-%m-%d %H:%M}"
    console.print(f"{total}; {spared}", style="bold", soft_wrap=True)
    if found["next"]:
        console.print(f"next: {found['next']}", style="cyan")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1_000:
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1_000
    return f"{count:,.1f} GB"
