"""`asof audit metadata`: asking upstreams through the fetcher, and showing where the catalog says otherwise."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import typer

from asof.cli.output import Exit, emit, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from shared.events import CommandResult

_AT_ONCE = 20_000  # symbols that the fetcher takes in one command
_SHOWN = 50


def audit_metadata(sample: int | None, seed: int, *, as_json: bool) -> None:
    """Exit code 5 when a field that says what a symbol is or how it trades differs, 4 when no upstream answered."""
    from asof.cli.lake import open_lake
    from asof.comparing import chosen, compare
    from shared.errors import IntegrityError
    from shared.files import sha256_bytes

    lake = open_lake()
    symbols = chosen(lake.catalog, sample, seed)
    results = asyncio.run(_ask([symbols[start : start + _AT_ONCE] for start in range(0, len(symbols), _AT_ONCE)]))
    contents = []
    for result in results:
        if result.outcome != "done":
            _report(result, as_json=as_json)
            raise typer.Exit(Exit.UPSTREAM)
        data = lake.home.resolve(str(result.references["path"])).read_bytes()
        if sha256_bytes(data) != result.references["sha256"]:
            raise IntegrityError("the fetcher's answer is not the file that it announced", fix="asof audit metadata")
        contents.append(json.loads(data))
    found = compare(lake.catalog, symbols, contents)
    told = {**found.as_dict(), "next": "asof refresh" if found.differences else None}
    emit(told, as_json=as_json, render=lambda console: _draw(console, told))
    if found.structural:
        raise typer.Exit(Exit.INTEGRITY)
    if not found.answered:
        raise typer.Exit(Exit.UPSTREAM)


def _report(result: CommandResult, *, as_json: bool) -> None:
    emit(
        result.model_dump(mode="json"),
        as_json=as_json,
        render=lambda console: console.print(f"{result.outcome}: {result.message}", soft_wrap=True),
    )


async def _ask(batches: list[list[str]]) -> list[CommandResult]:
    from asof.runner import house_at_work
    from asof.settings import house_settings

    async with house_at_work(house_settings(), ["fetcher"]) as session:
        return [await session.ask("audit-metadata", {"symbols": batch}) for batch in batches]


def _draw(console: Console, told: dict[str, Any]) -> None:
    rows = [
        (name, f"{one['compared']:,}", f"{one['matching_percent']:.2f} %", "structure" if one["structural"] else "")
        for name, one in told["fields"].items()
    ]
    if rows:
        print_table(console, ("field", "compared", "matching", ""), rows, right="compared matching")
    for one in told["differences"][:_SHOWN]:
        console.print(
            f"{one['symbol']}  {one['field']}: the catalog has {one['catalog']}, upstream says {one['upstream']} "
            f"({one['cause']}; last confirmed {one['last_confirmed']})",
            style="red" if one["structural"] else "yellow",
            soft_wrap=True,
        )
    if len(told["differences"]) > _SHOWN:
        console.print(f"… and {len(told['differences']) - _SHOWN:,} more; --json lists all")
    for symbol, failure in told["failures"].items():
        console.print(f"{symbol}  not compared, {failure['code']}: {failure['message']}", soft_wrap=True)
    percent = "nothing to compare" if told["matching_percent"] is None else f"{told['matching_percent']:.2f} % match"
    console.print(
        f"{told['answered']:,} of {told['asked']:,} symbols answered; {percent}; "
        f"{told['structural_differences']:,} structural differences",
        style="bold",
        soft_wrap=True,
    )
    if told["next"]:
        console.print(f"next: {told['next']}", style="cyan")
