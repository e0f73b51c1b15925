"""`asof reproduce`: a run's ratings once more, from the inputs that its coverage artifact pins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from asof.cli.differences import Differences
from asof.lakehouse import Lakehouse
from services.auditor import decided_coverage, hydrated_bars
from services.features.adapters.adjustments import LakehouseAdjustments
from services.features.adapters.bars import LakehouseBars
from services.features.adapters.calendars import ExchangeCalendars
from services.features.adapters.rows import SCHEMA, by_symbol, staged_rows
from services.features.adapters.whole import whole_rows
from services.features.adapters.workspace import RunWorkspace
from services.features.domain.rating import RatedBatch
from services.features.domain.runs import RunRecord, event_rules
from services.features.ports import Receipt
from services.features.staging import Stage, stage_batch
from shared.errors import ContractError, IntegrityError
from shared.events import Bars, FileRef
from shared.files import sha256_bytes
from shared.paths import Home
from shared.tables import open_table


@dataclass(frozen=True)
class Reproduction:
    """`unusable` names, by symbol, an input that is not what it was. Left is what was staged, right what comes now."""

    run_id: str
    rules: str
    symbols: int
    differences: Differences
    unusable: Mapping[str, str]

    @property
    def reproduced(self) -> bool:
        return self.differences.none and not self.unusable

    def as_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "reproduced": self.reproduced,
            "rules": self.rules,
            "symbols": self.symbols,
            **self.differences.as_dict("staged", "now"),
            "unusable_inputs": dict(self.unusable),
        }


def reproduce(lake: Lakehouse, run_id: str) -> Reproduction:
    """Compute what a run staged anew, batch by batch as it was computed then, and compare every cell. Writes nothing.

    Raises NotFoundError for a run that is unknown or undecided, ContractError for one that staged nothing or was
    rated by other rules than this asof has, IntegrityError when a file is not the one that was decided on.
    """
    home = lake.home
    lake.run(run_id)
    coverage = decided_coverage(home, run_id)
    if not coverage.staged:
        raise ContractError(f"run {run_id} staged no ratings", fix=f"asof show {run_id}")
    workspace = _Kept(home)
    record = workspace.record(run_id)
    _check_rules(record)
    journal = hydrated_bars(home, run_id)
    bars, calendars = LakehouseBars(home), ExchangeCalendars()
    differences, used = Differences(), dict[str, Bars]()
    unusable: dict[str, str] = {}
    for ref in sorted(coverage.staged, key=_batch):
        receipt = _receipt(home, run_id, _batch(ref))
        wanted = _inputs(bars, record, receipt, journal)
        used |= {one.symbol: one for one in wanted}
        book = LakehouseAdjustments(home, version=receipt.adjustments_version)
        stage = Stage(bars, calendars, workspace, book)
        said = stage_batch(stage, record, batch=_batch(ref), event_id=receipt.event_id, wanted=wanted)
        refused = said.rejected.keys() - receipt.said.rejected.keys()
        unusable |= {symbol: said.rejected[symbol].failure.message for symbol in sorted(refused)}
        differences.add(_staged(home, record, ref), workspace.rows)
    for symbol, pinned in coverage.inputs.items():
        if symbol in used and used[symbol].sha256 != pinned.sha256:
            unusable[symbol] = f"the journal names other bars than the artifact: version {used[symbol].table_version}"
    return Reproduction(run_id, f"{record.rules.name} {record.rules.version}", len(used), differences, unusable)


class _Kept(RunWorkspace):
    """A workspace that remembers the rows of the last batch instead of writing them."""

    rows: pa.Table = SCHEMA.empty_table()

    def receipt(self, run_id: str, batch: int) -> Receipt | None:
        return None  # it has to be computed, not looked up

    def stage(
        self, record: RunRecord, batch: int, rated: RatedBatch, continued: RatedBatch, continues: Mapping[str, int]
    ) -> FileRef | None:
        self.rows = by_symbol([staged_rows(record, rated, continued)])
        return None

    def quarantine(self, record: RunRecord, batch: int, rated: RatedBatch) -> dict[str, FileRef]:
        return {}

    def keep(self, run_id: str, batch: int, receipt: Receipt) -> None:
        return


def _check_rules(record: RunRecord) -> None:
    here = event_rules(record.rules.name)
    if here != record.rules:
        raise ContractError(
            f"run {record.run_id} was rated by version {record.rules.version} of the rules {here.name}",
            cause=f"this asof rates by version {here.version}",
            fix="use the asof that made the run",
        )


def _batch(ref: FileRef) -> int:
    return int(ref.path.rsplit("/", 1)[-1].removesuffix(".parquet"))


def _receipt(home: Home, run_id: str, batch: int) -> Receipt:
    receipt = RunWorkspace(home).receipt(run_id, batch)
    if receipt is None:
        raise IntegrityError(
            f"batch {batch} of run {run_id} is not as it was staged",
            cause=f"staged/{batch}.parquet has other bytes, or staged/{batch}.json is gone",
            fix=f"asof retry {run_id}",
        )
    return receipt


def _inputs(
    bars: LakehouseBars, record: RunRecord, receipt: Receipt, journal: Mapping[str, Sequence[Bars]]
) -> Sequence[Bars]:
    """The bars that the batch was rated from: those of its event, or the stored ones that the run pinned."""
    if receipt.event_id in journal:
        return journal[receipt.event_id]
    symbols = (*(one.symbol for one in receipt.said.staged), *receipt.said.rejected)
    pinned = [symbol for symbol in symbols if symbol in record.pins]
    return [bars.pinned(record.interval, symbol, record.pins[symbol]) for symbol in pinned]


def _staged(home: Home, record: RunRecord, ref: FileRef) -> pa.Table:
    """All rows that the file stands for, those of the feature version included that it goes on from."""
    data = home.resolve(ref.path).read_bytes()
    if sha256_bytes(data) != ref.sha256:
        raise IntegrityError(f"{ref.path} is not the file that was decided on", fix="asof audit features")
    return whole_rows(open_table(home.features_table(record.interval, record.rules.name)), data, ref.path)
