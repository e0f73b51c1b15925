"""asof: point-in-time symbol metadata and technical ratings, with proof of coverage.

`Lakehouse` reads the files of a house; no service has to run. The write side's classes are re-exported for people who
use them as a library. Everything is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asof.lakehouse import Lakehouse as Lakehouse

_HOMES = {
    "Lakehouse": "asof.lakehouse",
    "MetadataCatalog": "services.catalog",
    "ExchangeCatalog": "services.catalog",
    "TechnicalRatings": "services.features",
    "RatingState": "services.features",
    "compute_panel": "services.features",
    "IngestionValidator": "services.features",
    "FeatureStoreSchema": "services.features",
    "FeatureConsistencyValidator": "services.features",
    "parse_candidates": "shared.candidates",
    "ensure_safe_path": "shared.paths",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  (a sorted list of literals)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'asof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
