"""The command `import-bars`: an existing house's bars are looked at, and with `apply` stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ContractError
from shared.events import Command, CommandResult, Event, explain


class Taken(Protocol):
    """What became of the bars of one interval."""

    @property
    def symbols(self) -> int: ...

    @property
    def added(self) -> int: ...

    def as_dict(self) -> dict[str, Any]: ...


Take = Callable[[str, bool], Sequence[Taken]]


class ImportAsked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[str, Field(min_length=1, max_length=4096)]
    apply: bool = False


async def import_bars(command: Command, *, take: Take) -> tuple[CommandResult, list[Event[Any]]]:
    """Raises ContractError for a command that asks for no import, and what `take` raises."""
    try:
        asked = ImportAsked.model_validate(command.arguments)
    except ValidationError as fault:
        raise ContractError("this is no import", cause=explain(fault), fix="asof import --help") from fault
    reports = await asyncio.to_thread(take, asked.folder, asked.apply)
    word = "taken over" if asked.apply else "would be taken over"
    added, symbols = sum(one.added for one in reports), sum(one.symbols for one in reports)
    result = CommandResult(
        command_id=command.command_id,
        kind=command.kind,
        outcome="done",
        message=f"{added:,} bars of {symbols:,} symbols {word}",
        references={"files": [one.as_dict() for one in reports]},
    )
    return result, []
