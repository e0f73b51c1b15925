"""The features service: technical ratings, their validation, and the feature store."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.features.adapters.reader import FeatureReader
    from services.features.domain.ratings.frames import TechnicalRatings
    from services.features.domain.ratings.panel import PanelRatings, compute_panel
    from services.features.domain.ratings.state import RatingState
    from services.features.domain.validation import (
        FeatureConsistencyValidator,
        FeatureStoreSchema,
        IngestionValidator,
    )

_HOMES = {
    "FeatureConsistencyValidator": "services.features.domain.validation",
    "FeatureReader": "services.features.adapters.reader",
    "FeatureStoreSchema": "services.features.domain.validation",
    "IngestionValidator": "services.features.domain.validation",
    "PanelRatings": "services.features.domain.ratings.panel",
    "RatingState": "services.features.domain.ratings.state",
    "TechnicalRatings": "services.features.domain.ratings.frames",
    "compute_panel": "services.features.domain.ratings.panel",
}

__all__ = [
    "FeatureConsistencyValidator",
    "FeatureReader",
    "FeatureStoreSchema",
    "IngestionValidator",
    "PanelRatings",
    "RatingState",
    "TechnicalRatings",
    "compute_panel",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
