"""What a first batch would wait for: the compiled kernel and the libraries that take a second to import."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from services.features.domain.ratings.panel import compute_panel


def warm() -> None:
    """Compile the kernel or load it from its cache, and import the validators' library."""
    bars = np.ones((2, 1))
    compute_panel(bars, bars, bars, bars, bars, threads=1)
    import_module("pandera.pandas")
    import_module("exchange_calendars")
