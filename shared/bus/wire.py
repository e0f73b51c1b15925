"""The fields of a stream entry: `data` (one event as JSON) and optionally `traceparent`; and what a person may type.

On `run-candidates` and `commands` a bare payload (`data` without the envelope) and flat fields are accepted and
wrapped: time = the entry id's, source = `by-hand`, id = content and entry id. A run without a run_id takes the entry's
id, so that every consumer agrees. `replay-of` carries the original entry id when a dead letter is put back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from shared.errors import ContractError
from shared.events import EVENTS, Command, Event, Payload, RunCandidates, explain, parse_event

DATA, TRACE, REPLAY = b"data", b"traceparent", b"replay-of"
BY_HAND = "by-hand"

_TYPED_BY_PEOPLE = (RunCandidates.stream, Command.stream)
_ENTRY_ID = re.compile(rb"^[0-9]{1,20}-[0-9]{1,20}$")
_KNOWN = frozenset((DATA, TRACE, REPLAY))
# What a dead letter adds to the entry that it carries: base64 (4/3) and its own words.
_DEAD_LETTER_ROOM = 1.5


def encode(event: Event[Any], *, trace: str | None = None) -> dict[bytes, bytes]:
    fields = {DATA: event.to_json()}
    if trace is not None:
        fields[TRACE] = trace.encode("ascii")
    return fields


def decode(stream: str, entry_id: bytes, fields: Mapping[bytes, bytes], *, cap: int) -> Event[Payload]:
    """The event of one entry. Raises ContractError that says what is wrong with it; nothing over `cap` is parsed."""
    size = sum(len(name) + len(value) for name, value in fields.items())
    allowed = int(cap * _DEAD_LETTER_ROOM) if stream == "dead-letters" else cap
    if size > allowed:
        raise ContractError(
            f"an entry of {stream} has {size:,} bytes, more than {allowed:,}", fix="send a reference, or fewer items"
        )
    raw = fields.get(DATA)
    if stream in _TYPED_BY_PEOPLE:
        return _typed(stream, _original(entry_id, fields), fields)
    if raw is None:
        raise ContractError(f"an entry of {stream} has no field `data`", fix="put the event's JSON there")
    if len(fields) > 1:
        _refuse_unknown(stream, fields)
    return parse_event(stream, raw)


def _typed(stream: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Event[Payload]:
    raw = fields.get(DATA)
    if raw is None:
        return _wrap(stream, entry_id, {_text(name): _flat(value) for name, value in fields.items() if name != REPLAY})
    _refuse_unknown(stream, fields)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as fault:
        raise ContractError(
            f"`data` of an entry of {stream} is no JSON", cause=str(fault), fix="check the quotes"
        ) from fault
    if not isinstance(content, dict):
        raise ContractError(
            f"`data` of an entry of {stream} is no JSON object", fix='for example {"candidates":["PSE:JFC"]}'
        )
    if "specversion" not in content:
        return _wrap(stream, entry_id, content)
    event = parse_event(stream, raw)
    if isinstance(event.data, RunCandidates) and event.data.run_id is None:
        # The same list sent again tomorrow is another run, so this id may not be the content's alone.
        data = event.data.model_copy(update={"run_id": entry_id.decode()})
        return Event.of(data, source=event.source, time=event.time, subject=event.subject, salt=entry_id.decode())
    return event


def _wrap(stream: str, entry_id: bytes, content: dict[str, Any]) -> Event[Payload]:
    name = entry_id.decode()
    if stream == RunCandidates.stream and content.get("run_id") is None:
        content = {**content, "run_id": name}
    if stream == Command.stream:
        content = {"command_id": name, "requested_by": BY_HAND, **content}
    try:
        data = EVENTS[stream].model_validate(content)
    except ValidationError as fault:
        raise ContractError(
            f"not a payload of {stream}: {explain(fault)}", fix=f"docs/events/{stream}.schema.json"
        ) from fault
    return Event.of(data, source=BY_HAND, time=time_of(entry_id), salt=name)


def _flat(value: bytes) -> Any:
    text = _text(value)
    if text[:1] not in "[{" or not text:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise ContractError(f"{text[:80]!r} is no JSON", cause=str(fault), fix="check the quotes") from fault


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise ContractError(f"{value[:40]!r} is not UTF-8", cause=str(fault), fix="send UTF-8") from fault


def _original(entry_id: bytes, fields: Mapping[bytes, bytes]) -> bytes:
    original = fields.get(REPLAY, entry_id)
    if not _ENTRY_ID.match(original):
        raise ContractError(f"{original[:40]!r} is no entry id", fix="leave the field `replay-of` out")
    return original


def _refuse_unknown(stream: str, fields: Mapping[bytes, bytes]) -> None:
    if unknown := fields.keys() - _KNOWN:
        names = ", ".join(sorted(name.decode("utf-8", "replace")[:40] for name in unknown))
        raise ContractError(f"an entry of {stream} has fields that nobody knows: {names}", fix="leave them out")


def time_of(entry_id: bytes) -> datetime:
    """The server's clock when the entry was added."""
    milliseconds = int(entry_id.partition(b"-")[0])
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError) as fault:
        raise ContractError(
            f"entry id {entry_id!r} is no time", cause=str(fault), fix="let the server choose it"
        ) from fault
