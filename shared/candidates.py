"""Candidates in every shape people send them: read item by item, so that a bad one is named and stops no other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.clock import parse_instant
from shared.errors import ContractError
from shared.symbols import check_symbol

MAX_CANDIDATES = 100_000
_SYMBOL_KEYS = ("symbol", "physical_symbol")
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Candidate:
    """One symbol to account for; `metadata` holds whatever the screener said of it, `observed_at` when it said so."""

    symbol: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    observed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An item that is no candidate: its position (or key) in what was sent, and the reason."""

    index: int | str
    reason: str


@dataclass(frozen=True, slots=True)
class Candidates:
    items: tuple[Candidate, ...]
    malformed: tuple[Malformed, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(item.symbol for item in self.items)


def parse_candidates(data: Any, *, default_exchange: str | None = None) -> Candidates:
    """Read a list of strings and objects, an object keyed by symbol, or an envelope `{"meta": …, "data": […]}`.

    A symbol given twice is taken once, the last metadata winning. Raises ContractError when there is no list at all or
    nothing in it; there is no default that takes the whole lakehouse.
    """
    observed_at: datetime | None = None
    if isinstance(data, Mapping) and "data" in data:
        observed_at = _observed_at(data.get("meta"))
        data = data["data"]
    pairs: Iterable[tuple[int | str, Any]]
    if isinstance(data, Mapping):
        pairs = [(key, _keyed(key, value)) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        pairs = list(enumerate(data))
    else:
        raise _no_candidates(f"candidates are {_name(data)}, not a list")
    if not pairs:
        raise _no_candidates("the list of candidates is empty")
    if len(pairs) > MAX_CANDIDATES:
        raise ContractError(f"{len(pairs):,} candidates are more than {MAX_CANDIDATES:,}", fix="split the run")
    found: dict[str, Candidate] = {}
    malformed: list[Malformed] = []
    for index, item in pairs:
        try:
            candidate = _candidate(item, observed_at, default_exchange)
        except ContractError as fault:
            malformed.append(Malformed(index, _told(index, len(pairs), item, fault.what)))
        else:
            found[candidate.symbol] = candidate
    return Candidates(tuple(found.values()), tuple(malformed))


def _told(index: int | str, total: int, item: Any, what: str) -> str:
    """The reason with the item's place, counted as people count, and as much of it as helps to find it."""
    text = json.dumps(item, default=str)
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    place = f"item {index + 1:,} of {total:,}" if isinstance(index, int) else f"key {index[:_SHOWN]!r}"
    return f"{what} ({place}: {shown})"


def _candidate(item: Any, observed_at: datetime | None, default_exchange: str | None) -> Candidate:
    if isinstance(item, str):
        return Candidate(check_symbol(item, default_exchange=default_exchange), observed_at=observed_at)
    if not isinstance(item, Mapping):
        raise ContractError(f"a candidate is {_name(item)}, neither text nor an object")
    name = next((item[key] for key in _SYMBOL_KEYS if isinstance(item.get(key), str)), None)
    if name is None:
        raise ContractError("an object without `symbol` or `physical_symbol` as text")
    metadata = item.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise ContractError(f"`metadata` of {name!r} is {_name(metadata)}, not an object")
    return Candidate(
        check_symbol(name, default_exchange=default_exchange),
        dict(metadata),
        _observed_at(item) or _observed_at(metadata) or observed_at,
    )


def _keyed(symbol: str, value: Any) -> Any:
    # `{"PSE:JFC": {...}}`: the key is the symbol; the value may be null, candidate fields, or bare metadata.
    if value is None:
        return symbol
    if not isinstance(value, Mapping):
        return value
    return {**value, "symbol": symbol} if "metadata" in value else {"symbol": symbol, "metadata": value}


def _observed_at(source: Any) -> datetime | None:
    stated = source.get("observed_at") if isinstance(source, Mapping) else None
    return parse_instant(stated, name="observed_at") if isinstance(stated, str) else None


def _no_candidates(what: str) -> ContractError:
    return ContractError(what, fix="name the symbols, or run `asof refresh` to take every active symbol of the catalog")


def _name(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
