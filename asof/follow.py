"""Following one run through the streams: how far each stage is, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from asof.verdict import Verdict
from shared.events import (
    BarsHydrated,
    CatalogUpdated,
    Event,
    FeaturesPromoted,
    Payload,
    PromotionDecided,
    RatingsComputed,
    SymbolMetadata,
)

FOLLOWED = (
    "symbol-metadata",
    "catalog-updated",
    "bars-hydrated",
    "ratings-computed",
    "promotion-decided",
    "features-promoted",
)


@dataclass
class Progress:
    """The symbols of one run that have an outcome, by stage. A stage's outcome may be a failure: it counts as done."""

    run_id: str
    expected: int
    metadata: set[str] = field(default_factory=set)
    bars: set[str] = field(default_factory=set)
    ratings: set[str] = field(default_factory=set)
    decided: PromotionDecided | None = None
    promoted: FeaturesPromoted | None = None

    def note(self, event: Event[Payload]) -> bool:
        """Take in one event; False when it belongs to another run."""
        data = event.data
        if data.run != self.run_id:
            return False
        match data:
            case SymbolMetadata() if data.failure is not None:
                self.metadata.add(data.symbol)
            case CatalogUpdated():
                self.metadata.update(data.inserted, data.changed, data.unchanged, data.rejected)
            case BarsHydrated():
                self.bars.update(data.failures, (bars.symbol for bars in data.hydrated))
                # Without bars there is nothing to rate.
                self.ratings.update(data.failures)
            case RatingsComputed():
                self.ratings.update(data.rejected, (staged.symbol for staged in data.staged))
            case PromotionDecided():
                self.decided = data
            case FeaturesPromoted():
                self.promoted = data
        return True

    @property
    def over(self) -> bool:
        """Blocked, or granted and merged. A run that staged nothing has nothing to merge."""
        if self.decided is None:
            return False
        return self.decided.decision == "blocked" or not self.decided.symbols or self.promoted is not None

    def completed(self, verdict: Verdict) -> Verdict:
        """The verdict with the versions that were seen to be promoted: the ledger's extract may be a moment behind."""
        if self.promoted is None or verdict.promoted_version is not None:
            return verdict
        return replace(
            verdict,
            promoted_version=self.promoted.feature_version,
            catalog_version=self.promoted.catalog_version,
        )
