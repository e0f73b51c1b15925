"""What the features service does on command: record a split or take such a record back, write the plain file, and take
over the ratings of an existing house."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.features.ports import AdjustmentBook, FeatureStore
from shared.clock import Clock
from shared.errors import ContractError, PipelineError
from shared.events import Command, CommandResult, Event, Interval, Name, explain
from shared.symbols import Symbol

SOURCE = "features"


class AdjustmentAsked(BaseModel):
    """`factor` is the new price over the old price of the same thing; `withdraw` takes a record back instead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    date: date
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    known_at: AwareDatetime | None = None
    reason: Annotated[str, Field(min_length=3, max_length=500)]
    withdraw: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> AdjustmentAsked:
        if (self.factor is None) != self.withdraw:
            raise ValueError("give a factor, or withdraw")
        return self


class ExportAsked(BaseModel):
    """`version` is the one that asks for it; the file shows the newest, which may be a later one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval: Interval
    rules: Name
    version: Annotated[int, Field(ge=0)]


class ImportAsked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[str, Field(min_length=1, max_length=4096)]
    apply: bool = False


class Taken(Protocol):
    """What became of another house's file."""

    @property
    def symbols(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def as_dict(self) -> dict[str, Any]: ...


Take = Callable[[str, bool], Taken]


async def carry_out(
    event: Event[Command], *, book: AdjustmentBook, store: FeatureStore, take: Take, clock: Clock
) -> list[Event[Any]]:
    """The result of `adjust`, `export` or `import-features`; other commands are other services' to answer."""
    command = event.data
    acts: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
        "adjust": lambda: (_adjust(command, book), {}),
        "export": lambda: (_export(command, store), {}),
        "import-features": lambda: _import(command, take),
    }
    if command.kind not in acts:
        return []
    try:
        message, references = await asyncio.to_thread(acts[command.kind])
        result = _result(command, "done", message, **references)
    except PipelineError as fault:
        outcome = "failed" if fault.retryable else "refused"
        result = _result(command, outcome, str(fault), code=fault.code, retryable=fault.retryable)
    return [Event.of(result, source=SOURCE, time=clock(), subject=command.command_id)]


def _adjust(command: Command, book: AdjustmentBook) -> str:
    try:
        asked = AdjustmentAsked.model_validate(command.arguments)
    except ValidationError as fault:
        raise ContractError("this is no adjustment", cause=explain(fault), fix="asof adjust --help") from fault
    by = command.requested_by
    if asked.factor is None:
        book.withdraw(asked.symbol, asked.date, recorded_by=by, reason=asked.reason)
        return f"{asked.symbol}: the adjustment of {asked.date} is withdrawn"
    recorded = book.record(
        asked.symbol, asked.date, asked.factor, recorded_by=by, reason=asked.reason, known_at=asked.known_at
    )
    known = f"known since {recorded.known_at:%Y-%m-%d}"
    return f"{asked.symbol}: {asked.factor:g} times the old price from {asked.date} on, {known}; next: asof retry RUN"


def _export(command: Command, store: FeatureStore) -> str:
    try:
        asked = ExportAsked.model_validate(command.arguments)
    except ValidationError as fault:
        raise ContractError("this asks for no export", cause=explain(fault), fix="asof rollback --help") from fault
    store.export(asked.interval, asked.rules)
    return f"the plain file of features {asked.interval} {asked.rules} is that of the newest version"


def _import(command: Command, take: Take) -> tuple[str, dict[str, Any]]:
    try:
        asked = ImportAsked.model_validate(command.arguments)
    except ValidationError as fault:
        raise ContractError("this is no import", cause=explain(fault), fix="asof import --help") from fault
    taken = take(asked.folder, asked.apply)
    word = "taken over" if asked.apply else "would be taken over"
    message = f"ratings of {taken.symbols:,} symbols ({taken.rows:,} rows) {word}, to be read with rules imported"
    return message, {"files": [taken.as_dict()]}


def _result(command: Command, outcome: Any, message: str, **references: Any) -> CommandResult:
    return CommandResult(
        command_id=command.command_id, kind=command.kind, outcome=outcome, message=message, references=references
    )
