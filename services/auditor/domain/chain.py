"""The ledger's chain: what an entry is, how its hash binds it to all before it, and what a broken chain looks like.

    body = sha256(canonical(entry without prev, hash, signature))
    hash = sha256(prev + body), both as 64 hex digits of text; the first entry's prev is 64 zeros

An entry's line is its canonical JSON and a line feed, so a changed byte is a changed hash or a line that is not
canonical. Hashing the body apart lets an extract prove its entries with one digest for each foreign entry between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.auditor.domain.canonical import canonical, canonical_sha256, read_canonical
from shared.errors import ContractError

GENESIS = "0" * 64
FIELDS = ("n", "time", "kind", "run_id", "key", "data", "prev", "hash")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. `key` names the fact, so that the same fact is never entered twice; `n` counts from 1."""

    n: int
    time: str
    kind: str
    run_id: str | None
    key: str
    data: Mapping[str, Any]
    prev: str
    hash: str
    body: str
    signature: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        if self.signature is not None:
            fields["signature"] = dict(self.signature)
        return fields

    def line(self) -> bytes:
        return canonical(self.as_json()) + b"\n"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Where a ledger is broken: the entry (counted from 1), the byte at which its line starts, and how."""

    n: int
    offset: int
    problem: str

    def __str__(self) -> str:
        return f"entry {self.n} at byte {self.offset:,}: {self.problem}"


class BrokenEntry(ValueError):
    """A line that is no entry, or does not follow the one before it."""


def link(prev: str, body: str) -> str:
    return hashlib.sha256(f"{prev}{body}".encode()).hexdigest()


def next_entry(
    last: Entry | None, *, time: str, kind: str, run_id: str | None, key: str, data: Mapping[str, Any]
) -> Entry:
    """The entry that follows `last` (None: the first of the chain), unsigned."""
    n, prev = (1, GENESIS) if last is None else (last.n + 1, last.hash)
    body = canonical_sha256({"n": n, "time": time, "kind": kind, "run_id": run_id, "key": key, "data": data})
    return Entry(
        n=n, time=time, kind=kind, run_id=run_id, key=key, data=data, prev=prev, hash=link(prev, body), body=body
    )


def read_entry(line: bytes, *, n: int, prev: str) -> Entry:
    """Read a line that has to be entry `n` after `prev`. Raises BrokenEntry with the reason when it is not."""
    if not line.endswith(b"\n"):
        raise BrokenEntry("the line is torn: it has no end")
    try:
        fields, spell = read_canonical(line)
    except (ValueError, RecursionError) as fault:
        raise BrokenEntry(f"not JSON: {fault}") from fault
    if not isinstance(fields, dict) or not set(FIELDS) <= fields.keys() <= {*FIELDS, "signature"}:
        raise BrokenEntry("not the fields of an entry")
    try:
        exact = spell(fields) + b"\n"
    except (ContractError, RecursionError) as fault:
        raise BrokenEntry(f"not canonical: {fault}") from fault
    if exact != line:
        raise BrokenEntry("not in canonical form: its bytes were changed")
    if fields["n"] != n:
        raise BrokenEntry(f"it says that it is entry {fields['n']}")
    if fields["prev"] != prev:
        raise BrokenEntry("it does not follow the entry before it: its prev is another hash")
    body = hashlib.sha256(spell({name: fields[name] for name in FIELDS[:6]})).hexdigest()
    if fields["hash"] != link(prev, body):
        raise BrokenEntry("its content does not have its hash")
    return Entry(**fields, body=body)


def verify(
    lines: Iterable[bytes],
    heads: Mapping[int, str] | None = None,
    *,
    read: Callable[..., Entry] = read_entry,
) -> tuple[list[Flaw], Entry | None]:
    """The first flaw of a chain (nothing after it is proven), or every head it contradicts; and its last sound entry.

    `heads`: what somebody else remembers of the chain (entry number to hash, from decisions, alerts and extracts).
    A chain that was cut off or written anew as a whole is only found by these. `read` is `read_entry`, or one that
    checks signatures too.
    """
    flaws: list[Flaw] = []
    last: Entry | None = None
    prev, offset = GENESIS, 0
    hashes: dict[int, str] = {}
    for n, line in enumerate(lines, start=1):
        try:
            last = read(line, n=n, prev=prev)
        except BrokenEntry as fault:
            flaws.append(Flaw(n, offset, str(fault)))
            break
        prev, hashes[n] = last.hash, last.hash
        offset += len(line)
    else:
        flaws += _against_heads(hashes, heads or {}, offset)
    return flaws, last


def _against_heads(hashes: Mapping[int, str], heads: Mapping[int, str], end: int) -> list[Flaw]:
    flaws = []
    for n, remembered in sorted(heads.items()):
        if n not in hashes:
            flaws.append(Flaw(n, end, f"missing: {len(hashes)} entries are left of at least {n}; the tail was cut off"))
        elif hashes[n] != remembered:
            flaws.append(
                Flaw(n, end, f"another entry stood here: {remembered[:16]}… was published, not {hashes[n][:16]}…")
            )
    return flaws


def extract(own: Sequence[Entry], bodies: Sequence[str]) -> list[bytes]:
    """A run's entries as lines, each with the digests (`between`) that lead to it from the run's entry before.

    `bodies` are the digests of all entries of the ledger, in order: the foreign ones themselves need not be read.
    """
    lines = []
    after = own[0].n if own else 0
    for entry in own:
        lines.append(canonical({**entry.as_json(), "between": list(bodies[after : entry.n - 1])}) + b"\n")
        after = entry.n
    return lines


def verify_extract(lines: Iterable[bytes]) -> list[str]:
    """What is wrong with an extract, by itself: each line's form, its entry's hash, and the way to the next entry."""
    problems: list[str] = []
    before: str | None = None
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            if canonical(fields) + b"\n" != line:
                problems.append(f"line {number}: not in canonical form: its bytes were changed")
            entry, between = {name: fields[name] for name in FIELDS}, fields["between"]
            if before is not None:
                for digest in between:
                    before = link(before, digest)
                if entry["prev"] != before:
                    problems.append(f"line {number}: entry {entry['n']} does not follow the entry before it")
            before = entry["hash"]
            if before != link(entry["prev"], canonical_sha256({name: entry[name] for name in FIELDS[:6]})):
                problems.append(f"line {number}: the content of entry {entry['n']} does not have its hash")
        except (ValueError, KeyError, TypeError, RecursionError, ContractError) as fault:
            return [*problems, f"line {number}: no entry of an extract ({fault})"]
    return problems
