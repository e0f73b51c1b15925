"""A run as tasks: batches of bounded size, one kind of work each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from shared.events import FetchTask, RunCandidates

Kind = Literal["metadata", "bars"]
BatchSizes = Mapping[Kind, int]


def plan_tasks(
    run: RunCandidates, *, run_id: str, symbols: Sequence[str], as_of: datetime, batch_sizes: BatchSizes
) -> list[FetchTask]:
    """Metadata first, because its answers let the catalog work while bars are still travelling.

    With `bars: lakehouse` there is no bar task: what is stored is used, and what is missing is named downstream.
    """
    kinds: list[Kind] = []
    if "metadata" in run.stages:
        kinds.append("metadata")
    if "bars" in run.stages and run.bars == "hydrate":
        kinds.append("bars")
    tasks: list[FetchTask] = []
    for kind in kinds:
        size = batch_sizes[kind]
        batches = [tuple(symbols[start : start + size]) for start in range(0, len(symbols), size)]
        tasks += [
            FetchTask(
                run_id=run_id,
                kind=kind,
                batch=number,
                batches=len(batches),
                symbols=batch,
                interval=run.interval,
                as_of=as_of,
                workers=run.workers,
            )
            for number, batch in enumerate(batches)
        ]
    return tasks
