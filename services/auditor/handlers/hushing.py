"""`ack` and `silence`: somebody knows of an alert, or does not want to hear of some for a while."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from services.auditor.domain.model import Frozen
from services.auditor.handlers.answers import Done, result_of
from services.auditor.handlers.desk import Desk
from shared.clock import format_instant, parse_instant
from shared.errors import ContractError, NotFoundError
from shared.events import Command, Event, explain


class SilenceRequest(Frozen):
    """`labels` that an alert must have (`fingerprint` counts as one), and until when."""

    labels: dict[str, str]
    until: str
    reason: str = ""


def acknowledge(desk: Desk, command: Command, event: Event[Command]) -> Done:
    fingerprint = str(command.arguments.get("fingerprint", ""))
    with desk.alerts.open() as book:
        firing = [row.alert.fingerprint for row in book.firing()]
    named = [one for one in firing if fingerprint and one.startswith(fingerprint)]
    if len(named) != 1:
        raise NotFoundError(
            f"{'no' if not named else 'more than one'} alert that lasts has the fingerprint {fingerprint!r}",
            fix="asof alerts",
        )
    line = {"fingerprint": named[0], "by": command.requested_by, "at": format_instant(desk.clock())}
    desk.alerts.add([{"acknowledged": line}])
    return result_of(command, "done", f"alert {named[0]} will not be repeated", fingerprint=named[0]), [], []


def silence(desk: Desk, command: Command, event: Event[Command]) -> Done:
    request = _read(command.arguments)
    until = parse_instant(request.until, name="until")
    if until <= desk.clock():
        raise ContractError(f"{format_instant(until)} has passed", fix="asof alerts silence --until LATER")
    if not request.labels:
        raise ContractError("a silence without labels would hold back every alert", fix="name at least one label")
    line: dict[str, Any] = {
        "labels": request.labels,
        "until": format_instant(until),
        "by": command.requested_by,
        "reason": request.reason,
    }
    desk.alerts.add([{"silenced": line}])
    return result_of(command, "done", f"silent until {format_instant(until)}: {request.labels}"), [], []


def _read(arguments: Any) -> SilenceRequest:
    try:
        return SilenceRequest.model_validate(arguments)
    except ValidationError as fault:
        raise ContractError("the silence cannot be read", cause=explain(fault), fix="asof alerts --help") from fault
