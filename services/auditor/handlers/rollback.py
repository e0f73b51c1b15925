"""`rollback`: the feature store goes back to what it was before a promotion, as a new version of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from services.auditor.domain.model import Frozen
from services.auditor.handlers.answers import Done, result_of
from services.auditor.handlers.desk import Desk
from shared.clock import format_instant
from shared.errors import ContractError
from shared.events import Command, Event, Interval, Name, explain


class RollbackRequest(Frozen):
    """`to` is a version of the feature table; without it, the newest one of another run than the present one's."""

    interval: Interval = "1d"
    rules: Name = "screener"
    to: Annotated[int, Field(ge=0)] | None = None
    reason: Annotated[str, Field(max_length=500)] = ""


def rollback(desk: Desk, command: Command, event: Event[Command]) -> Done:
    request = _read(command.arguments)
    key = f"rolled_back:{command.command_id}"
    entry = desk.ledger.find(key)
    if entry is None:
        rolled = desk.tables.rollback(
            request.interval,
            request.rules,
            to=request.to,
            command_id=command.command_id,
            at=format_instant(desk.clock()),
        )
        entry = desk.ledger.append(
            "rolled_back",
            key=key,
            time=desk.clock(),
            data={
                "interval": request.interval,
                "rules": request.rules,
                "from": rolled.before,
                "to": rolled.equals,
                "feature_version": rolled.version,
                "catalog_version": rolled.catalog_version,
                "reason": request.reason,
                "requested_by": command.requested_by,
            },
        )
    data = entry.data
    message = (
        f"features {request.interval} {request.rules}: version {data['feature_version']} equals version {data['to']}; "
        f"it replaces version {data['from']}"
    )
    result = result_of(command, "done", message, version=data["feature_version"], equals=data["to"])
    return result, [desk.event(_export(command, data), time=event.time)], []


def _export(command: Command, rolled: Mapping[str, Any]) -> Command:
    """The plain file is the features service's: it is told once the store went back. A repeat is the same command."""
    return Command(
        command_id=f"{command.command_id[:57]}-export",
        kind="export",
        arguments={"interval": rolled["interval"], "rules": rolled["rules"], "version": rolled["feature_version"]},
        requested_by=command.requested_by,
    )


def _read(arguments: Any) -> RollbackRequest:
    try:
        return RollbackRequest.model_validate(arguments)
    except ValidationError as fault:
        raise ContractError("the rollback cannot be read", cause=explain(fault), fix="asof rollback --help") from fault
