"""What a first batch would wait for: the compiled kernel and the libraries that take a second to import."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from services.features.domain.ratings.bars import checked_bars
from services.features.domain.ratings.lanes import NUMBA_PROBLEM, WIDTH
from services.features.domain.ratings.panel import compute_panel, panel_trace
from services.features.domain.ratings.rules import SCREENER


@dataclass(frozen=True, slots=True)
class Warmth:
    """How long it took (seconds), and why ratings run uncompiled and slowly, if they do."""

    kernel_s: float
    libraries_s: float
    problem: str | None


def warm() -> Warmth:
    """What a service needs: the kernel, and the validators' libraries."""
    kernel_s = warm_kernel(votes=False)
    start = time.perf_counter()
    import_module("pandera.pandas")
    import_module("exchange_calendars")
    return Warmth(kernel_s, time.perf_counter() - start, NUMBA_PROBLEM)


def warm_kernel(*, votes: bool = True) -> float:
    """Compile the kernel or load it from its cache, every variant there is; how long that took, in seconds.

    `votes`: also the one that notes every vote, which `TechnicalRatings.votes` and `explain` use. A service never does.
    """
    start = time.perf_counter()
    bars = np.ones((2, WIDTH + 1))  # a block, and a symbol by itself
    compute_panel(bars, bars, bars, bars, bars, threads=1)
    if votes:
        panel_trace(checked_bars(bars, bars, bars, bars, bars), SCREENER)
    return time.perf_counter() - start
