"""A batch of a run, from stored bars to staged rows and the event that names every symbol's outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import structlog

from services.features.domain.adjustments import Adjustment, known_by
from services.features.domain.bars_batch import BarsBatch
from services.features.domain.histories import histories_after
from services.features.domain.parity import COMPARED, Parity, compare
from services.features.domain.rating import RatedBatch, rate
from services.features.domain.runs import SCREENER, RunRecord
from services.features.domain.sessions import Market, date_text, is_between_sessions, known_zone, to_stamp
from services.features.domain.validation import Finding
from services.features.going_on import NOTHING_KEPT, RunBasis, go_on_from_kept, versions_of
from services.features.ports import Adjustments, BarSource, Calendars, Histories, Receipt, Workspace
from shared.errors import PipelineError
from shared.events import Bars, Failure, FileRef, RatingsComputed, Rejected, Staged

log = structlog.get_logger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Unadjusted:
    """An empty book of adjustments: bars are rated as they were traded."""

    def newest(self) -> tuple[int, tuple[Adjustment, ...]]:
        return 0, ()


UNADJUSTED: Final = _Unadjusted()


@dataclass(frozen=True, slots=True)
class Stage:
    """Where batches are rated and staged, by which book of adjustments, and from what they go on."""

    bars: BarSource
    calendars: Calendars
    workspace: Workspace
    adjustments: Adjustments = UNADJUSTED
    histories: Histories = NOTHING_KEPT


def stage_batch(
    stage: Stage,
    record: RunRecord,
    *,
    batch: int,
    event_id: str,
    wanted: Sequence[Bars],
    missing: Mapping[str, Rejected] | None = None,
) -> RatingsComputed:
    """Rate one batch and keep what became of it. A batch that was done before says again what it said.

    Of a strict run's batch in which a symbol failed, nothing is staged.
    `missing`: symbols whose bars are not there, with the reason. Blocking: for a thread.
    """
    before = stage.workspace.receipt(record.run_id, batch)
    if before is not None and before.event_id == event_id:
        return before.said
    markets = {bars.symbol: _market(bars, stage.calendars) for bars in wanted}
    version, recorded = stage.adjustments.newest()
    basis = RunBasis(stage.histories.program, record, markets)
    adjusted = known_by(recorded, to_stamp(record.as_of)).keys()
    gone_on = go_on_from_kept(stage.bars, stage.histories, record, wanted, basis, adjusted=adjusted)
    whole = [bars for bars in wanted if bars.symbol not in gone_on.histories]
    series, faults = stage.bars.read(record.interval, whole)
    rated = rate(
        series,
        markets=markets,
        ticks=record.ticks,
        rules=record.rules.name,
        as_of=to_stamp(record.as_of),
        interval=record.interval,
        adjustments=recorded,
    )
    histories = {**gone_on.histories, **histories_after(rated, versions_of(wanted), basis)}
    quarantined = stage.workspace.quarantine(record, batch, rated)
    rejected = {**(missing or {}), **_unreadable(faults), **_refused(rated, quarantined, record)}
    aborts = record.strict and bool(rejected)
    counts = {symbol: one.rows for symbol, one in gone_on.histories.items()}
    file = None if aborts else stage.workspace.stage(record, batch, rated, gone_on.rated, counts)
    if file is not None:
        stage.histories.keep(file, histories)
    said = RatingsComputed(
        run_id=record.run_id,
        batch=batch,
        interval=record.interval,
        rules=record.rules,
        file=file,
        staged=() if aborts else _staged((rated, gone_on.rated), wanted, counts),
        rejected=_fatal(record, rejected) if aborts else rejected,
        warnings=_warnings(record, {**rated.report.warnings, **gone_on.rated.report.warnings}, wanted),
    )
    parity = (*_parity(record, rated, markets), *_parity(record, gone_on.rated, markets))
    receipt = Receipt(event_id, said, parity, version, tuple(gone_on.histories), gone_on.back)
    stage.workspace.keep(record.run_id, batch, receipt)
    log.info(
        "batch_rated",
        run_id=record.run_id,
        batch=batch,
        staged=len(said.staged),
        rejected=len(said.rejected),
        continued=len(gone_on.histories),
        rebuilt=dict(gone_on.back),
    )
    return said


def _fatal(record: RunRecord, rejected: Mapping[str, Rejected]) -> dict[str, Rejected]:
    """A strict run ends with its first failure: the one whose words say so."""
    first = min(rejected)
    failure = rejected[first].failure
    words = f"fatal: the run is strict and {first} failed: {failure.message}"
    log.critical("strict_run_aborted", run_id=record.run_id, symbol=first, code=failure.code, cause=failure.message)
    ended = rejected[first].model_copy(update={"failure": failure.model_copy(update={"message": _short(words)})})
    return {**rejected, first: ended}


def _market(bars: Bars, calendars: Calendars) -> Market:
    sessions = calendars.sessions(bars.calendar) if bars.calendar is not None else None
    return Market(bars.timezone, bars.session, sessions)


def _staged(parts: Sequence[RatedBatch], wanted: Sequence[Bars], counts: Mapping[str, int]) -> tuple[Staged, ...]:
    """In order of symbol. `counts`: how many rows those have in all of which there are only the last."""
    hashes = {bars.symbol: bars.sha256 for bars in wanted}
    found = {}
    for rated in parts:
        batch = rated.report.batch
        rows = np.bincount(batch.codes, minlength=len(batch.symbols))
        last = np.zeros(len(batch.symbols), dtype=np.int64)
        np.maximum.at(last, batch.codes[rated.report.usable], batch.stamps[rated.report.usable])
        for code, symbol in enumerate(batch.symbols):
            if symbol not in rated.refused:
                count = counts.get(symbol, int(rows[code]))
                found[symbol] = Staged(
                    symbol=symbol, rows=count, last_bar=_instant(last[code]), bars_sha256=hashes[symbol]
                )
    return tuple(found[symbol] for symbol in sorted(found))


def _unreadable(faults: Mapping[str, PipelineError]) -> dict[str, Rejected]:
    return {
        symbol: Rejected(
            stage="bars", failure=Failure(code=fault.code, message=_short(str(fault)), retryable=False, fix=fault.fix)
        )
        for symbol, fault in faults.items()
    }


def _refused(rated: RatedBatch, files: Mapping[str, FileRef], record: RunRecord) -> dict[str, Rejected]:
    return {
        symbol: Rejected(
            stage=refusal.stage,
            failure=Failure(
                code=refusal.finding.code,
                message=_short(refusal.finding.message + _hint(symbol, refusal.finding, rated.report.batch)),
                retryable=False,
            ),
            quarantine=files.get(symbol),
        )
        for symbol, refusal in rated.refused.items()
    }


def _hint(symbol: str, finding: Finding, batch: BarsBatch) -> str:
    """What a person can do beside signing for its absence; no `fix`, as only a person knows whether it was a split."""
    if finding.code != "toxic":
        return ""
    day = date_text(int(batch.stamps[finding.rows[0]]))[:10]
    return f"; was it a split? asof adjust {symbol} --date {day} --factor NEW/OLD"


def _warnings(
    record: RunRecord, reported: Mapping[str, tuple[str, ...]], wanted: Sequence[Bars]
) -> dict[str, tuple[str, ...]]:
    warnings: dict[str, tuple[str, ...]] = {}
    for bars in wanted:
        # The fetcher counts missing sessions of what it fetched; the validator, of the whole series.
        texts = [text for text in bars.warnings if not text.startswith("gaps:")]
        texts += reported.get(bars.symbol, ())
        texts += record.warnings.get(bars.symbol, ())
        if bars.timezone is not None and known_zone(bars.timezone) is None:
            texts.append(f"{bars.timezone!r} is no time zone: where its calendar is silent, a bar is known 14 h late")
        if bars.revised:
            texts.append(f"history revised upstream: {bars.revised:,} stored bars changed; all ratings computed anew")
        if texts:
            warnings[bars.symbol] = tuple(_short(text) for text in texts)
    return warnings


def _parity(record: RunRecord, rated: RatedBatch, markets: Mapping[str, Market]) -> tuple[Parity, ...]:
    """Local minus screener, where the screener was seen between two sessions and the bar of the first is there."""
    if record.rules.name != SCREENER:
        return ()
    batch = rated.report.batch
    found = []
    for code, symbol in enumerate(batch.symbols):
        current = record.current.get(symbol)
        if current is None or symbol in rated.refused:
            continue
        date = is_between_sessions(to_stamp(current.observed_at), markets[symbol])
        if date is None:
            continue
        rows = np.flatnonzero((batch.codes == code) & (batch.stamps == date))
        if len(rows) == 0:
            continue
        local = {name: float(rated.values[name][rows[0]]) for name in COMPARED}
        screener = {name: math.nan if (x := current.values[name]) is None else x for name in COMPARED}
        parity = compare(symbol, _instant(batch.stamps[rows[0]]), current.observed_at, local, screener)
        if parity is not None:
            found.append(parity)
    return tuple(found)


def _instant(stamp: int | np.int64) -> datetime:
    return _EPOCH + timedelta(microseconds=int(stamp))


def _short(text: str) -> str:
    return text if len(text) <= 2000 else text[:1999] + "…"
