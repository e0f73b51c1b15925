"""The catalog on the real bus: observations, snapshots, commands and verdicts in, versions and answers out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis.asyncio import Redis

from services.catalog import ExchangeCatalog, MetadataCatalog
from services.catalog.app import create_app
from services.catalog.settings import Settings
from shared.bus import client, run_services
from shared.errors import DamagedState, IntegrityError
from shared.events import (
    Command,
    Event,
    ExchangeMetadata,
    FileRef,
    PromotionDecided,
    Rules,
    SymbolMetadata,
    UniverseSnapshot,
    Versions,
)
from shared.files import sha256_file
from shared.paths import Home
from shared.tables import open_table
from tests.integration.bus_parts import QUICK

T = datetime(2024, 5, 1, tzinfo=UTC)
OUT = ("catalog-updated", "command-results", "dead-letters")


@asynccontextmanager
async def at_work(url: str, home: Path, replicas: int = 1) -> AsyncIterator[None]:
    """Catalogs at work; one that ends by itself ends the block with its error."""
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(replicas):
                ready = asyncio.Event()
                service = create_app(Settings(home=home))
                tasks.create_task(run_services([service], url, settings=QUICK, stop=stop, ready=ready.set))
                await ready.wait()
            try:
                yield
            finally:
                stop.set()
    except* IntegrityError as ended:
        raise ended.exceptions[0] from None


async def heard(url: str, count: int) -> list[Any]:
    """The data of the first events that came out."""
    found: list[Any] = []
    async for one in client.follow(url, dict.fromkeys(OUT, "0"), timeout_s=20):
        found.append(one.event.data)
        if len(found) == count:
            return found
    raise AssertionError(found)


def observed(symbol: str, run_id: str, at: datetime, **record: Any) -> Event[Any]:
    data = SymbolMetadata(
        run_id=run_id, symbol=symbol, observed_at=at, record=record, sources=dict.fromkeys(record, "s")
    )
    return Event.of(data, source="fetcher", time=at, subject=symbol)


def command(kind: Any, **arguments: Any) -> Event[Any]:
    data = Command(command_id=f"c-{kind}", kind=kind, arguments=arguments, requested_by="test")
    return Event.of(data, source="cli", time=T + timedelta(days=9))


def closed(run_id: str) -> PromotionDecided:
    return PromotionDecided(
        run_id=run_id,
        decision="blocked",
        reason="a test",
        coverage=FileRef(path="none", sha256="0" * 64),
        ledger_head="0" * 64,
        base=Versions(features=0, catalog=0),
        catalog_version=0,
        interval="1d",
        rules=Rules(name="screener", version="1"),
    )


def updated(events: list[Any], run_id: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {"inserted": [], "changed": [], "unchanged": []}
    for one in events:
        for name, group in groups.items():
            group.extend(getattr(one, name) if one.run_id == run_id else ())
    return groups


async def test_two_catalogs_by_accident_are_harmless_and_each_run_keeps_what_it_saw(
    tmp_path: Path, redis_url: str
) -> None:
    symbols = [f"PSE:S{number}" for number in range(20)]
    first = [observed(symbol, "r1", T, sector="Food") for symbol in symbols]
    second = [observed(symbol, "r2", T + timedelta(days=1), sector="Banks") for symbol in symbols]
    async with at_work(redis_url, tmp_path, replicas=2):
        await client.publish(redis_url, [*first, *second, *first])
        async with asyncio.timeout(30):
            while True:
                catalog = MetadataCatalog.open(tmp_path / "lakehouse" / "symbols")
                if len(catalog.history()) == 2 * len(symbols):
                    break
                await asyncio.sleep(0.1)
    assert catalog.audit() == []
    assert catalog.epoch > 0
    home = Home.at(tmp_path)
    for run_id, sector in (("r1", "Food"), ("r2", "Banks")):
        parts = [pd.read_parquet(path) for path in home.run(run_id).metadata_parts.glob("*.parquet")]
        seen = pd.concat(parts).drop_duplicates("symbol")
        assert sorted(seen["symbol"]) == sorted(symbols)
        assert set(seen["sector"]) == {sector}


async def test_two_runs_that_observe_a_symbol_at_one_instant_each_keep_their_own(
    tmp_path: Path, redis_url: str
) -> None:
    home = Home.at(tmp_path)
    symbols = ("PSE:JFC", "PSE:BDO")
    first = [observed(symbol, "r1", T, sector="Food", pricescale=100) for symbol in symbols]
    second = [observed(symbol, "r2", T, sector="Banks", pricescale=10) for symbol in symbols]
    seen_twice = observed("PSE:JFC", "r1", T + timedelta(seconds=1), sector="Rail", pricescale=100)
    over = [
        Event.of(closed(run_id), source="auditor", time=T + timedelta(days=1), subject=run_id)
        for run_id in ("r1", "r2")
    ]
    async with at_work(redis_url, tmp_path):
        await client.publish(redis_url, [*first, *second, seen_twice])
        assert await client.settle(redis_url, timeout_s=20) == []
        for again in first:  # delivered again, each in a batch of its own
            await client.publish(redis_url, [again.model_copy(update={"time": T + timedelta(days=1)})])
        assert await client.settle(redis_url, timeout_s=20) == []
        await client.publish(redis_url, over)
        assert await client.settle(redis_url, timeout_s=20) == []
    for run_id, sectors, scale in (("r1", ["Food", "Rail"], 100), ("r2", ["Banks", "Banks"], 10)):
        seen = pd.read_parquet(home.run(run_id).metadata)
        assert (seen["symbol"].tolist(), seen["sector"].tolist()) == (sorted(symbols), sectors)
        assert set(seen["pricescale"]) == {scale}
        assert "observed_at" not in seen


async def test_what_changed_is_told_with_the_version_and_a_bad_record_is_a_named_failure(
    tmp_path: Path, redis_url: str
) -> None:
    async with at_work(redis_url, tmp_path):
        good = observed("PSE:JFC", "r1", T, sector="Food")
        await client.publish(redis_url, [good, observed("PSE:BAD", "r1", T, tick_size="cheap")])
        events: list[Any] = []
        async with asyncio.timeout(20):
            while sum(len(one.inserted) + len(one.rejected) for one in events) < 2:
                events = await heard(redis_url, len(events) + 1)
    assert updated(events, "r1")["inserted"] == ["PSE:JFC"]
    rejected = {symbol: failure for one in events for symbol, failure in one.rejected.items()}
    assert "tick_size" in rejected["PSE:BAD"].message
    assert max(one.catalog_version for one in events) == 1


async def test_a_universe_of_one_exchange_finds_delistings_and_exchanges_are_kept(
    tmp_path: Path, redis_url: str
) -> None:
    home = Home.at(tmp_path)
    seed = MetadataCatalog.open(home.symbols_table)
    seed.upsert_symbols([{"symbol": name} for name in ("PSE:JFC", "PSE:OLD", "OKX:ETHUSDT")], known_at=T)
    path = home.cache / "universe.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"symbol": ["PSE:JFC", "PSE:NEW"], "sector": ["Food", None]}), path)
    snapshot = UniverseSnapshot(
        exchange="PSE",
        observed_at=T + timedelta(days=1),
        records=FileRef(path=home.relative(path), sha256=sha256_file(path), rows=2),
        source="scanner",
    )
    exchange = ExchangeMetadata(records=({"exchange": "PSE", "country": "PH"},), observed_at=T, source="x")
    async with at_work(redis_url, tmp_path):
        await client.publish(redis_url, [Event.of(data, source="fetcher", time=T) for data in (snapshot, exchange)])
        async with asyncio.timeout(20):
            while (
                MetadataCatalog.open(home.symbols_table).version < 2
                or not ExchangeCatalog.open(home.exchanges_table).version
            ):
                await asyncio.sleep(0.05)
    catalog = MetadataCatalog.open(home.symbols_table)
    assert catalog.active() == ["OKX:ETHUSDT", "PSE:JFC", "PSE:NEW"]
    assert catalog.get_instrument("PSE:OLD")["valid_from"] == T + timedelta(days=1)
    assert ExchangeCatalog.open(home.exchanges_table).get_exchange("PSE")["country"] == "PH"


async def test_a_universe_whose_file_is_not_the_one_that_was_announced_retires_nobody(
    tmp_path: Path, redis_url: str
) -> None:
    home = Home.at(tmp_path)
    MetadataCatalog.open(home.symbols_table).upsert_symbols([{"symbol": "PSE:JFC"}], known_at=T)
    path = home.cache / "universe.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"symbol": ["PSE:NEW"]}), path)
    snapshot = UniverseSnapshot(
        exchange="PSE",
        observed_at=T + timedelta(days=1),
        records=FileRef(path=home.relative(path), sha256="0" * 64, rows=1),
        source="scanner",
    )
    async with at_work(redis_url, tmp_path):
        await client.publish(redis_url, [Event.of(snapshot, source="fetcher", time=T)])
        (letter,) = await heard(redis_url, 1)
    assert "universe.parquet" in letter.model_dump_json()
    assert MetadataCatalog.open(home.symbols_table).active() == ["PSE:JFC"]


async def test_retire_rename_and_import_are_carried_out_on_command_and_exported(tmp_path: Path, redis_url: str) -> None:
    home = Home.at(tmp_path / "home")
    seed = MetadataCatalog.open(home.symbols_table)
    seed.upsert_symbols([{"symbol": "PSE:JFC"}, {"symbol": "PSE:JOB"}], known_at=T)
    old = home.root / "old"  # a stream may name no folder outside the house
    old.mkdir(parents=True)
    stamps = pd.to_datetime(["2020-01-01", "2020-01-01"], utc=True)
    ends = pd.to_datetime([None, "2019-01-01"], utc=True)
    frame = pd.DataFrame({"symbol": ["PSE:BDO", "PSE:BAD"], "valid_from": stamps, "valid_until": ends})
    frame.to_parquet(old / "symbols.parquet")
    async with at_work(redis_url, home.root):
        for number, event in enumerate(
            (
                command("retire", symbols=["PSE:JFC", "PSE:NOPE"]),
                command("rename", old="PSE:NOPE", new="PSE:X"),
                command("rename", old="PSE:JOB", new="PSE:JOBS", at="2024-05-08").model_copy(update={"id": "e" * 32}),
                command("import", folder=str(tmp_path / "nowhere")),
                command("import", folder=str(old), apply=True).model_copy(update={"id": "f" * 32}),
            ),
            start=1,
        ):
            await client.publish(redis_url, [event])
            results = await heard(redis_url, number)
    retired, unknown, renamed, missing, imported = results
    assert (retired.outcome, retired.references["retired"]) == ("done", ["PSE:JFC"])
    assert "PSE:NOPE" in retired.message
    assert (unknown.outcome, "does not know it" in unknown.message) == ("refused", True)
    assert renamed.references["at"] == "2024-05-08T00:00:00Z"
    assert missing.outcome == "refused"
    assert imported.outcome == "done"
    assert list(imported.references["files"][0]["refused"]) == ["PSE:BAD"]
    exported = pd.read_parquet(home.symbols_export)
    assert sorted(set(exported["symbol"])) == ["PSE:BDO", "PSE:JFC", "PSE:JOB", "PSE:JOBS"]
    assert exported.set_index("symbol").loc["PSE:JOBS", "renamed_from"] == "PSE:JOB"


def damaged(home: Home, version: int) -> Path:
    (segment,) = (home.symbols_table / "segments").glob(f"{version:012d}-*")
    segment.write_bytes(segment.read_bytes()[:-9])
    return segment


async def test_a_damaged_table_ends_the_service_before_it_takes_an_event(tmp_path: Path, redis_url: str) -> None:
    home = Home.at(tmp_path)
    MetadataCatalog.open(home.symbols_table).upsert_symbols([{"symbol": "PSE:JFC"}], known_at=T)
    segment = damaged(home, 1)
    with pytest.raises(IntegrityError, match=segment.name):
        await run_services([create_app(Settings(home=tmp_path))], redis_url, settings=QUICK)


async def test_damage_under_way_ends_the_service_and_loses_no_event(tmp_path: Path, redis_url: str) -> None:
    home = Home.at(tmp_path)

    async def take_an_event_from_then_on() -> None:
        async with at_work(redis_url, tmp_path):
            other = MetadataCatalog.open(home.symbols_table)
            for name in ("PSE:AC", "PSE:BDO"):
                other.upsert_symbols([{"symbol": name}], known_at=T)
            damaged(home, 2)
            await client.publish(redis_url, [observed("PSE:JFC", "r1", T, sector="Food")])
            await asyncio.sleep(20)  # the end of the service ends this

    with pytest.raises(DamagedState, match="--repair"):
        await take_an_event_from_then_on()
    assert open_table(home.symbols_table).repair() is not None
    async with at_work(redis_url, tmp_path):
        assert await client.settle(redis_url, timeout_s=20) == []
    found = MetadataCatalog.open(home.symbols_table).get_instrument("PSE:JFC", as_of=T)
    assert found is not None
    assert found["sector"] == "Food"
    async with Redis.from_url(redis_url) as redis:
        assert not await redis.exists("dead-letters")
