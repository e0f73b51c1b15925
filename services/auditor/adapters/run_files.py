"""Runs as folders of files (shared/paths.py): candidates, manifest, journal, coverage, extract, report."""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pydantic import ValidationError

from services.auditor.adapters.line_file import LineFile
from services.auditor.adapters.locks import locked
from services.auditor.domain.journal import Journal
from services.auditor.domain.manifest import RunManifest
from services.auditor.domain.notes import Line, read_line
from shared.errors import IntegrityError, UnsafePathError
from shared.events import FileRef, explain
from shared.files import make_dirs, sha256_bytes, sha256_file, sync_dir, write_atomic
from shared.paths import Home, RunPaths

_STRIPES = 64
_CACHED_RUNS = 64


class RunFolder:
    """One run, held. `Journal` is kept between two holdings; what another auditor appended meanwhile is read first."""

    def __init__(self, home: Home, run_id: str) -> None:
        self.run_id = run_id
        self.journal = Journal()
        self.paths: RunPaths = home.run(run_id)
        self._home = home
        self._lines = LineFile(self.paths.journal)
        self._manifest: RunManifest | None = None

    @property
    def manifest(self) -> RunManifest | None:
        if self._manifest is None and self.paths.manifest.exists():
            try:
                self._manifest = RunManifest.model_validate_json(self.paths.manifest.read_bytes())
            except ValidationError as fault:
                raise IntegrityError(
                    f"the manifest of run {self.run_id} cannot be read",
                    cause=explain(fault),
                    fix="restore the file, or start a run with another id",
                ) from fault
        return self._manifest

    def create(self, manifest: RunManifest, candidates: bytes) -> None:
        make_dirs(self.paths.root)
        write_atomic(self.paths.candidates, candidates)
        write_atomic(self.paths.manifest, manifest.model_dump_json(indent=1).encode() + b"\n")
        self._manifest = manifest

    def append(self, lines: Sequence[Line]) -> None:
        if lines:
            self._lines.append([line.as_json() for line in lines])
        for line in lines:
            self.journal.apply(line)

    def catch_up(self) -> None:
        """Apply the lines that others appended."""
        for fields in self._lines.unread():
            try:
                self.journal.apply(read_line(fields))
            except (ValueError, KeyError, TypeError, AttributeError) as fault:
                raise IntegrityError(
                    f"the journal of run {self.run_id} has a line that is no note",
                    cause=f"{type(fault).__name__}: {fault}",
                    fix="start a run with another id; keep the folder for inspection",
                ) from fault

    def manifest_ref(self) -> FileRef:
        return FileRef(path=self._home.relative(self.paths.manifest), sha256=sha256_file(self.paths.manifest))

    def coverage(self) -> bytes | None:
        try:
            return self.paths.coverage.read_bytes()
        except FileNotFoundError:
            return None

    def coverage_ref(self, data: bytes) -> FileRef:
        return FileRef(path=self._home.relative(self.paths.coverage), sha256=sha256_bytes(data))

    def write_coverage(self, data: bytes) -> None:
        write_atomic(self.paths.coverage, data)

    def set_coverage_aside(self) -> str:
        changed = sha256_file(self.paths.coverage)
        aside = self.paths.coverage.with_name(f"{self.paths.coverage.stem}.changed-{changed[:12]}.json")
        self.paths.coverage.replace(aside)
        sync_dir(self.paths.root)
        return self._home.relative(aside)

    def write_extract(self, lines: Iterable[bytes]) -> None:
        write_atomic(self.paths.audit, b"".join(lines))

    def write_report(self, data: bytes) -> FileRef:
        write_atomic(self.paths.report, data)
        return FileRef(path=self._home.relative(self.paths.report), sha256=sha256_bytes(data))


class RunFolders:
    """Every run of the house. The newest ones' journals stay in memory."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folders: OrderedDict[str, RunFolder] = OrderedDict()
        self._guard = threading.Lock()

    @contextmanager
    def hold(self, run_id: str) -> Iterator[RunFolder]:
        # A fixed number of lock files: one for each run would grow for ever.
        stripe = zlib.crc32(run_id.encode()) % _STRIPES
        with locked(self._home.state / "auditor" / "locks" / f"{stripe:02}"):
            folder = self._folder(run_id)
            try:
                folder.catch_up()
                yield folder
            except BaseException:
                # What was applied may not be what was written: read it anew next time.
                with self._guard:
                    self._folders.pop(run_id, None)
                raise

    def candidates_ref(self, run_id: str, data: bytes) -> FileRef:
        return FileRef(path=self._home.relative(self._home.run(run_id).candidates), sha256=sha256_bytes(data))

    def wrong_file(self, ref: FileRef) -> str | None:
        try:
            found = sha256_file(self._home.resolve(ref.path))
        except FileNotFoundError:
            return f"{ref.path} is missing"
        except (OSError, UnsafePathError) as fault:
            return f"{ref.path} cannot be read: {fault}"
        if found != ref.sha256:
            return f"{ref.path} has other bytes than were reported: sha256 {found[:12]}…, reported {ref.sha256[:12]}…"
        return None

    def as_of(self, run_id: str) -> datetime | None:
        path = self._home.run(run_id).manifest
        if not path.exists():
            return None
        stated = json.loads(path.read_bytes())["as_of"]
        return datetime.fromisoformat(stated)

    def _folder(self, run_id: str) -> RunFolder:
        with self._guard:
            folder = self._folders.pop(run_id, None) or RunFolder(self._home, run_id)
            self._folders[run_id] = folder
            while len(self._folders) > _CACHED_RUNS:
                self._folders.popitem(last=False)
            return folder
