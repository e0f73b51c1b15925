"""Sending a command to the services and printing what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from asof.cli.output import Exit, emit

if TYPE_CHECKING:
    from shared.events import CommandKind, CommandResult


def ask(kind: CommandKind, arguments: Mapping[str, Any], *, run_id: str | None = None, as_json: bool) -> CommandResult:
    """Publish the command, wait for its result and print it. Exit code 3 when it was refused, 5 when it failed."""
    result = published(kind, arguments, run_id=run_id)
    emit(
        result.model_dump(mode="json"),
        as_json=as_json,
        render=lambda console: console.print(f"{result.outcome}: {result.message}"),
    )
    refuse_unless_done(result)
    return result


def published(kind: CommandKind, arguments: Mapping[str, Any], *, run_id: str | None = None) -> CommandResult:
    """Publish the command and wait for what the service that carries it out says."""
    (result,) = published_each([kind], arguments, run_id=run_id)
    return result


def published_each(
    kinds: Sequence[CommandKind], arguments: Mapping[str, Any], *, run_id: str | None = None, timeout_s: float = 60
) -> list[CommandResult]:
    """Publish one command of each kind, one after the other, with the same arguments; what was said to each."""
    from asof.runner import house_at_work
    from asof.settings import house_settings

    async def talk() -> list[CommandResult]:
        async with house_at_work(house_settings()) as session:
            return [await session.ask(kind, arguments, run_id=run_id, timeout_s=timeout_s) for kind in kinds]

    return asyncio.run(talk())


def refuse_unless_done(result: CommandResult, *, failed: Exit = Exit.INTEGRITY) -> None:
    """End with exit code 3 when the command was refused, with `failed` when it failed."""
    if result.outcome != "done":
        raise typer.Exit(Exit.BLOCKED if result.outcome == "refused" else failed)
