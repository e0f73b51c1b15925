"""The gate over all its inputs: every combination of what it looks at."""

from __future__ import annotations

import itertools

import pytest

from services.auditor.domain.gate import Facts, decide

PROBLEMS = ("ledger_broken", "manifest_changed", "coverage_changed", "staged_changed", "mixed_rules")
GAPS = [(0, 0), (1, 0), (1, 1), (3, 0), (3, 2), (3, 3)]


def everything() -> list[Facts]:
    return [
        Facts(
            expected=3,
            gaps=gaps,
            waived=waived,
            strict=strict,
            base=base,  # type: ignore[arg-type]
            base_detail=base,
            **{name: name if is_set else None for name, is_set in zip(PROBLEMS, problems, strict=True)},
        )
        for (gaps, waived), strict, base, problems in itertools.product(
            GAPS, (False, True), ("same", "moved", "newer"), itertools.product((False, True), repeat=len(PROBLEMS))
        )
    ]


def may_be_granted(facts: Facts) -> bool:
    """The promise of the gate, said another way than its table says it."""
    sound = all(getattr(facts, name) is None for name in PROBLEMS)
    accounted_for = facts.gaps == 0 or (facts.waived == facts.gaps and not facts.strict)
    return sound and accounted_for and facts.base != "newer"


def test_it_grants_exactly_what_is_sound_accounted_for_and_not_older_than_what_is_promoted() -> None:
    facts = everything()
    assert len(facts) == 6 * 2 * 3 * 32
    for each in facts:
        assert decide(each).granted == may_be_granted(each), each


def test_a_blocked_decision_names_the_first_row_of_the_table_that_applies() -> None:
    order = [*PROBLEMS, "strict", "gaps", "base_moved"]
    for facts in everything():
        applies = [name for name in PROBLEMS if getattr(facts, name) is not None]
        applies += ["strict"] if facts.strict and facts.gaps else []
        applies += ["gaps"] if facts.waived < facts.gaps else []
        applies += ["base_moved"] if facts.base == "newer" else []
        decision = decide(facts)
        if applies:
            assert decision.code == min(applies, key=order.index)
            assert decision.reason
        else:
            assert decision.code in ("complete", "waived", "rechecked")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(expected=272, gaps=0, waived=0), "all 272 covered"),
        (Facts(expected=272, gaps=17, waived=0), "255 of 272 covered: 17 candidates have a gap"),
        (Facts(expected=272, gaps=17, waived=16), "255 of 272 covered and 16 waived: 1 candidate has a gap"),
        (Facts(expected=272, gaps=1, waived=1, strict=True), "the run is strict and 1 of 272 candidates has a gap"),
        (Facts(expected=272, gaps=17, waived=17), "255 of 272 covered, the other 17 waived"),
    ],
)
def test_its_reason_counts(facts: Facts, reason: str) -> None:
    assert decide(facts).reason == reason
