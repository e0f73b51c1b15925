"""What a retry asks for again: only what failed, is not waived, and can be had by asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.auditor.domain.alerts import open_gaps
from services.auditor.domain.assess import rules_of
from services.auditor.domain.coverage import Coverage
from services.auditor.domain.tally import Tally
from shared.events import FileRef


@dataclass(frozen=True, slots=True)
class Again:
    """The symbols whose metadata, and those whose bars (and with them ratings), are asked for once more."""

    metadata: tuple[str, ...]
    bars: tuple[str, ...]

    @property
    def symbols(self) -> set[str]:
        return {*self.metadata, *self.bars}


def asked_again(coverage: Coverage, tally: Tally, wrong_file: Callable[[FileRef], str | None]) -> Again:
    """Every symbol with an open gap; and those whose staged rows are lost, changed, or made by older rules."""
    gaps = {gap.symbol for gap in open_gaps(coverage) if gap.stage != "candidates"}
    unusable = _unusable(coverage, tally, wrong_file)
    metadata, bars = [], []
    for symbol in coverage.expected:
        failed = {stage for stage, outcome in coverage.outcomes[symbol].items() if outcome.status == "failed"}
        if symbol in gaps and "metadata" in failed:
            metadata.append(symbol)
        if symbol in unusable or (symbol in gaps and failed - {"metadata"}):
            bars.append(symbol)
    return Again(tuple(metadata), tuple(bars))


def _unusable(coverage: Coverage, tally: Tally, wrong_file: Callable[[FileRef], str | None]) -> set[str]:
    rated = tally.rated_with(coverage.expected)
    wrong = {ref.path for ref in coverage.staged if wrong_file(ref) is not None}
    rules = rules_of(rated)
    newest = rules[-1].model_dump() if rules else {}
    return {
        symbol for symbol, evidence in rated.items() if evidence["file"] in wrong or dict(evidence["rules"]) != newest
    }
