"""Progress bars of a run: one a stage, drawn on stderr so that --json and pipes stay clean."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from asof import follow

_STAGES = ("metadata", "bars", "ratings")


class ProgressBars:
    """A context that draws `follow.Progress` while a run goes on. Quiet, or not on a terminal: draws nothing."""

    def __init__(self, run: follow.Progress, stages: Sequence[str], *, quiet: bool) -> None:
        self._run = run
        console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {
            stage: self._bars.add_task(stage, total=run.expected) for stage in _STAGES if stage in stages
        }

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self) -> None:
        for stage, task in self._tasks.items():
            self._bars.update(task, completed=len(getattr(self._run, stage)))
