"""Who publishes and who consumes each stream: the bus makes groups, trims and checks access from this table alone."""

from __future__ import annotations

from dataclasses import dataclass

from shared.events import EVENTS

SERVICES = ("fetcher", "catalog", "features", "auditor")


@dataclass(frozen=True, slots=True)
class Stream:
    """`groups` are the services that consume it, one consumer group each, named after the service.

    A stream without groups is read by people and tools: it is archived to disk and bounded by age.
    """

    name: str
    publishers: tuple[str, ...]
    groups: tuple[str, ...] = ()


STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Stream("run-candidates", ("cli", "auditor"), ("fetcher", "features", "auditor")),
        Stream("commands", ("cli", "auditor"), ("auditor", "catalog", "fetcher", "features")),
        Stream("command-results", SERVICES),
        Stream("universe-snapshot", ("fetcher",), ("catalog",)),
        Stream("exchange-metadata", ("fetcher",), ("catalog",)),
        Stream("fetch-tasks", ("fetcher",), ("fetcher",)),
        Stream("symbol-metadata", ("fetcher",), ("catalog", "auditor")),
        Stream("bars-hydrated", ("fetcher",), ("features", "auditor")),
        Stream("fetch-attempted", ("fetcher",), ("auditor",)),
        Stream("catalog-updated", ("catalog",), ("auditor",)),
        Stream("ratings-computed", ("features",), ("auditor",)),
        Stream("promotion-decided", ("auditor",), ("features", "catalog")),
        Stream("features-promoted", ("features",), ("auditor",)),
        Stream("alerts", ("auditor",)),
        Stream("dead-letters", SERVICES, ("auditor",)),
    )
}

assert STREAMS.keys() == EVENTS.keys(), "every stream has one model and one row in this table"


def consumed_by(service: str) -> tuple[str, ...]:
    return tuple(stream.name for stream in STREAMS.values() if service in stream.groups)


def published_by(service: str) -> tuple[str, ...]:
    return tuple(stream.name for stream in STREAMS.values() if service in stream.publishers)
