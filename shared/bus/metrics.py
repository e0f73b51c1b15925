"""What Prometheus reads at /metrics: the bus's own figures, one set for a process; each carries service and stream."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_OF = ("service", "stream")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.entries = self._counter("asof_bus_entries_total", "entries by what became of them", "outcome")
        self.published = self._counter("asof_bus_published_total", "events published with an acknowledgement")
        self.taken_over = self._counter("asof_bus_taken_over_total", "entries taken over from another consumer")
        self.regrouped = self._counter("asof_bus_regrouped_total", "times a lost consumer group was made again")
        self.handler = Histogram(
            "asof_bus_handler_seconds", "time of one handler call", _OF, registry=self.registry, buckets=_SECONDS
        )
        self.commit = Histogram(
            "asof_bus_commit_seconds", "time to publish and acknowledge", _OF, registry=self.registry, buckets=_SECONDS
        )
        self.lag = self._gauge("asof_bus_lag", "entries that the group has not read")
        self.pending = self._gauge("asof_bus_pending", "entries read and not acknowledged")
        self.oldest = self._gauge("asof_bus_oldest_pending_seconds", "age of the oldest pending entry")
        self.blocked = Gauge("asof_bus_blocked", "1 while redis refuses writes", registry=self.registry)

    def of(self, service: str, stream: str) -> StreamMetrics:
        return StreamMetrics(
            applied=self.entries.labels(service, stream, "applied"),
            repeated=self.entries.labels(service, stream, "repeated"),
            failed=self.entries.labels(service, stream, "failed"),
            dead=self.entries.labels(service, stream, "dead"),
            published=self.published.labels(service, stream),
            taken_over=self.taken_over.labels(service, stream),
            regrouped=self.regrouped.labels(service, stream),
            handler=self.handler.labels(service, stream),
            commit=self.commit.labels(service, stream),
            lag=self.lag.labels(service, stream),
            pending=self.pending.labels(service, stream),
            oldest=self.oldest.labels(service, stream),
        )

    def _counter(self, name: str, text: str, *more: str) -> Counter:
        return Counter(name, text, (*_OF, *more), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, _OF, registry=self.registry)


@dataclass(frozen=True, slots=True)
class StreamMetrics:
    """The figures of one subscription, looked up once. `failed` entries are delivered again; the others are done."""

    applied: Counter
    repeated: Counter
    failed: Counter
    dead: Counter
    published: Counter
    taken_over: Counter
    regrouped: Counter
    handler: Histogram
    commit: Histogram
    lag: Gauge
    pending: Gauge
    oldest: Gauge
