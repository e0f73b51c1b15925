"""One sample of every event, with every field set: the golden files hold their wire form."""

from __future__ import annotations

from datetime import UTC, datetime

from shared import events as e

T = datetime(2021, 12, 15, 8, 30, tzinfo=UTC)
SHA = "ab" * 32
FILE = e.FileRef(path="runs/r1/staged/0.parquet", sha256=SHA, rows=10)
FAILURE = e.Failure(
    code="no_bars",
    message="the series is empty",
    retryable=False,
    host="127.0.0.1",
    status=200,
    attempts=1,
    fix="asof waive r1",
)
RULES = e.Rules(name="screener", version="2025-09")

SAMPLES: tuple[e.Payload, ...] = (
    e.RunCandidates(
        candidates=["PSE:JFC", {"symbol": "PSE:BDO", "metadata": {"Recommend.All": 0.5}}],
        run_id="r1",
        profile="canary",
        as_of=T,
        strict=True,
        strict_scope=True,
        deadline_s=60,
        workers=3,
        requested_by="ana",
    ),
    e.Command(
        command_id="c1",
        kind="waive",
        run_id="r1",
        arguments={"symbols": ["PSE:JFC"], "stage": "bars"},
        requested_by="ana",
    ),
    e.CommandResult(
        command_id="c1", kind="waive", run_id="r1", outcome="done", message="1 waived", references={"waivers": ["w1"]}
    ),
    e.UniverseSnapshot(exchange="PSE", observed_at=T, records=FILE, source="scanner", run_id="r1"),
    e.ExchangeMetadata(
        records=({"exchange": "PSE", "timezone": "Asia/Manila"},), observed_at=T, source="scanner", run_id="r1"
    ),
    e.FetchTask(run_id="r1", kind="bars", batch=0, batches=6, symbols=("PSE:JFC",), interval="1d", as_of=T, workers=3),
    e.SymbolMetadata(
        run_id="r1",
        symbol="PSE:JFC",
        observed_at=T,
        record={"tick_size": 0.2, "base": None},
        sources={"tick_size": "pse"},
    ),
    e.BarsHydrated(
        run_id="r1",
        batch=0,
        interval="1d",
        hydrated=(
            e.Bars(
                symbol="PSE:JFC",
                path="lakehouse/bars/1d/PSE%3AJFC",
                table_version=1,
                sha256=SHA,
                rows=2,
                first_bar=T,
                last_bar=T,
                added=2,
                timezone="Asia/Manila",
                session="0930-1530",
                calendar="XPHS",
                warnings=("gap: 1 session",),
            ),
        ),
        failures={"PSE:ABC": FAILURE},
    ),
    e.FetchAttempted(
        run_id="r1",
        kind="bars",
        batch=0,
        idx=1,
        fetched=1,
        failed=1,
        started_at=T,
        duration_s=0.5,
        failures={"PSE:ABC": FAILURE},
    ),
    e.CatalogUpdated(
        run_id="r1",
        catalog_version=3,
        inserted=("PSE:JFC",),
        changed=("PSE:BDO",),
        unchanged=("PSE:SM",),
        rejected={"PSE:ABC": FAILURE},
        metadata=FILE,
    ),
    e.RatingsComputed(
        run_id="r1",
        batch=0,
        interval="1d",
        rules=RULES,
        file=FILE,
        staged=(e.Staged(symbol="PSE:JFC", rows=10, last_bar=T, bars_sha256=SHA),),
        rejected={"PSE:ABC": e.Rejected(stage="validation", failure=FAILURE, quarantine=FILE)},
        warnings={"PSE:JFC": ("1 all-zero row",)},
    ),
    e.PromotionDecided(
        run_id="r1",
        decision="granted",
        reason="coverage is 100 %",
        coverage=FILE,
        ledger_head=SHA,
        waivers=("w1",),
        base=e.Versions(features=1, catalog=2),
        catalog_version=3,
        interval="1d",
        rules=RULES,
        staged=(FILE,),
        symbols=("PSE:JFC",),
    ),
    e.FeaturesPromoted(
        run_id="r1", interval="1d", rules=RULES, feature_version=2, parent=1, catalog_version=3, symbols=1, rows=10
    ),
    e.Alert(
        status="firing",
        fingerprint="0123456789abcdef",
        labels={"alertname": "CoverageGap", "severity": "page"},
        annotations={"summary": "1 gap"},
        starts_at=T,
        ends_at=T,
        error="no bars",
        next_command="asof show r1",
        run_id="r1",
        ledger_head=SHA,
    ),
    e.DeadLetter(
        origin="run-candidates",
        entry_id="1-0",
        group="fetcher",
        consumer="host-1-x",
        deliveries=5,
        error=FAILURE,
        fields={"ZGF0YQ==": "e30="},
        run_id="r1",
    ),
)
