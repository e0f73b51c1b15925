"""Every event of asof: frozen models in the shape of a CloudEvents 1.0 structured event.

`Event.of(data, …)` builds one, `Event.to_json` is its wire form, `parse_event(stream, raw)` reads it back. The id is
derived from content (everything but source and time), so that a repeated publish is the same event. Large things
travel as a `FileRef`. `EVENTS` maps each stream to the model of its data; `shared.streams` says who publishes and who
consumes.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from shared.errors import ContractError
from shared.symbols import RunId, Symbol


def _sorted_keys(mapping: dict[str, Any]) -> dict[str, Any]:
    # Equal content has to give equal bytes, whatever order a producer filled its mapping in.
    return dict(sorted(mapping.items()))


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Instant = AwareDatetime
V = TypeVar("V")
SymbolMap = Annotated[dict[Symbol, V], AfterValidator(_sorted_keys)]
JsonMap = Annotated[dict[str, JsonValue], AfterValidator(_sorted_keys)]
Interval = Annotated[str, Field(pattern=r"^[0-9]{0,3}[a-zA-Z]{1,3}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Stage = Literal["metadata", "bars", "validation", "ratings"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(Frozen):
    """Why a symbol has no result: a stable code, the exact words of the cause, and whether trying again may help."""

    code: Name
    message: Annotated[str, Field(max_length=2000)]
    retryable: bool
    host: str | None = None
    status: int | None = None
    attempts: Annotated[int, Field(ge=1)] = 1
    fix: str | None = None


class FileRef(Frozen):
    """A file of the house: its path below ASOF_HOME and the sha256 of its bytes."""

    path: Annotated[str, Field(min_length=1, max_length=500)]
    sha256: Sha256
    rows: Annotated[int, Field(ge=0)] | None = None


class Payload(Frozen):
    """The data of one stream's events. A reader refuses a schema `version` that is newer than its own."""

    stream: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def run(self) -> str | None:
        return getattr(self, "run_id", None)


class RunCandidates(Payload):
    """Start a run. `candidates` is kept as it was sent; `shared.candidates.parse_candidates` reads it item by item."""

    stream = "run-candidates"
    candidates: JsonValue = None
    run_id: RunId | None = None
    profile: Name = "default"
    interval: Interval = "1d"
    rules: Name = "screener"
    as_of: Instant | None = None
    stages: Annotated[tuple[Literal["metadata", "bars", "ratings"], ...], Field(min_length=1)] = (
        "metadata",
        "bars",
        "ratings",
    )
    bars: Literal["hydrate", "lakehouse"] = "hydrate"
    strict: bool = False
    strict_scope: bool = False
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    workers: Annotated[int, Field(ge=1, le=32)] | None = None
    requested_by: Annotated[str, Field(max_length=200)] | None = None


CommandKind = Literal[
    "waive",
    "promote",
    "retry",
    "rollback",
    "retire",
    "rename",
    "ack",
    "silence",
    "discover",
    "audit-metadata",
    "refresh",
    "report",
    "adjust",
    "import",
    "import-bars",
    "import-features",
    "export",
]


class Command(Payload):
    """Something a person or the schedule asks a service to do; `command_id` makes a repeated request the same one."""

    stream = "commands"
    command_id: Name
    kind: CommandKind
    run_id: RunId | None = None
    arguments: JsonMap = {}
    requested_by: Annotated[str, Field(max_length=200)]


class CommandResult(Payload):
    stream = "command-results"
    command_id: Name
    kind: CommandKind
    run_id: RunId | None = None
    outcome: Literal["done", "refused", "failed"]
    message: str
    references: JsonMap = {}


class UniverseSnapshot(Payload):
    """The full universe of one market at `observed_at`: a live symbol of `exchange` that is absent was delisted."""

    stream = "universe-snapshot"
    exchange: Name
    observed_at: Instant
    records: FileRef
    source: Name
    run_id: RunId | None = None


class ExchangeMetadata(Payload):
    stream = "exchange-metadata"
    records: Annotated[tuple[JsonMap, ...], Field(min_length=1)]
    observed_at: Instant
    source: Name
    run_id: RunId | None = None


class FetchTask(Payload):
    """One batch of one run for any fetcher replica; `batch` of `batches`, counted from 0 within its kind."""

    stream = "fetch-tasks"
    run_id: RunId
    kind: Literal["metadata", "bars"]
    batch: Annotated[int, Field(ge=0)]
    batches: Annotated[int, Field(ge=1)]
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    interval: Interval
    as_of: Instant
    workers: Annotated[int, Field(ge=1, le=32)] | None = None


class SymbolMetadata(Payload):
    """What upstreams say of one symbol, with the source of each field; or why nothing could be had."""

    stream = "symbol-metadata"
    run_id: RunId
    symbol: Symbol
    observed_at: Instant
    record: JsonMap | None = None
    sources: Annotated[dict[str, str], AfterValidator(_sorted_keys)] = {}
    failure: Failure | None = None

    @model_validator(mode="after")
    def _record_or_failure(self) -> SymbolMetadata:
        if (self.record is None) == (self.failure is None):
            raise ValueError("exactly one of record and failure must be given")
        return self


class Bars(Frozen):
    """A symbol's stored bars as one run may use them: a version of its table and the hash of that version's rows.

    `session`, `timezone` and `calendar` say when a bar's session closes; null where no source says so.
    """

    symbol: Symbol
    path: str
    table_version: Annotated[int, Field(ge=1)]
    sha256: Sha256
    rows: Annotated[int, Field(ge=1)]
    first_bar: Instant
    last_bar: Instant
    added: Annotated[int, Field(ge=0)]
    revised: Annotated[int, Field(ge=0)] = 0
    timezone: str | None = None
    session: str | None = None
    calendar: str | None = None
    warnings: tuple[str, ...] = ()


class BarsHydrated(Payload):
    stream = "bars-hydrated"
    run_id: RunId
    batch: Annotated[int, Field(ge=0)]
    interval: Interval
    hydrated: tuple[Bars, ...] = ()
    failures: SymbolMap[Failure] = {}


class FetchAttempted(Payload):
    """One attempt at one batch: how many symbols came, which failed and exactly how. `idx` counts from 1."""

    stream = "fetch-attempted"
    run_id: RunId
    kind: Literal["metadata", "bars"]
    batch: Annotated[int, Field(ge=0)]
    idx: Annotated[int, Field(ge=1)]
    fetched: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    started_at: Instant
    duration_s: Annotated[float, Field(ge=0)]
    failures: SymbolMap[Failure] = {}


class CatalogUpdated(Payload):
    """What one commit made of one run's observations. Every symbol stands in exactly one of the four groups."""

    stream = "catalog-updated"
    run_id: RunId
    catalog_version: Annotated[int, Field(ge=0)]
    inserted: tuple[Symbol, ...] = ()
    changed: tuple[Symbol, ...] = ()
    unchanged: tuple[Symbol, ...] = ()
    rejected: SymbolMap[Failure] = {}
    metadata: FileRef | None = None


class Rules(Frozen):
    """The rules that made a rating, by name and version (the month of their publication, for example)."""

    name: Name
    version: Annotated[Name, BeforeValidator(str)]


class Staged(Frozen):
    symbol: Symbol
    rows: Annotated[int, Field(ge=1)]
    last_bar: Instant
    bars_sha256: Sha256


class Rejected(Frozen):
    """A symbol that failed a check; `quarantine` is where its rows were put aside."""

    stage: Literal["bars", "validation", "ratings"]
    failure: Failure
    quarantine: FileRef | None = None


class RatingsComputed(Payload):
    stream = "ratings-computed"
    run_id: RunId
    batch: Annotated[int, Field(ge=0)]
    interval: Interval
    rules: Rules
    file: FileRef | None = None
    staged: tuple[Staged, ...] = ()
    rejected: SymbolMap[Rejected] = {}
    warnings: SymbolMap[tuple[str, ...]] = {}


class Versions(Frozen):
    """A pair of versions that belong together: a feature table's and the catalog's."""

    features: Annotated[int, Field(ge=0)]
    catalog: Annotated[int, Field(ge=0)]


class PromotionDecided(Payload):
    """The verdict on one run. When granted, `staged` and `symbols` are all that may enter the master feature store."""

    stream = "promotion-decided"
    run_id: RunId
    decision: Literal["granted", "blocked"]
    reason: str
    coverage: FileRef
    ledger_head: Sha256
    waivers: tuple[str, ...] = ()
    base: Versions
    catalog_version: Annotated[int, Field(ge=0)]
    interval: Interval
    rules: Rules
    staged: tuple[FileRef, ...] = ()
    symbols: tuple[Symbol, ...] = ()


class FeaturesPromoted(Payload):
    stream = "features-promoted"
    run_id: RunId
    interval: Interval
    rules: Rules
    feature_version: Annotated[int, Field(ge=0)]
    parent: Annotated[int, Field(ge=0)]
    catalog_version: Annotated[int, Field(ge=0)]
    symbols: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]


class Alert(Payload):
    """One alert in Alertmanager's version 4 shape; `fingerprint` identifies the problem, not the message."""

    stream = "alerts"
    status: Literal["firing", "resolved"]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    labels: Annotated[dict[str, str], AfterValidator(_sorted_keys)]
    annotations: Annotated[dict[str, str], AfterValidator(_sorted_keys)]
    starts_at: Instant
    ends_at: Instant | None = None
    error: str
    next_command: str
    run_id: RunId | None = None
    ledger_head: Sha256 | None = None


class DeadLetter(Payload):
    """An entry that could not be applied, with its raw bytes (base64) so that it can be put back as it was."""

    stream = "dead-letters"
    origin: str
    entry_id: str
    group: str
    consumer: str
    deliveries: Annotated[int, Field(ge=1)]
    error: Failure
    fields: Annotated[dict[str, str], AfterValidator(_sorted_keys)]
    truncated: bool = False
    run_id: RunId | None = None


EVENTS: dict[str, type[Payload]] = {
    model.stream: model
    for model in (
        RunCandidates,
        Command,
        CommandResult,
        UniverseSnapshot,
        ExchangeMetadata,
        FetchTask,
        SymbolMetadata,
        BarsHydrated,
        FetchAttempted,
        CatalogUpdated,
        RatingsComputed,
        PromotionDecided,
        FeaturesPromoted,
        Alert,
        DeadLetter,
    )
}

D_co = TypeVar("D_co", bound=Payload, covariant=True)


class Event(Frozen, Generic[D_co]):
    """One event as it travels: CloudEvents 1.0 attributes around `data`."""

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: str
    time: Instant
    subject: str | None = None
    runid: RunId | None = None
    dataschema: str
    data: D_co

    @classmethod
    def of(
        cls,
        data: D_co,  # type: ignore[misc]  # covariant is sound here: an event is frozen
        *,
        source: str,
        time: datetime,
        subject: str | None = None,
        salt: str = "",
    ) -> Event[D_co]:
        """Wrap `data`. `salt` tells apart what has equal content on purpose (a bare payload's stream entry id)."""
        return _MODELS[data.stream](  # type: ignore[return-value]
            id=content_id(data, subject=subject, salt=salt),
            source=source,
            type=event_type(data.stream),
            time=time,
            subject=subject,
            runid=data.run,
            dataschema=event_schema(data.stream, data.version),
            data=data,
        )

    @property
    def stream(self) -> str:
        return self.data.stream

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    @model_validator(mode="after")
    def _agrees_with_its_data(self) -> Event[D_co]:
        if self.type != event_type(self.data.stream):
            raise ValueError(f"type {self.type!r} is not {event_type(self.data.stream)!r}")
        stated, _, version = self.dataschema.rpartition(":")
        known, _, newest = event_schema(self.data.stream, self.data.version).rpartition(":")
        if stated != known or not version.isdecimal() or int(version) > int(newest):
            raise ValueError(f"dataschema {self.dataschema!r} is not {known}:{newest} or older")
        if self.runid != self.data.run:
            raise ValueError(f"runid {self.runid!r} is not the run_id {self.data.run!r} of its data")
        return self


def event_type(stream: str) -> str:
    return f"asof.{stream}"


def event_schema(stream: str, version: int) -> str:
    return f"urn:asof:event:{stream}:{version}"


def content_id(data: Payload, *, subject: str | None = None, salt: str = "") -> str:
    """32 hex digits of the sha256 over schema, subject, salt and data; the same content has the same id everywhere."""
    digest = hashlib.sha256(f"{event_schema(data.stream, data.version)}\n{subject or ''}\n{salt}\n".encode())
    digest.update(data.model_dump_json().encode())
    return digest.hexdigest()[:32]


def parse_event(stream: str, raw: bytes | str) -> Event[Payload]:
    """Read the wire form of one of `stream`'s events. Raises ContractError that names the field and the reason."""
    try:
        model = _MODELS[stream]
    except KeyError:
        raise ContractError(f"no stream is called {stream!r}", fix=f"use one of {', '.join(EVENTS)}") from None
    try:
        return model.model_validate_json(raw)
    except ValidationError as fault:
        raise ContractError(f"not an event of {stream}: {_version_hint(stream, raw)}{explain(fault)}") from fault


def explain(fault: ValidationError) -> str:
    """A validation fault in one line: field, reason; the first five of them."""
    lines = [
        f"{'.'.join(str(part) for part in error['loc']) or 'event'}: {error['msg']}" for error in fault.errors()[:5]
    ]
    more = fault.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _version_hint(stream: str, raw: bytes | str) -> str:
    # An event of a newer schema fails on unknown fields; say the real reason first.
    try:
        schema = json.loads(raw).get("dataschema", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    known = event_schema(stream, EVENTS[stream].version)
    return f"its schema is {schema!r}, this version of asof knows {known!r}; " if schema and schema != known else ""


_MODELS: dict[str, type[Event[Payload]]] = {stream: Event[model] for stream, model in EVENTS.items()}  # type: ignore[valid-type]
