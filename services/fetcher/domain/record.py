"""The hybrid record: what the scanner says of a symbol, execution limits from its venue, each field with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from services.fetcher.domain.ticks import tick_from_structure

FieldValue = str | int | float | bool | Decimal | None
_NONE: Mapping[str, FieldValue] = MappingProxyType({})
# Prices that differ by less than this are one price written twice.
_RELATIVE = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Described:
    """What the primary source says of one symbol: catalog fields by name, its last price, when it said so."""

    symbol: str
    fields: Mapping[str, FieldValue]
    last_price: Decimal | None
    observed_at: datetime
    source: str
    screener: Mapping[str, FieldValue] = field(default_factory=lambda: _NONE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a venue states of one instrument; None is unknown, never a default. `stale_s`: age of a cached answer used
    because the venue did not answer."""

    source: str
    tick_size: Decimal | None = None
    lot_size: Decimal | None = None
    min_notional: Decimal | None = None
    contract_size: Decimal | None = None
    base: str | None = None
    quote: str | None = None
    active: bool | None = None
    stale_s: int | None = None


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A record and where each of its fields comes from; `disagreements`: field -> both statements."""

    record: dict[str, str | int | float | bool | None]
    sources: dict[str, str]
    disagreements: dict[str, str]


_LIMIT_FIELDS = ("tick_size", "lot_size", "min_notional", "contract_size", "base", "quote", "active")


def merge(described: Described, limits: Limits | None) -> Hybrid:
    """The venue goes before the scanner in what it executes by; where both state a field differently, it is reported.

    Fields that nobody states are absent, so that an upsert keeps what is known.
    """
    values: dict[str, FieldValue] = {"exchange": described.symbol.partition(":")[0]}
    sources: dict[str, str] = {"exchange": "symbol"}
    for name, value in described.fields.items():
        if value is not None:
            values[name], sources[name] = value, described.source
    tick = tick_from_structure(described.fields.get("minmov"), described.fields.get("pricescale"))
    if tick is not None:
        values["tick_size"], sources["tick_size"] = tick, described.source
    disagreements: dict[str, str] = {}
    if limits is not None:
        origin = limits.source if limits.stale_s is None else f"{limits.source}, cached {limits.stale_s} s ago"
        for name in _LIMIT_FIELDS:
            stated: FieldValue = getattr(limits, name)
            if stated is None:
                continue
            earlier = values.get(name)
            note = ""
            if earlier is not None and not _same(earlier, stated):
                disagreements[name] = f"{limits.source} says {_text(stated)}, {described.source} says {_text(earlier)}"
                note = f" ({described.source}: {_text(earlier)})"
            values[name], sources[name] = stated, origin + note
    return Hybrid({name: _plain(value) for name, value in values.items()}, sources, disagreements)


def _same(one: FieldValue, other: FieldValue) -> bool:
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return abs(one - other) <= _RELATIVE * max(abs(one), abs(other))
    return one == other


def _plain(value: FieldValue) -> str | int | float | bool | None:
    return float(value) if isinstance(value, Decimal) else value


def _text(value: FieldValue) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
