"""Alerts reach people: over a real webhook, once, with restraint, and past channels that fail."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.auditor.adapters.alert_file import list_alerts
from services.auditor.adapters.channels import AlertLog, AppriseChannel, ChannelError, Stdout, Webhook, webhook_key
from services.auditor.handlers.lagging import LagWatch, watch_lag
from services.auditor.handlers.notify import Notifier, notify
from services.auditor.handlers.server import ServerWatch, watch_server
from services.auditor.ports import GroupState, ServerState
from shared import events as e
from shared.errors import ContractError, TransientError
from tests.integration.auditor_house import House, failure

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
WAIVER = {"stage": "bars", "reason": "halted", "approver": "ben", "expires": "2022-01-31"}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


class Mailbox:
    """A channel that keeps what it got; `broken` makes it fail."""

    def __init__(self, name: str = "mailbox") -> None:
        self.name = name
        self.got: list[e.Alert] = []
        self.broken = False

    async def send(self, alert: e.Alert) -> None:
        if self.broken:
            raise ChannelError("nobody answers", cause="connection refused")
        self.got.append(alert)

    def said(self) -> list[str]:
        """What came since the last look."""
        got, self.got = self.got, []
        return [f"{alert.status} {alert.labels['alertname']}" for alert in got]


def tell(house: House, *channels: Any, notifier: Notifier | None = None) -> list[e.Event[Any]]:
    return asyncio.run(notify(desk=house.desk, notifier=notifier or Notifier(channels)))


def block(house: House, run_id: str = "r1") -> None:
    house.start(["PSE:JFC", "PSE:BDO"], run_id=run_id)
    house.note(house.catalogued("PSE:JFC", "PSE:BDO", run_id=run_id))
    house.note(house.hydrated("PSE:JFC", run_id=run_id, failed={"PSE:BDO": failure()}))
    house.note(house.rated("PSE:JFC", run_id=run_id))


def test_each_alert_is_sent_once_repeated_with_restraint_and_ended(house: House) -> None:
    box = Mailbox()
    block(house)
    tell(house, box)
    assert box.said() == ["firing PromotionBlocked", "firing CoverageGap"]
    tell(house, box)
    house.command("promote")
    tell(house, box)
    assert box.said() == []
    house.now += timedelta(hours=4)
    tell(house, box)
    assert box.said() == ["firing PromotionBlocked", "firing CoverageGap"]
    house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    tell(house, box)
    assert box.said() == ["resolved PromotionBlocked", "resolved CoverageGap"]
    house.now += timedelta(hours=9)
    tell(house, box)
    assert box.said() == []


def test_a_restart_or_a_second_auditor_sends_nothing_again(house: House) -> None:
    box = Mailbox()
    block(house)
    tell(house, box)
    box.said()
    other = house.again()
    other.tick()
    tell(other, box)
    house.restart()
    house.tick()
    tell(house, box)
    assert box.said() == []


def test_an_alert_that_died_with_its_process_is_sent_by_the_next(house: House) -> None:
    block(house)
    house.restart()
    box = Mailbox()
    tell(house, box)
    assert box.said() == ["firing PromotionBlocked", "firing CoverageGap"]


def test_an_acknowledged_alert_is_not_repeated_but_its_end_is_told(house: House) -> None:
    box = Mailbox()
    block(house)
    tell(house, box)
    gap = box.got[1].fingerprint
    box.said()
    assert house.command("ack", None, fingerprint="ffff")[0].outcome == "refused"
    assert house.command("ack", None, fingerprint=gap[:6])[0].outcome == "done"
    house.now += timedelta(hours=5)
    tell(house, box)
    assert box.said() == ["firing PromotionBlocked"]
    house.command("waive", symbols=["PSE:BDO"], **WAIVER)
    tell(house, box)
    assert box.said() == ["resolved PromotionBlocked", "resolved CoverageGap"]


def test_a_silence_holds_back_what_it_names_until_its_time(house: House) -> None:
    box = Mailbox()
    until = (house.now + timedelta(hours=1)).isoformat()
    assert house.command("silence", None, labels={}, until=until)[0].outcome == "refused"
    assert house.command("silence", None, labels={"code": "no_bars"}, until=until)[0].outcome == "done"
    block(house)
    tell(house, box)
    assert box.said() == ["firing PromotionBlocked"]
    house.now += timedelta(hours=2)
    tell(house, box)
    assert box.said() == ["firing CoverageGap"]


def test_a_failing_channel_stops_no_other_and_is_itself_reported(house: House) -> None:
    good, bad = Mailbox("good"), Mailbox("bad")
    bad.broken = True
    notifier = Notifier([bad, good])
    block(house)
    (reported,) = tell(house, notifier=notifier)
    assert reported.data.labels == {"alertname": "ChannelFailing", "channel": "bad", "severity": "warning"}
    assert reported.data.error == "connection refused"
    tell(house, notifier=notifier)
    assert good.said() == ["firing PromotionBlocked", "firing CoverageGap", "firing ChannelFailing"]
    house.now += timedelta(seconds=3)
    bad.broken = False
    (recovered,) = tell(house, notifier=notifier)
    assert recovered.data.status == "resolved"
    assert bad.said() == ["firing PromotionBlocked", "firing CoverageGap"]
    tell(house, notifier=notifier)
    assert good.said() == ["resolved ChannelFailing"]


def test_the_list_says_what_lasts_and_who_knows(house: House) -> None:
    block(house)
    box = Mailbox()
    tell(house, box)
    house.command("ack", None, fingerprint=box.got[0].fingerprint)
    first, second = sorted(
        list_alerts(house.home, now=house.now), key=lambda row: row["labels"]["alertname"], reverse=True
    )
    assert (first["labels"]["alertname"], first["status"], first["acknowledged_by"]) == (
        "PromotionBlocked",
        "firing",
        "ana",
    )
    assert second["annotations"]["symbols"] == "PSE:BDO"
    assert "mailbox" in second["told"]


def test_a_granted_run_that_nobody_merges_is_an_alert_until_somebody_does(house: House) -> None:
    house.start(["PSE:JFC"])
    house.note(*house.all_of(["PSE:JFC"]))
    assert house.tick(299) == []
    (stale,) = house.tick(1)
    assert stale.data.labels["alertname"] == "PromotionStale"
    assert "asof promote r1" in stale.data.next_command
    rules = e.Rules(name="screener", version="1")
    merged = e.FeaturesPromoted(
        run_id="r1", interval="1d", rules=rules, feature_version=1, parent=0, catalog_version=1, symbols=1, rows=1
    )
    house.restart()  # the one that ends it need not be the one that raised it
    house.note(house.event(merged))
    (ended,) = house.tick(1)
    assert (ended.data.status, ended.data.fingerprint) == ("resolved", stale.data.fingerprint)


def test_a_ledger_that_was_mended_ends_its_alert(house: House) -> None:
    house.start(["PSE:JFC"])
    sound = house.home.ledger.read_bytes()
    house.home.ledger.write_bytes(sound.replace(b'"expected":1', b'"expected":2'))
    house.restart()
    (broken,) = house.tick()
    assert broken.data.labels["alertname"] == "LedgerBroken"
    house.home.ledger.write_bytes(sound)
    (ended,) = house.tick(1)
    assert (ended.data.status, ended.data.fingerprint) == ("resolved", broken.data.fingerprint)
    assert house.tick(1) == []


def test_a_run_that_can_be_read_again_ends_its_alert(house: House) -> None:
    house.start(["PSE:JFC"])
    manifest = house.home.run("r1").manifest
    sound = manifest.read_bytes()
    manifest.write_bytes(b"{}")
    house.restart()
    (unreadable,) = house.tick(3600)
    assert (unreadable.data.labels["alertname"], unreadable.data.status) == ("RunUnreadable", "firing")
    assert house.tick(60) == []
    manifest.write_bytes(sound)
    events = [*house.tick(600), *house.tick(1)]
    ended = [event.data for event in events if event.stream == "alerts" and event.data.status == "resolved"]
    assert [one.fingerprint for one in ended] == [unreadable.data.fingerprint]


def letter(house: House, run_id: str | None, entry_id: str = "5-0") -> e.Event[Any]:
    return house.event(
        e.DeadLetter(
            origin="bars-hydrated",
            entry_id=entry_id,
            group="features",
            consumer="c",
            deliveries=5,
            error=failure("integrity", "a segment is unreadable"),
            fields={},
            run_id=run_id,
        )
    )


def test_a_dead_letter_ends_when_its_run_is_granted_and_one_of_no_run_after_a_day_without_another(
    house: House,
) -> None:
    block(house)
    (fired,) = house.note(letter(house, "r1"))
    assert house.tick(1) == []
    waiver = {**WAIVER, "symbols": ["PSE:BDO"]}
    house.command("waive", **waiver)
    (ended,) = house.tick(1)
    assert (ended.data.status, ended.data.fingerprint) == ("resolved", fired.data.fingerprint)

    house.note(letter(house, None))
    house.tick(80_000)
    house.note(letter(house, None, "6-0"))
    still = [event.data.labels["alertname"] for event in house.tick(80_000)]
    assert "DeadLetter" not in still
    ended = [event.data for event in house.tick(10_000) if event.data.labels["alertname"] == "DeadLetter"]
    assert [one.status for one in ended] == ["resolved"]


class Standing:
    """Groups that are where the test says."""

    def __init__(self, **waiting: int) -> None:
        self.waiting, self.delivered = waiting, "1-0"

    async def states(self) -> list[GroupState]:
        return [GroupState("bars-hydrated", group, count, self.delivered) for group, count in self.waiting.items()]


def test_a_stuck_service_stays_an_alert_over_a_restart_of_the_auditor_and_ends_when_it_reads(house: House) -> None:
    groups = Standing(features=7)

    def look(watch: LagWatch, after_s: float) -> list[str]:
        house.now += timedelta(seconds=after_s)
        return [event.data.status for event in asyncio.run(watch_lag(desk=house.desk, watch=watch))]

    watch = LagWatch(timedelta(seconds=60), groups)
    assert look(watch, 0) == []
    assert look(watch, 61) == ["firing"]
    house.restart()
    watch = LagWatch(timedelta(seconds=60), groups)
    assert look(watch, 1) == []
    assert look(watch, 61) == []
    groups.delivered = "2-0"
    assert look(watch, 1) == ["resolved"]
    groups.waiting["features"] = 0
    assert look(watch, 1) == []


class Shown:
    """A server that is as the test says."""

    def __init__(self) -> None:
        self.undeclared: list[tuple[str, str]] = []
        self.used, self.limit, self.answers = 50, 100, True

    async def state(self) -> ServerState:
        if not self.answers:
            raise TransientError("Redis does not answer")
        return ServerState(self.undeclared, self.used << 20, self.limit << 20)


def look_at(house: House, server: Shown) -> list[str]:
    house.now += timedelta(seconds=5)
    events = asyncio.run(watch_server(desk=house.desk, watch=ServerWatch(server)))
    return [f"{event.data.status} {event.data.labels['alertname']}" for event in events]


def test_an_undeclared_group_is_one_alert_over_a_restart_until_it_is_gone(house: House) -> None:
    server, box = Shown(), Mailbox()
    assert look_at(house, server) == []
    server.undeclared = [("alerts", "mine; rm")]
    assert look_at(house, server) == ["firing UndeclaredGroup"]
    assert look_at(house, server) == []
    house.restart()
    assert look_at(house, server) == []
    tell(house, box)
    (told,) = box.got
    assert (told.labels["stream"], told.labels["group"]) == ("alerts", "mine; rm")
    assert told.next_command == "redis-cli XGROUP DESTROY alerts 'mine; rm'"
    server.answers = False
    assert look_at(house, server) == [], "unseen is not gone"
    server.answers, server.undeclared = True, []
    assert look_at(house, server) == ["resolved UndeclaredGroup"]
    assert look_at(house, server) == []


def test_a_server_that_runs_full_is_one_alert_until_there_is_clearly_room(house: House) -> None:
    server, box = Shown(), Mailbox()
    said = []
    for used in (89, 90, 120, 89, 80, 79, 89, 90):
        server.used = used
        said.append(look_at(house, server))
    firing, ended = ["firing RedisFull"], ["resolved RedisFull"]
    assert said == [[], firing, [], [], [], ended, [], firing]
    tell(house, box)
    assert box.got[0].error == "90 MiB are used, writes are refused from 100 MiB on"
    server.limit = 0
    assert look_at(house, server) == ended, "without a limit nothing is refused"


def test_what_is_printed_names_symbols_error_since_when_and_the_next_command(house: House, tmp_path: Path) -> None:
    printed = io.StringIO()
    log = tmp_path / "alerts.txt"
    block(house)
    tell(house, Stdout(printed), AlertLog(log))
    text = printed.getvalue()
    assert "FIRING  1 symbol of run r1 failed at bars (no_bars): PSE:BDO" in text
    assert "error  PSE:BDO: the series is empty" in text
    assert "since  2021-12-15T08:00:00Z" in text
    assert "next   asof waive r1 --symbol PSE:BDO --stage bars" in text
    assert log.read_text().replace("\n\n", "\n") == text


@contextmanager
def receiver(status: int = 204) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A real HTTP server on this machine: its URL, and what it got."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def through_webhook(house: House, url: str) -> list[e.Event[Any]]:
    async with httpx.AsyncClient() as client:
        hook = Webhook(url, SECRET, client, lambda: datetime(2021, 12, 15, tzinfo=UTC))
        return await notify(desk=house.desk, notifier=Notifier([hook]))


def test_a_real_webhook_gets_a_signed_alert(house: House) -> None:
    block(house)
    with receiver() as (url, got):
        asyncio.run(through_webhook(house, url))
    headers, body = got[1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(webhook_key(SECRET), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    message = json.loads(body)
    assert message["type"] == "alert.firing"
    assert message["data"]["annotations"]["symbols"] == "PSE:BDO"
    assert len({headers["webhook-id"] for headers, _ in got}) == 2


def test_a_webhook_that_refuses_or_is_away_is_a_failing_channel(house: House) -> None:
    block(house)
    with receiver(500) as (url, _):
        (refused,) = asyncio.run(through_webhook(house, url))
    assert refused.data.error == "HTTP 500"
    (away,) = asyncio.run(through_webhook(house, url))
    assert "ConnectError" in away.data.error


def test_apprise_delivers_to_a_real_server(house: House) -> None:
    block(house)
    with receiver(200) as (url, got):
        tell(house, AppriseChannel([url.replace("http://", "json://")]))
    assert json.loads(got[0][1])["title"] == "asof: PromotionBlocked firing"
    block(house, "r2")
    (failing,) = tell(house, AppriseChannel([url.replace("http://", "json://")]))
    assert failing.data.labels["channel"] == "apprise"


@pytest.mark.parametrize("secret", ["whsec_%%%", "whsec_c2hvcnQ="])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ContractError):
        webhook_key(secret)


def test_an_upstream_that_bans_us_is_said_at_once_and_ended_when_it_answers(house: House) -> None:
    banned = e.Failure(code="banned", message="418: banned for asking too often", retryable=True, host="api.example")
    attempted = house.attempted(1, fetched=0, failed=1, failures={"PSE:BDO": banned})
    (alert,) = [event.data for event in house.note(attempted)]
    assert (alert.labels["alertname"], alert.labels["host"]) == ("UpstreamBanned", "api.example")
    assert alert.error == "418: banned for asking too often"
    house.now += timedelta(minutes=5)
    (ended,) = [event.data for event in house.note(house.attempted(2, fetched=1))]
    assert (ended.status, ended.fingerprint) == ("resolved", alert.fingerprint)
