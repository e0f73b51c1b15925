"""A house in a temporary folder whose auditor is driven by hand: events in, events out, on real files."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.auditor.adapters.alert_file import AlertFile
from services.auditor.adapters.bookmark import BookmarkFile
from services.auditor.adapters.ledger_file import LedgerFile
from services.auditor.adapters.repair_notes import RepairNotes
from services.auditor.adapters.report_data import HtmlReports
from services.auditor.adapters.run_files import RunFolders
from services.auditor.adapters.tables import LakehouseTables
from services.auditor.domain.coverage import Coverage, read_coverage
from services.auditor.domain.manifest import DeadlinePolicy
from services.auditor.handlers import commands, runs, watch
from services.auditor.handlers.desk import Desk
from shared import events as e
from shared.paths import Home

T0 = datetime(2021, 12, 15, 8, 0, tzinfo=UTC)
SHA = "ab" * 32
RULES = e.Rules(name="screener", version="1")


def failure(code: str = "no_bars", message: str = "the series is empty", retryable: bool = False) -> e.Failure:
    return e.Failure(code=code, message=message, retryable=retryable)


class House:
    """One auditor on a folder. `restart` is a new process on the same folder; `again` a second auditor beside it."""

    def __init__(self, root: Path, *, now: datetime = T0, tables: Any = None) -> None:
        self.home = Home.at(root)
        self.now = now
        self.tables = tables
        self._numbers = itertools.count(1)
        self.restart()

    def restart(self) -> None:
        self.desk = Desk(
            runs=RunFolders(self.home),
            ledger=LedgerFile(self.home),
            tables=self.tables or LakehouseTables(self.home),
            reporter=HtmlReports(self.home),
            alerts=AlertFile(self.home, repeat=timedelta(hours=4)),
            bookmark=BookmarkFile(self.home.state / "auditor" / "published"),
            repairs=RepairNotes(self.home),
            clock=lambda: self.now,
            deadline_policy=DeadlinePolicy(base_s=60, per_symbol_s=1, longest_s=3600),
        )

    def again(self) -> House:
        return House(self.home.root, now=self.now, tables=self.tables)

    def event(self, payload: e.Payload, *, time: datetime | None = None, source: str = "test") -> e.Event[Any]:
        return e.Event.of(payload, source=source, time=time or self.now, subject=payload.run)

    # -- events in

    def start(self, candidates: Any, run_id: str = "r1", **asked: Any) -> list[e.Event[Any]]:
        event = self.event(e.RunCandidates(candidates=candidates, run_id=run_id, **asked))
        return asyncio.run(runs.open_(event, desk=self.desk))

    def note(self, *events: e.Event[Any]) -> list[e.Event[Any]]:
        return asyncio.run(runs.note(events, desk=self.desk))

    def tick(self, after_s: float = 0) -> list[e.Event[Any]]:
        self.now += timedelta(seconds=after_s)
        return asyncio.run(watch.tick(desk=self.desk))

    def command(self, kind: str, run_id: str | None = "r1", command_id: str | None = None, **arguments: Any) -> Any:
        """The command's result and the other events it caused."""
        payload = e.Command(
            command_id=command_id or f"c{next(self._numbers)}",
            kind=kind,  # type: ignore[arg-type]
            run_id=run_id,
            arguments=arguments,
            requested_by="ana",
        )
        events = asyncio.run(commands.obey(self.event(payload), desk=self.desk))
        results = [event.data for event in events if isinstance(event.data, e.CommandResult)]
        return results[0] if results else None, [event for event in events if event.stream != "command-results"]

    # -- what the other services would say

    def catalogued(self, *symbols: str, run_id: str = "r1", version: int = 1) -> e.Event[Any]:
        return self.event(e.CatalogUpdated(run_id=run_id, catalog_version=version, inserted=symbols))

    def no_metadata(self, symbol: str, why: e.Failure | None = None, run_id: str = "r1") -> e.Event[Any]:
        return self.event(
            e.SymbolMetadata(run_id=run_id, symbol=symbol, observed_at=self.now, failure=why or failure("not_listed"))
        )

    def hydrated(
        self, *symbols: str, run_id: str = "r1", batch: int = 0, failed: dict[str, e.Failure] | None = None
    ) -> e.Event[Any]:
        bars = tuple(
            e.Bars(
                symbol=symbol,
                path=f"lakehouse/bars/1d/{symbol.replace(':', '%3A')}",
                table_version=1,
                sha256=SHA,
                rows=300,
                first_bar=T0 - timedelta(days=400),
                last_bar=T0 - timedelta(days=1),
                added=300,
            )
            for symbol in symbols
        )
        return self.event(
            e.BarsHydrated(run_id=run_id, batch=batch, interval="1d", hydrated=bars, failures=failed or {})
        )

    def rated(
        self,
        *symbols: str,
        run_id: str = "r1",
        batch: int = 0,
        rejected: dict[str, e.Rejected] | None = None,
        rules: e.Rules = RULES,
    ) -> e.Event[Any]:
        file = None
        if symbols:
            path = self.home.run(run_id).staged_parts / f"{batch}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = f"{run_id} {batch} {' '.join(symbols)}".encode()
            path.write_bytes(content)
            file = e.FileRef(
                path=self.home.relative(path), sha256=hashlib.sha256(content).hexdigest(), rows=len(symbols)
            )
        staged = tuple(
            e.Staged(symbol=symbol, rows=1, last_bar=T0 - timedelta(days=1), bars_sha256=SHA) for symbol in symbols
        )
        return self.event(
            e.RatingsComputed(
                run_id=run_id,
                batch=batch,
                interval="1d",
                rules=rules,
                file=file,
                staged=staged,
                rejected=rejected or {},
            )
        )

    def attempted(self, idx: int = 1, *, run_id: str = "r1", kind: str = "bars", batch: int = 0, **counts: Any) -> Any:
        fields = {"fetched": 1, "failed": 0, "started_at": self.now, "duration_s": 1.5, **counts}
        return self.event(e.FetchAttempted(run_id=run_id, kind=kind, batch=batch, idx=idx, **fields))  # type: ignore[arg-type]

    def all_of(self, symbols: Sequence[str], run_id: str = "r1") -> list[e.Event[Any]]:
        """Everything that a run without any fault brings."""
        return [
            self.catalogued(*symbols, run_id=run_id),
            self.hydrated(*symbols, run_id=run_id),
            self.rated(*symbols, run_id=run_id),
        ]

    # -- what there is to see

    def coverage(self, run_id: str = "r1") -> Coverage:
        path = self.home.run(run_id).coverage
        return read_coverage(path.read_bytes(), name=path.name)

    def ledger(self) -> list[str]:
        head = self.desk.ledger.head()
        kinds = ("opened", "covered", "decided", "waived", "promoted", "reopened", "reported")
        entries = sorted((entry for kind in kinds for entry in self.desk.ledger.of_kind(kind)), key=lambda x: x.n)
        assert not entries or entries[-1].n <= (head.n if head else 0)
        return [entry.kind for entry in entries]


def decisions(events: Sequence[e.Event[Any]]) -> list[e.PromotionDecided]:
    return [event.data for event in events if isinstance(event.data, e.PromotionDecided)]


def alerts(events: Sequence[e.Event[Any]]) -> list[e.Alert]:
    return [event.data for event in events if isinstance(event.data, e.Alert)]
