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


def warm(*, votes: bool = False) -> Warmth:
    """Compile the kernel or load it from its cache, and import the validators' library.

    With `votes` also the variant that notes every vote, which `TechnicalRatings.votes` and `explain` use: a service
    needs it never, a person's first question would wait for it.
    """
    start = time.perf_counter()
    bars = np.ones((2, WIDTH + 1))  # a block, and a symbol by itself
    compute_panel(bars, bars, bars, bars, bars, threads=1)
    if votes:
        panel_trace(checked_bars(bars, bars, bars, bars, bars), SCREENER)
    compiled = time.perf_counter()
    import_module("pandera.pandas")
    import_module("exchange_calendars")
    return Warmth(compiled - start, time.perf_counter() - compiled, NUMBA_PROBLEM)
