"""Every kind of failure at every stage: blocked, an alert that names symbol, cause and command, a command that helps.

The command is read from the alert and carried out as it stands; only its blanks (reason, approver) are filled in.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from shared import events as e
from shared.tables import Changes, NewSegment, open_table
from tests.integration.auditor_house import House, alerts, decisions, failure

A, B = "PSE:AAA", "PSE:BBB"
Given = Callable[[House], list[e.Event]]


def _letter(house: House, group: str, inner: e.Event) -> e.Event:
    raw = base64.b64encode(inner.to_json()).decode()
    letter = e.DeadLetter(
        origin=inner.stream,
        entry_id="7-0",
        group=group,
        consumer="c",
        deliveries=5,
        error=failure("unexpected", "KeyError: 'close'"),
        fields={base64.b64encode(b"data").decode(): raw},
        run_id="r1",
    )
    return house.event(letter)


def _rejected(stage: str, code: str, cause: str) -> e.Rejected:
    return e.Rejected(stage=stage, failure=failure(code, cause))  # type: ignore[arg-type]


# What the services say of BBB (AAA is fine), and what its gap then is: stage, code, a piece of the cause.
FAULTS: dict[str, tuple[Given, str, str, str]] = {
    "an unknown symbol": (
        lambda h: [
            h.no_metadata(B, failure("unknown_symbol", "the scanner does not know it")),
            h.catalogued(A),
            h.hydrated(A, B),
            h.rated(A, B),
        ],
        "metadata", "unknown_symbol", "does not know it",
    ),
    "an upstream that was away": (
        lambda h: [
            h.no_metadata(B, failure("server_error", "503: the upstream failed", retryable=True)),
            h.catalogued(A),
            h.hydrated(A, B),
            h.rated(A, B),
        ],
        "metadata", "server_error", "503",
    ),
    "a record that the catalog refuses": (
        lambda h: [
            h.event(
                e.CatalogUpdated(run_id="r1", catalog_version=1, inserted=(A,), rejected={B: failure("bad", "tick -1")})
            ),
            h.hydrated(A, B),
            h.rated(A, B),
        ],
        "metadata", "bad", "tick -1",
    ),
    "a catalog that is dead": (
        lambda h: [h.hydrated(A, B), h.rated(A, B), h.catalogued(A)],
        "metadata", "silence", "said nothing",
    ),
    "no bars": (
        lambda h: [h.catalogued(A, B), h.hydrated(A, failed={B: failure()}), h.rated(A)],
        "bars", "no_bars", "the series is empty",
    ),
    "a timeout": (
        lambda h: [
            h.catalogued(A, B),
            h.hydrated(A, failed={B: failure("timeout", "10 s without a byte", retryable=True)}),
            h.rated(A),
        ],
        "bars", "timeout", "10 s",
    ),
    "a fetcher that is dead": (
        lambda h: [h.catalogued(A, B), h.hydrated(A), h.rated(A)],
        "bars", "silence", "the fetcher",
    ),
    "stored bars that cannot be read": (
        lambda h: [
            h.catalogued(A, B),
            h.hydrated(A, B),
            h.rated(A, rejected={B: _rejected("bars", "integrity", "checksum differs")}),
        ],
        "bars", "integrity", "checksum differs",
    ),
    "toxic bars": (
        lambda h: [
            h.catalogued(A, B),
            h.hydrated(A, B),
            h.rated(A, rejected={B: _rejected("validation", "toxic", "moved +900 % on 2021-03-01")}),
        ],
        "validation", "toxic", "+900 %",
    ),
    "features that fail their schema": (
        lambda h: [
            h.catalogued(A, B),
            h.hydrated(A, B),
            h.rated(A, rejected={B: _rejected("validation", "schema", "recommend_all is 1.00000001")}),
        ],
        "validation", "schema", "1.00000001",
    ),
    "a features service that is dead": (
        lambda h: [h.catalogued(A, B), h.hydrated(A, B), h.rated(A)],
        "validation", "silence", "its bars came",
    ),
    "ratings that are rejected": (
        lambda h: [
            h.catalogued(A, B),
            h.hydrated(A, B),
            h.rated(A, rejected={B: _rejected("ratings", "empty", "no vote exists")}),
        ],
        "ratings", "empty", "no vote",
    ),
    "a dead letter": (
        lambda h: [h.catalogued(A, B), h.hydrated(A), h.rated(A), _letter(h, "features", h.hydrated(B, batch=1))],
        "validation", "dead_letter", "KeyError",
    ),
}  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


def carry_out(house: House, text: str) -> list[e.Event]:
    """A command line of `asof`, as a person would type it from the alert."""
    words = shlex.split(text)
    assert words[0] == "asof", text
    kind, run_id, *rest = words[1:]
    if kind == "run":
        return run_again(house, Path(run_id.replace("${ASOF_HOME:-data}", str(house.home.root))), rest)
    options: dict[str, list[str]] = {}
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        options.setdefault(name.removeprefix("--"), []).append(value)
    arguments: dict[str, object] = {}
    if kind == "waive":
        arguments = {
            "symbols": options["symbol"],
            "stage": options["stage"][0],
            "expires": options["expires"][0],
            "reason": "halted since June",
            "approver": "ben",
        }
    result, events = house.command(kind, run_id, **arguments)
    assert result.outcome == "done", result.message
    return events


def run_again(house: House, file: Path, options: list[str]) -> list[e.Event]:
    """`asof run FILE`, in which nothing fails any more."""
    asked = dict(zip([name.removeprefix("--") for name in options[::2]], options[1::2], strict=True))
    run_id = asked.pop("run-id")
    if "stages" in asked:
        asked["stages"] = tuple(asked["stages"].split(","))
    house.tick(60)
    events = house.start(json.loads(file.read_bytes()), run_id=run_id, **asked)
    return [*events, *house.note(*house.all_of([A, B], run_id))]


@pytest.mark.parametrize("profile", ["default", "nightly"])
@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda h: promote_from_later(h, B), f"{B} promoted since the run started"),
        (lambda h: spoil_file(h.home.run("r1").manifest, b'"features": 0', b'"features": 9'), "r1/manifest.json has"),
    ],
    ids=["a base that moved", "a manifest that was changed"],
)
def test_what_no_retry_can_mend_names_the_run_that_does(
    house: House, spoil: Callable[[House], object], named: str, profile: str
) -> None:
    house.start([A, B], profile=profile)
    spoil(house)
    events = house.note(*house.all_of([A, B]))
    (decided,) = decisions(events)
    assert (decided.decision, named in decided.reason) == ("blocked", True)
    (alert,) = [alert for alert in alerts(events) if alert.labels["alertname"] == "PromotionBlocked"]
    assert named in alert.error
    assert alert.next_command.startswith('asof run "${ASOF_HOME:-data}/runs/r1/candidates.json" --run-id r1-again')
    granted = decisions(carry_out(house, alert.next_command))[-1]
    assert (granted.decision, granted.run_id) == ("granted", "r1-again")
    assert house.coverage("r1-again").profile == profile


def promote_from_later(house: House, symbol: str) -> None:
    house.start([symbol], run_id="later", as_of=house.now + timedelta(seconds=30))
    table = open_table(house.home.features_table("1d", "screener"))
    rows = pa.table({"symbol": [symbol]})
    changes = Changes(append=(NewSegment(rows, (symbol,)),))
    table.commit(table.load().version, changes, meta={"run_id": "later", "catalog_version": 1})


def spoil_file(path: Path, old: bytes, new: bytes) -> None:
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_alert_names_symbol_cause_and_command_and_the_command_leads_to_promotion(house: House, fault: str) -> None:
    given, stage, code, cause = FAULTS[fault]
    house.start([A, B])
    events = [each for event in given(house) for each in house.note(event)]
    events += house.tick(3600) if not decisions(events) else []
    (decided,) = decisions(events)
    assert decided.decision == "blocked"
    (gap,) = [alert for alert in alerts(events) if alert.labels["alertname"] == "CoverageGap"]
    assert (gap.labels["stage"], gap.labels["code"]) == (stage, code)
    assert gap.annotations["symbols"] == B
    assert cause in gap.error

    caused = carry_out(house, gap.next_command)
    if gap.next_command.startswith("asof retry"):
        house.tick(1)
        caused = house.note(house.catalogued(B), house.hydrated(B, batch=5), house.rated(B, batch=5))
    granted = decisions(caused)[-1]
    assert granted.decision == "granted"
    assert B in granted.symbols or granted.waivers


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda h: h.home.run("r1").coverage.write_text("{}"), "feature_ingest_coverage.json"),
        (lambda h: (h.home.run("r1").staged_parts / "0.parquet").write_text("x"), "runs/r1/staged/0.parquet"),
    ],
)
def test_a_tampered_file_is_named_and_the_command_leads_to_promotion(
    house: House, spoil: Callable[[House], object], named: str
) -> None:
    house.start([A, B])
    house.note(house.catalogued(A, B), house.hydrated(A, failed={B: failure()}))
    house.note(house.rated(A))
    spoil(house)
    waiver = {"stage": "bars", "reason": "halted", "approver": "ben", "expires": "2022-01-31"}
    _, events = house.command("waive", symbols=[B], **waiver)
    (decided,) = decisions(events)
    assert decided.decision == "blocked"
    assert named in decided.reason
    (alert,) = [alert for alert in alerts(events) if alert.labels["alertname"] == "PromotionBlocked"]
    caused = carry_out(house, alert.next_command)
    if alert.next_command.startswith("asof retry"):
        house.tick(1)
        caused = house.note(house.hydrated(A, batch=1), house.rated(A, batch=1))
    assert decisions(caused)[-1].decision == "granted"
