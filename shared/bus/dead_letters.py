"""What becomes of an entry that cannot be applied: one `dead-letters` event with its raw bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime

from shared.errors import PipelineError
from shared.events import DeadLetter, Event, Failure, Payload

# Of an entry over the cap only the beginning is kept: it was refused unread and cannot be put back anyway.
_KEPT_OF_OVERSIZE = 64 << 10
_MOST_FIELDS = 100
_MESSAGE_CHARS = 2000


def dead_letter(
    *,
    stream: str,
    entry_id: bytes,
    fields: Mapping[bytes, bytes],
    group: str,
    consumer: str,
    deliveries: int,
    fault: BaseException,
    failures: int,
    event: Event[Payload] | None,
    time: datetime,
    cap: int,
) -> Event[Payload]:
    oversize = len(fields) > _MOST_FIELDS or sum(len(name) + len(value) for name, value in fields.items()) > cap
    kept = {
        name.decode("utf-8", "backslashreplace")[:200]: base64.b64encode(
            value[:_KEPT_OF_OVERSIZE] if oversize else value
        ).decode("ascii")
        for name, value in list(fields.items())[:_MOST_FIELDS]
    }
    data = DeadLetter(
        origin=stream,
        entry_id=entry_id.decode("ascii"),
        group=group,
        consumer=consumer,
        deliveries=deliveries,
        error=failure_of(fault, failures),
        fields=kept,
        truncated=oversize,
        run_id=event.data.run if event is not None else None,
    )
    # Consumer and deliveries differ between two workers that give up on the same entry; the letter is the same.
    return Event.of(data, source=group, time=time, subject=f"{stream}/{entry_id.decode('ascii')}")


def failure_of(fault: BaseException, attempts: int) -> Failure:
    if isinstance(fault, PipelineError):
        return Failure(
            code=fault.code,
            message=str(fault)[:_MESSAGE_CHARS],
            retryable=fault.retryable,
            attempts=attempts,
            fix=fault.fix,
        )
    text = f"{type(fault).__name__}: {fault}"
    return Failure(code="unexpected", message=text[:_MESSAGE_CHARS], retryable=True, attempts=attempts)


def raw_fields(letter: DeadLetter) -> dict[bytes, bytes]:
    """The fields of the original entry, as they were."""
    return {name.encode("utf-8"): base64.b64decode(value) for name, value in letter.fields.items()}
