"""The presets of `asof discover`, from the file that is shipped with the fetcher."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def read_presets() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).parent.with_name("presets.toml").read_text(encoding="utf-8"))
