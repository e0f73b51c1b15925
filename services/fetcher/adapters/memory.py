"""What a fetcher remembers of its runs, in the house's state folder, so that any replica can take a batch over.

One folder a run: `plan.json`, created once by whoever comes first, and one append-only file a batch, a JSON line for
each outcome. Lines are not synced to the disk one by one: a killed process loses none, and a machine that loses power
costs at most a fetch that is repeated to the same effect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from services.fetcher.ports import Finished, Plan
from shared.clock import format_instant, parse_instant
from shared.errors import ContractError
from shared.events import Bars, FetchAttempted, FetchTask, RunCandidates, SymbolMetadata, content_id
from shared.symbols import check_run_id

Outcome = SymbolMetadata | Bars | FetchAttempted


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    metadata: SymbolMetadata | None = None
    bars: Bars | None = None
    attempt: FetchAttempted | None = None


class FileMemory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan(self, run_id: str, run: RunCandidates, as_of: datetime) -> Plan:
        mine = Plan(content_id(run), as_of)
        path = self._run(run_id) / "plan.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"plan.{os.getpid()}.tmp")
        aside.write_text(json.dumps({"content": mine.content, "as_of": format_instant(as_of)}), encoding="utf-8")
        try:
            os.link(aside, path)
        except FileExistsError:
            stored = json.loads(path.read_text(encoding="utf-8"))
            first = Plan(stored["content"], parse_instant(stored["as_of"]))
            if first.content != mine.content:
                raise ContractError(
                    f"run {run_id} was started before with other content",
                    cause=f"content {mine.content} is not {first.content}",
                    fix="choose another --run-id",
                ) from None
            return first
        finally:
            aside.unlink()
        return mine

    def finished(self, task: FetchTask) -> Finished:
        metadata: dict[str, SymbolMetadata] = {}
        bars: dict[str, Bars] = {}
        attempts: dict[int, FetchAttempted] = {}
        for line in self._lines(task):
            if line.metadata is not None:
                metadata[line.metadata.symbol] = line.metadata
            if line.bars is not None:
                bars[line.bars.symbol] = line.bars
            if line.attempt is not None:
                attempts.setdefault(line.attempt.idx, line.attempt)
        return Finished(metadata, bars, tuple(attempts[idx] for idx in sorted(attempts)))

    def note(self, task: FetchTask, *outcomes: Outcome) -> None:
        # A line end first as well: what a kill cut off before must not swallow what comes now.
        lines = "".join(f"\n{_line(outcome).model_dump_json(exclude_none=True)}\n" for outcome in outcomes)
        path = self._path(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(handle, lines.encode())
        finally:
            os.close(handle)

    def _lines(self, task: FetchTask) -> Iterator[_Line]:
        try:
            content = self._path(task).read_bytes()
        except FileNotFoundError:
            return
        for raw in filter(None, content.split(b"\n")):
            try:
                yield _Line.model_validate_json(raw)
            except ValidationError:
                # Cut off by a kill: it counts as not written, and what it was about is done once more.
                continue

    def _run(self, run_id: str) -> Path:
        return self._folder / check_run_id(run_id)

    def _path(self, task: FetchTask) -> Path:
        # The content is part of the name: a batch that was planned otherwise shares nothing with this one.
        return self._run(task.run_id) / f"{task.kind}-{task.batch}-{content_id(task)[:12]}.jsonl"


def _line(outcome: Outcome) -> _Line:
    if isinstance(outcome, SymbolMetadata):
        return _Line(metadata=outcome)
    if isinstance(outcome, Bars):
        return _Line(bars=outcome)
    return _Line(attempt=outcome)
