"""The fold over a run's notes: any order, any repetition, the same picture."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from services.auditor.domain.assess import assess
from services.auditor.domain.coverage import Coverage
from services.auditor.domain.manifest import DeadlinePolicy, RunManifest, open_run
from services.auditor.domain.notes import Note, Reopened, note_of, read_line
from services.auditor.domain.tally import fold
from shared import events as e

T0 = datetime(2021, 12, 15, 8, 0, tzinfo=UTC)
SHA = "cd" * 32
A, B, C, D = "PSE:A", "PSE:B", "PSE:C", "PSE:D"
DEADLINES = DeadlinePolicy(base_s=60, per_symbol_s=1, longest_s=120)


def manifest(candidates: object = (A, B, C, D), **asked: object) -> RunManifest:
    return open_run(
        e.RunCandidates(candidates=list(candidates), run_id="r1", **asked),  # type: ignore[arg-type, call-overload]
        run_id="r1",
        event_id="0" * 32,
        event_time=T0,
        now=T0,
        base=e.Versions(features=4, catalog=2),
        candidates=e.FileRef(path="runs/r1/candidates.json", sha256=SHA),
        deadlines=DEADLINES,
        default_exchange=None,
    )


def note(payload: e.Payload, after_s: float = 0) -> Note:
    return note_of(e.Event.of(payload, source="test", time=T0 + timedelta(seconds=after_s)))


def fails(code: str, **fields: object) -> e.Failure:
    return e.Failure(code=code, message=f"{code} happened", retryable=False, **fields)  # type: ignore[arg-type]


def bars(symbol: str) -> e.Bars:
    return e.Bars(
        symbol=symbol, path=f"bars/{symbol}", table_version=1, sha256=SHA, rows=9, first_bar=T0, last_bar=T0, added=9
    )


def staged(symbol: str) -> e.Staged:
    return e.Staged(symbol=symbol, rows=9, last_bar=T0, bars_sha256=SHA)


RULES = e.Rules(name="screener", version="1")
FILE = e.FileRef(path="runs/r1/staged/0.parquet", sha256=SHA, rows=9)
NOTES = [
    note(e.SymbolMetadata(run_id="r1", symbol=A, observed_at=T0, record={"base": "A"}), 1),
    note(e.SymbolMetadata(run_id="r1", symbol=D, observed_at=T0, failure=fails("not_listed")), 1),
    note(e.CatalogUpdated(run_id="r1", catalog_version=3, inserted=(A,), unchanged=(B,)), 2),
    note(e.CatalogUpdated(run_id="r1", catalog_version=5, rejected={C: fails("bad_tick")}), 3),
    note(e.BarsHydrated(run_id="r1", batch=0, interval="1d", hydrated=(bars(A), bars(B))), 4),
    note(e.BarsHydrated(run_id="r1", batch=1, interval="1d", hydrated=(bars(D),), failures={C: fails("no_bars")}), 5),
    # The same batch delivered again: its upstream was away by then.
    note(e.BarsHydrated(run_id="r1", batch=0, interval="1d", failures={A: fails("http_503")}), 6),
    note(
        e.RatingsComputed(
            run_id="r1",
            batch=0,
            interval="1d",
            rules=RULES,
            file=FILE,
            staged=(staged(A), staged(D)),
            rejected={B: e.Rejected(stage="validation", failure=fails("toxic"))},
        ),
        7,
    ),
    note(
        e.FetchAttempted(
            run_id="r1", kind="bars", batch=1, idx=1, fetched=1, failed=1, started_at=T0, duration_s=2,
            failures={C: fails("http_503")},
        ),
        5,
    ),
    note(
        e.FetchAttempted(
            run_id="r1", kind="bars", batch=1, idx=2, fetched=0, failed=1, duration_s=3,
            started_at=T0 + timedelta(seconds=2), failures={C: fails("no_bars")},
        ),
        5,
    ),
]  # fmt: skip


def assessed(notes: list[Note], **asked: object) -> Coverage:
    return assess(manifest(**asked), fold(notes), closed_at=T0 + timedelta(seconds=9), closed_by="complete")


def test_order_and_repetition_do_not_matter() -> None:
    expected = assessed(NOTES)
    rng = random.Random(7)
    for _ in range(200):
        shuffled = NOTES + rng.sample(NOTES, 4)
        rng.shuffle(shuffled)
        assert assessed(shuffled) == expected


def test_every_symbol_ends_in_one_outcome_a_stage_and_at_most_one_gap() -> None:
    coverage = assessed(NOTES)
    said = {symbol: [outcome.status for outcome in stages.values()] for symbol, stages in coverage.outcomes.items()}
    assert said == {
        A: ["ok", "ok", "ok", "ok"],
        B: ["ok", "ok", "failed", "skipped"],
        C: ["failed", "failed", "skipped", "skipped"],
        D: ["failed", "ok", "ok", "ok"],
    }
    assert [(gap.symbol, gap.stage, gap.code) for gap in coverage.gaps] == [
        (B, "validation", "toxic"),
        (C, "metadata", "bad_tick"),
        (D, "metadata", "not_listed"),
    ]
    assert coverage.covered == 0.25
    assert coverage.covered_symbols == (A,)
    assert coverage.catalog_version == 5


def test_attempts_are_summed_by_their_number_and_span_first_start_to_last_end() -> None:
    coverage = assessed(NOTES)
    first, second = coverage.attempts
    assert (first.idx, first.fetched, first.failed, first.duration_s) == (1, 1, 1, 2.0)
    assert (second.idx, second.fetched, second.failed, second.duration_s) == (2, 0, 1, 3.0)
    assert coverage.outcomes[C]["bars"].attempts == 2


def test_the_attempts_of_a_retry_count_on_from_those_before_it() -> None:
    tally = fold(NOTES)
    tally.reopen(Reopened(T0 + timedelta(hours=1), "ana", T0 + timedelta(hours=2), bars=(C,)))
    again = e.FetchAttempted(
        run_id="r1", kind="bars", batch=9, idx=1, fetched=1, failed=0, duration_s=4,
        started_at=T0 + timedelta(hours=1, seconds=1),
    )  # fmt: skip
    tally.add(note(again, 3605))
    coverage = assess(manifest(), tally, closed_at=T0 + timedelta(hours=1, seconds=6), closed_by="complete")
    assert [(row.idx, row.fetched, row.duration_s) for row in coverage.attempts] == [
        (1, 1, 2.0),
        (2, 0, 3.0),
        (3, 1, 4.0),
    ]


def test_a_success_stands_against_a_later_failure_of_a_redelivered_batch() -> None:
    assert assessed(NOTES).outcomes[A]["bars"].status == "ok"


def test_bars_that_the_features_service_cannot_use_are_a_gap_though_they_came() -> None:
    unusable = note(
        e.RatingsComputed(
            run_id="r1", batch=0, interval="1d", rules=RULES,
            rejected={A: e.Rejected(stage="bars", failure=fails("no_stored_bars"))},
        )
    )  # fmt: skip
    coverage = assessed([NOTES[4], unusable])
    assert [outcome.status for outcome in coverage.outcomes[A].values()] == ["failed", "failed", "skipped", "skipped"]
    assert next(gap for gap in coverage.gaps if gap.symbol == A).code == "no_stored_bars"


@pytest.mark.parametrize(
    ("stages", "ends"), [(["metadata"], 4), (["bars"], 4), (["metadata", "bars", "ratings"], 8), (["ratings"], 4)]
)
def test_an_empty_tally_awaits_one_end_for_metadata_and_one_for_the_rest(stages: list[str], ends: int) -> None:
    assert fold([]).pending(manifest(stages=stages)) == ends


@pytest.mark.parametrize("stages", [["metadata"], ["bars"], ["metadata", "bars", "ratings"], ["ratings"]])
def test_it_is_complete_exactly_when_nothing_is_pending_and_has_failed_when_any_expected_symbol_has(
    stages: list[str],
) -> None:
    rng = random.Random(3)
    # What is said of symbols that nobody asked for must not stand in for those that were.
    for expected in ((A, B, C, D), (A, B), (C,), ("PSE:Z",)):
        run = manifest(expected, stages=stages)
        for _ in range(50):
            tally = fold([])
            for each in rng.sample(NOTES, len(NOTES)):
                tally.add(each)
                assert tally.is_complete(run) == (tally.pending(run) == 0)
                tables = (tally.metadata, tally.bars, tally.rated)
                failed = any(symbol in table and not table[symbol].ok for symbol in expected for table in tables)
                assert tally.failed(run) == failed


def test_silence_names_who_was_silent_and_what_was_heard_before() -> None:
    coverage = assess(
        manifest(), fold(NOTES[:1] + NOTES[4:5]), closed_at=T0 + timedelta(seconds=64), closed_by="deadline"
    )
    causes = {stage: outcome.cause or "" for stage, outcome in coverage.outcomes[A].items()}
    assert "fetched at 2021-12-15T08:00:01Z, but the catalog reported no commit" in causes["metadata"]
    assert "its bars came at 2021-12-15T08:00:04Z, but the features service said nothing" in causes["validation"]
    assert "the fetcher said nothing" in (coverage.outcomes[B]["metadata"].cause or "")


def test_what_is_asked_for_again_is_open_until_something_newer_is_said() -> None:
    tally = fold(NOTES)
    run = manifest()
    assert tally.pending(run) == 0
    tally.reopen(Reopened(T0 + timedelta(seconds=10), "ana", T0 + timedelta(seconds=60), metadata=(C, D), bars=(B,)))
    assert tally.pending(run) == 3
    tally.add(note(e.CatalogUpdated(run_id="r1", catalog_version=4, rejected={D: fails("old_news")}), 8))
    assert tally.pending(run) == 3
    tally.add(note(e.CatalogUpdated(run_id="r1", catalog_version=6, inserted=(C, D)), 11))
    assert tally.pending(run) == 1
    tally.add(
        note(e.RatingsComputed(run_id="r1", batch=7, interval="1d", rules=RULES, file=FILE, staged=(staged(B),)), 12)
    )
    assert tally.pending(run) == 0
    coverage = assess(run, tally, closed_at=T0 + timedelta(seconds=13), closed_by="complete")
    assert coverage.round == 2
    assert [gap.symbol for gap in coverage.gaps] == [C]


def test_lines_of_the_journal_come_back_as_they_were_written() -> None:
    reopened = Reopened(T0, "ana", T0 + timedelta(seconds=60), metadata=(C,), bars=(B,))
    for line in (*NOTES, reopened):
        assert read_line(line.as_json()) == line
