"""What the features service does on command: record that a symbol was split, or take such a record back."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.features.ports import AdjustmentBook
from shared.clock import Clock
from shared.errors import ContractError, PipelineError
from shared.events import Command, CommandResult, Event, explain
from shared.symbols import Symbol

SOURCE = "features"
_KIND = "adjust"


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


async def carry_out(event: Event[Command], *, book: AdjustmentBook, clock: Clock) -> list[Event[Any]]:
    """The result of `adjust`; other commands are other services' to answer."""
    command = event.data
    if command.kind != _KIND:
        return []
    try:
        message = await asyncio.to_thread(_adjust, command, book)
        result = _result(command, "done", message)
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


def _result(command: Command, outcome: Any, message: str, **references: Any) -> CommandResult:
    return CommandResult(
        command_id=command.command_id, kind=command.kind, outcome=outcome, message=message, references=references
    )
