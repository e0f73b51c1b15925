"""What an existing house's versions say, and which of them contradict each other. Pure.

A symbol whose intervals overlap, leave a gap or end before they begin is refused as a whole and named: which of its
versions is right cannot be told from the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from services.catalog.domain.schema import Schema
from services.catalog.domain.versions import equal
from shared.clock import format_instant
from shared.errors import ContractError

_NEVER = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stored:
    """One version as a house stored it."""

    fields: Mapping[str, Any]
    valid_from: datetime
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class Takeover:
    """What can be taken over, and what cannot.

    versions  by key, oldest first, contiguous
    ended     keys whose last version has an end, and when: they are retired from then on
    refused   key (or row number, where no key can be read) -> what is wrong with it
    repeated  versions that equal the one before them: they are no versions here
    endless   versions that end past the year 2200, which is how other houses write that they do not end
    """

    versions: Mapping[str, Sequence[Stored]]
    ended: Mapping[str, datetime]
    refused: Mapping[str | int, tuple[str, ...]]
    repeated: int
    endless: int

    @property
    def count(self) -> int:
        return sum(len(own) for own in self.versions.values())


def take_over(rows: Iterable[Mapping[str, Any]], schema: Schema) -> Takeover:
    """`rows` have the key, attributes, `valid_from` and `valid_until` as aware datetimes or None."""
    found: dict[str, list[Stored]] = {}
    endless = 0
    refused: dict[str | int, tuple[str, ...]] = {}
    for number, row in enumerate(rows):
        name: str | int = number
        try:
            key = name = schema.read_key(row)
            if row["valid_from"] is None:
                raise ContractError("a version without valid_from")
            until = row["valid_until"]
            if until is not None and until >= _NEVER:
                endless, until = endless + 1, None
            found.setdefault(key, []).append(Stored(schema.read_record(row), row["valid_from"], until))
        except ContractError as fault:
            refused[name] = (*refused.get(name, ()), fault.what)
    versions: dict[str, Sequence[Stored]] = {}
    ended: dict[str, datetime] = {}
    repeated = 0
    for key, own in found.items():
        own.sort(key=lambda one: one.valid_from)
        flaws = _flaws(own)
        if flaws or key in refused:
            refused[key] = (*refused.get(key, ()), *flaws)
            continue
        versions[key] = own
        repeated += sum(equal(one.fields, two.fields) for one, two in pairwise(own))
        end = own[-1].valid_until
        if end is not None:
            ended[key] = end
    return Takeover(versions, ended, refused, repeated, endless)


def _flaws(versions: Sequence[Stored]) -> list[str]:
    flaws = []
    for one in versions:
        if one.valid_until is not None and one.valid_until <= one.valid_from:
            flaws.append(f"inverted: {_text(one.valid_from)} to {_text(one.valid_until)}")
    for one, two in pairwise(versions):
        if one.valid_until is None or one.valid_until > two.valid_from:
            end = "open" if one.valid_until is None else f"to {_text(one.valid_until)}"
            flaws.append(f"overlap: from {_text(one.valid_from)} {end}, and from {_text(two.valid_from)}")
        elif one.valid_until < two.valid_from:
            flaws.append(f"gap: {_text(one.valid_until)} to {_text(two.valid_from)}")
    return flaws


def _text(instant: datetime) -> str:
    return format_instant(instant)
