"""The gate: the one place where a promotion is decided.

`decide` is pure. The first row that applies is the decision; there is no way around it and no flag that forces it.

    | row | fact                                                                  | decision | code               |
    |-----|-----------------------------------------------------------------------|----------|--------------------|
    | 1   | the ledger's chain is broken                                          | blocked  | ledger_broken      |
    | 2   | the manifest is not the one that was entered when the run opened      | blocked  | manifest_changed   |
    | 3   | the coverage artifact is not the one that the ledger names            | blocked  | coverage_changed   |
    | 4   | a staged or metadata file is missing or has other bytes than reported | blocked  | staged_changed     |
    | 5   | staged rows were made by more than one version of the rules           | blocked  | mixed_rules        |
    | 6   | the run is strict and a candidate has a gap                           | blocked  | strict             |
    | 7   | a candidate has a gap that no valid waiver covers                     | blocked  | gaps               |
    | 8   | a symbol was promoted meanwhile from a later `as_of` than the run's   | blocked  | base_moved         |
    | 9   | a symbol was promoted meanwhile, and the run's rows are not older     | granted  | rechecked          |
    | 10  | gaps, each covered by a valid waiver                                  | granted  | waived             |
    | 11  | no gap                                                                | granted  | complete           |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["granted", "blocked"]
BaseState = Literal["same", "moved", "newer"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gate looks at. The `…_changed` texts name the file and the difference; None means it is as recorded.

    `base`: same (none of the run's symbols was promoted since it started), moved (some were, from an `as_of` that is
    not later than the run's) or newer (from a later one); `base_detail` says which and by whom.
    """

    expected: int
    gaps: int
    waived: int
    strict: bool = False
    base: BaseState = "same"
    base_detail: str = ""
    mixed_rules: str | None = None
    ledger_broken: str | None = None
    manifest_changed: str | None = None
    coverage_changed: str | None = None
    staged_changed: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    code: str
    reason: str

    @property
    def granted(self) -> bool:
        return self.verdict == "granted"


def decide(facts: Facts) -> Decision:
    """The verdict on one run: the decision table of this module, row by row."""
    for code, problem in (
        ("ledger_broken", facts.ledger_broken),
        ("manifest_changed", facts.manifest_changed),
        ("coverage_changed", facts.coverage_changed),
        ("staged_changed", facts.staged_changed),
        ("mixed_rules", facts.mixed_rules),
    ):
        if problem is not None:
            return Decision("blocked", code, problem)
    covered = facts.expected - facts.gaps
    if facts.strict and facts.gaps:
        failed = f"{facts.gaps:,} of {facts.expected:,} candidates {'has' if facts.gaps == 1 else 'have'} a gap"
        return Decision("blocked", "strict", f"the run is strict and {failed}")
    if facts.waived < facts.gaps:
        left = facts.gaps - facts.waived
        by_waiver = f" and {facts.waived:,} waived" if facts.waived else ""
        return Decision("blocked", "gaps", f"{covered:,} of {facts.expected:,} covered{by_waiver}: {_gaps(left)}")
    if facts.base == "newer":
        return Decision("blocked", "base_moved", facts.base_detail)
    complete = (
        f"{covered:,} of {facts.expected:,} covered, the other {facts.gaps:,} waived"
        if facts.gaps
        else f"all {facts.expected:,} covered"
    )
    if facts.base == "moved":
        return Decision("granted", "rechecked", f"{complete}; {facts.base_detail}")
    return Decision("granted", "waived" if facts.gaps else "complete", complete)


def _gaps(count: int) -> str:
    return "1 candidate has a gap" if count == 1 else f"{count:,} candidates have a gap"
