"""The ledger as one file, data/audit.jsonl: appended under a lock, fsynced, and read back before anything is added.

Beside it, `state/auditor/ledger-head.json` remembers the newest entry, so that a tail that was cut off is noticed
without anybody's help. A line without its end was being written when its writer died: nobody has seen it, and it goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from services.auditor.adapters.keys import SIGNED_BY, LedgerSigner, signature_flaw
from services.auditor.adapters.line_file import append_bytes
from services.auditor.adapters.locks import locked
from services.auditor.domain.canonical import canonical_sha256
from services.auditor.domain.chain import (
    GENESIS,
    BrokenEntry,
    Entry,
    Flaw,
    extract,
    link,
    next_entry,
    read_entry,
    verify,
)
from services.auditor.domain.waivers import Waiver
from shared.clock import format_instant
from shared.errors import IntegrityError
from shared.files import make_dirs, sync_dir, write_atomic
from shared.paths import Home

FIX = "asof audit ledger; then restore data/audit.jsonl from a backup"


@dataclass
class _Index:
    """What is remembered of the file up to `end`: where entries are, not what they say."""

    end: int = 0
    last: Entry | None = None
    offsets: list[int] = field(default_factory=list)
    kind_of: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[int]] = field(default_factory=dict)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    open_runs: dict[str, None] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, entry: Entry, line: bytes) -> None:
        self.offsets.append(self.end)
        self.kind_of.append(entry.kind)
        self.bodies.append(entry.body)
        self.end += len(line)
        self.digest.update(line)
        self.last = entry
        self.keys[entry.key] = entry.n
        self.kinds.setdefault(entry.kind, []).append(entry.n)
        if entry.run_id is not None:
            self.runs.setdefault(entry.run_id, []).append(entry.n)
            if entry.kind in ("opened", "reopened"):
                self.open_runs[entry.run_id] = None
            elif entry.kind == "decided":
                self.open_runs.pop(entry.run_id, None)


class LedgerFile:
    def __init__(self, home: Home, *, signer: LedgerSigner | None = None) -> None:
        self._path = home.ledger
        self._anchor = home.state / "auditor" / "ledger-head.json"
        self._lock = home.state / "auditor" / "ledger.lock"
        self._signer = signer
        self._guard = threading.RLock()
        self._index = _Index()

    def append(
        self, kind: str, *, key: str, data: Mapping[str, Any], time: datetime, run_id: str | None = None
    ) -> Entry:
        with self._guard, locked(self._lock):
            self._catch_up()
            known = self._index.keys.get(key)
            if known is not None:
                return self._read(known)
            if self._signer is not None:
                data = {**data, SIGNED_BY: self._signer.name}
            entry = next_entry(
                self._index.last, time=format_instant(time), kind=kind, run_id=run_id, key=key, data=data
            )
            if self._signer is not None:
                entry = replace(entry, signature=self._signer.sign(entry.hash))
            line = entry.line()
            self._drop_torn_line()
            self._write(line)
            self._index.add(entry, line)
            write_atomic(self._anchor, json.dumps({"n": entry.n, "hash": entry.hash}).encode(), durable=False)
            return entry

    def refresh(self) -> None:
        with self._guard, locked(self._lock):
            self._catch_up()

    def head(self) -> Entry | None:
        with self._sound_part():
            return self._index.last

    def find(self, key: str) -> Entry | None:
        with self._sound_part():
            n = self._index.keys.get(key)
            return None if n is None else self._read(n)

    def of_run(self, run_id: str, kind: str | None = None) -> list[Entry]:
        with self._sound_part():
            own = self._index.runs.get(run_id, ())
            return [self._read(n) for n in own if kind in (None, self._index.kind_of[n - 1])]

    def of_kind(self, kind: str, after: int = 0) -> list[Entry]:
        with self._sound_part():
            return [self._read(n) for n in self._index.kinds.get(kind, ()) if n > after]

    def open_runs(self) -> Collection[str]:
        with self._sound_part():
            return tuple(self._index.open_runs)

    def extract(self, run_id: str) -> list[bytes]:
        with self._sound_part():
            own = [self._read(n) for n in self._index.runs.get(run_id, ())]
            return extract(own, self._index.bodies)

    @contextmanager
    def _sound_part(self) -> Iterator[None]:
        """Read as far as the chain is whole. `broken` and `append` are where a flaw is said; a reader only asks."""
        with self._guard, locked(self._lock), suppress(IntegrityError):
            self._catch_up()
        with self._guard:
            yield

    def broken(self) -> str | None:
        with self._guard, locked(self._lock):
            try:
                self._catch_up()
            except IntegrityError as fault:
                return str(fault.cause)
            try:
                with self._path.open("rb") as file:
                    known = file.read(self._index.end)
            except FileNotFoundError:
                return None if self._index.end == 0 else "data/audit.jsonl is missing"
            if hashlib.sha256(known).digest() == self._index.digest.digest():
                return None
            return _first_flaw(known) or "entries were replaced by others"

    def _catch_up(self) -> None:
        """Read what others appended, checking that it follows. Called with the lock held."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < self._index.end:
            raise self._fault(f"{self._index.end - size:,} bytes at its end are gone")
        if size > self._index.end:
            self._read_on()
        self._check_anchor()

    def _read_on(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._index.end)
            data = file.read()
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            last = self._index.last
            n, prev = (1, GENESIS) if last is None else (last.n + 1, last.hash)
            try:
                self._index.add(_read_signed(line, n=n, prev=prev), line)
            except BrokenEntry as fault:
                raise self._fault(f"entry {n} at byte {self._index.end:,}: {fault}") from fault

    def _drop_torn_line(self) -> None:
        """Before something is added, and only then: a reader changes nothing."""
        if self._path.exists() and self._path.stat().st_size > self._index.end:
            with self._path.open("r+b") as file:
                file.truncate(self._index.end)
                os.fsync(file.fileno())

    def _check_anchor(self) -> None:
        try:
            anchor = json.loads(self._anchor.read_bytes())
            n, remembered = int(anchor["n"]), str(anchor["hash"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return  # a power cut may take it; the heads in decisions and alerts remain
        last = self._index.last
        if last is None or last.n < n:
            raise self._fault(f"{0 if last is None else last.n} entries are left of {n}: its tail was cut off")
        if n == last.n and remembered != last.hash:
            raise self._fault(f"entry {n} was replaced: {remembered[:16]}… was written, {last.hash[:16]}… stands there")

    def _read(self, n: int) -> Entry:
        start = self._index.offsets[n - 1]
        with self._path.open("rb") as file:
            file.seek(start)
            line = file.readline()
        try:
            return read_entry(line, n=n, prev=json.loads(line)["prev"])
        except (BrokenEntry, ValueError, KeyError, TypeError) as fault:
            raise self._fault(f"entry {n} at byte {start:,}: {fault}") from fault

    def _write(self, line: bytes) -> None:
        is_new = not self._path.exists()
        make_dirs(self._path.parent)
        append_bytes(self._path, line)
        if is_new:
            sync_dir(self._path.parent)

    def _fault(self, cause: str) -> IntegrityError:
        return IntegrityError("the ledger is broken", cause=cause, fix=FIX)


def list_waivers(home: Home, *, now: datetime) -> list[dict[str, Any]]:
    """Every waiver that was ever given, oldest first, each with the entry that holds it and whether it still runs."""
    rows = []
    for entry in LedgerFile(home).of_kind("waived"):
        for fields in entry.data["waivers"]:
            waiver = Waiver.model_validate(fields)
            runs = waiver.expires > now
            rows.append(
                {**waiver.model_dump(mode="json"), "given_at": entry.time, "entry": entry.n, "expired": not runs}
            )
    return rows


def read_heads(home: Home) -> dict[int, str]:
    """What the house itself remembers of its ledger: the anchor, and the entries in every run's extract."""
    heads: dict[int, str] = {}
    for path in sorted(home.runs.glob("*/audit.jsonl")):
        for line in path.read_bytes().splitlines():
            fields = _object(line)
            if isinstance(fields.get("n"), int) and isinstance(fields.get("hash"), str):
                heads[fields["n"]] = fields["hash"]
    anchor_path = home.state / "auditor" / "ledger-head.json"
    anchor = _object(anchor_path.read_bytes()) if anchor_path.exists() else {}
    if isinstance(anchor.get("n"), int) and isinstance(anchor.get("hash"), str):
        heads[anchor["n"]] = anchor["hash"]
    return heads


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _read_signed(line: bytes, *, n: int, prev: str) -> Entry:
    entry = read_entry(line, n=n, prev=prev)
    if (flaw := signature_flaw(entry)) is not None:
        raise BrokenEntry(flaw)
    return entry


def _first_flaw(data: bytes) -> str | None:
    prev = GENESIS
    offset = 0
    for n, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            prev = _read_signed(line, n=n, prev=prev).hash
        except BrokenEntry as fault:
            return f"entry {n} at byte {offset:,}: {fault}"
        offset += len(line)
    return None


def kept_entries(home: Home) -> dict[int, str]:
    """By number, where a run's extract still has an entry whose content has its hash, and what it is."""
    kept: dict[int, str] = {}
    for path in sorted(home.runs.glob("*/audit.jsonl")):
        for line in path.read_bytes().splitlines():
            fields = _object(line)
            try:
                body = canonical_sha256({name: fields[name] for name in ("n", "time", "kind", "run_id", "key", "data")})
                if link(fields["prev"], body) == fields["hash"]:
                    kept[fields["n"]] = f"{home.relative(path)} has it as it was entered: {fields['kind']}"
            except (KeyError, TypeError, ValueError):
                continue  # a line that proves nothing
    return kept


def verify_ledger(home: Home) -> tuple[list[Flaw], int, str]:
    """Every flaw of a house's ledger, the number of sound entries and the hash of the last one. Reads only.

    The chain is checked from its first byte and against every head that the house remembers.
    """
    lines = home.ledger.read_bytes().splitlines(keepends=True) if home.ledger.exists() else []
    flaws, last = verify(lines, read_heads(home), read=_read_signed)
    return flaws, 0 if last is None else last.n, GENESIS if last is None else last.hash
