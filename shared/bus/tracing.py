"""One run is one trace across all services: spans around handlers, carried by `traceparent`, written to files.

A trace begins where an entry without `traceparent` is handled. Its id is then derived from the run id, so that every
service that consumes that entry, and every job that speaks of the run later, continues the same trace.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
    use_span,
)

from shared.bus.entries import Pair
from shared.bus.wire import TRACE
from shared.events import Event

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$")
_LINKS = 32


class FileExporter(SpanExporter):
    """Appends one JSON object a span: trace, span, parent, name, start and end in ns, attributes, error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"".join(_row(span) for span in spans))
        return SpanExportResult.SUCCESS


@contextmanager
def tracing(folder: Path | None, service: str, process: str) -> Iterator[Tracer | None]:
    """The tracer of one service; None when `folder` is, and then traces only pass through."""
    if folder is None:
        yield None
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(FileExporter(folder / f"{process}.jsonl")))
    try:
        yield provider.get_tracer("asof.bus")
    finally:
        provider.shutdown()


@contextmanager
def handling(
    tracer: Tracer | None, service: str, stream: str, pairs: Sequence[Pair]
) -> Iterator[Callable[[Event[Any]], str | None]]:
    """Spans around one handler call, one for each run in its batch, all as long as the call.

    Yields what gives the `traceparent` of an event that the handler returns: its own run's, else the first one's.
    """
    if tracer is None and not any(TRACE in entry.fields for entry, _ in pairs):
        yield _without
        return
    runs: dict[str, list[Pair]] = {}
    for pair in pairs:
        runs.setdefault(_run_of(pair[1]), []).append(pair)
    if tracer is None:
        passed_on = {run: given[0] if (given := _given(some)) else None for run, some in runs.items()}
        yield lambda event: passed_on.get(_run_of(event), next(iter(passed_on.values())))
        return
    spans = {run: _start(tracer, service, stream, some) for run, some in runs.items()}
    first = next(iter(spans.values()))
    try:
        with use_span(first):  # what a handler traces itself hangs below
            yield lambda event: _traceparent(spans.get(_run_of(event), first))
    except BaseException as fault:
        for span in spans.values():
            span.set_status(StatusCode.ERROR, f"{type(fault).__name__}: {fault}")
        raise
    finally:
        for span in spans.values():
            span.end()


def _without(_: Event[Any]) -> None:
    return None


def _run_of(event: Event[Any]) -> str:
    return event.runid or event.id


def _given(pairs: Sequence[Pair]) -> re.Match[str] | None:
    """The first well-formed `traceparent` among entries of one run."""
    for entry, _ in pairs:
        if found := _TRACEPARENT.match(entry.fields.get(TRACE, b"").decode("ascii", "replace")):
            return found
    return None


def _start(tracer: Tracer, service: str, stream: str, pairs: Sequence[Pair]) -> Span:
    entry, event = pairs[0]
    given = _given(pairs)
    parent = _remote(given[1], given[2]) if given else _of_run(_run_of(event))
    links = [Link(_remote(other[1], other[2])) for pair in pairs[1:_LINKS] if (other := _given([pair]))]
    attributes: dict[str, Any] = {
        "messaging.system": "redis",
        "messaging.destination.name": stream,
        "messaging.batch.message_count": len(pairs),
        "asof.service": service,
        "asof.run_id": event.runid or "",
        "asof.event_id": event.id,
        "asof.deliveries": entry.deliveries,
    }
    context = set_span_in_context(NonRecordingSpan(parent))
    return tracer.start_span(f"{service} {stream}", context, SpanKind.CONSUMER, attributes, links)


def _traceparent(span: Span) -> str:
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-01"


def trace_of_run(run_id: str) -> str:
    """The trace id of a run, 32 hex digits."""
    return hashlib.sha256(f"asof run {run_id}".encode()).hexdigest()[:32]


def _of_run(run_id: str) -> SpanContext:
    return _remote(trace_of_run(run_id), hashlib.sha256(f"asof root {run_id}".encode()).hexdigest()[:16])


def _remote(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _row(span: ReadableSpan) -> bytes:
    context = span.get_span_context()
    assert context is not None, "an ended span has a context"
    row = {
        "trace": f"{context.trace_id:032x}",
        "span": f"{context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "attributes": dict(span.attributes or {}),
        "error": span.status.description,
    }
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"
