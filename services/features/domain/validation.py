"""The three gates before a rating is stored: bars, values, consistency."""

from __future__ import annotations

from services.features.domain.validation_bars import Finding, IngestionReport, IngestionValidator
from services.features.domain.validation_consistency import FeatureConsistencyValidator
from services.features.domain.validation_features import FeatureStoreSchema

__all__ = [
    "FeatureConsistencyValidator",
    "FeatureStoreSchema",
    "Finding",
    "IngestionReport",
    "IngestionValidator",
]
