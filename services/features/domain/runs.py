"""A run as the features service opened it: what its batches are rated by, the same for every replica and delivery."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.features.domain.current import current_values, stated_tick
from services.features.domain.ratings.rules import rules_named
from services.features.domain.sessions import interval_length
from shared.candidates import Candidates
from shared.events import Rules, RunCandidates

SCREENER: Final = "screener"
"""The rules by which a screener's own values are made; they enter no other rules' table."""


class CurrentRow(BaseModel):
    """A screener's values of one symbol; null where it gave none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    observed_at: AwareDatetime
    values: dict[str, float | None]


class RunRecord(BaseModel):
    """`staged/run.json`. `content_sha256` is over what was asked: a run id with another one is refused.

    `pins` names the version of every symbol's stored bars, when the run reads what is stored (`bars: lakehouse`);
    `unreadable` says of other symbols why their bars could not be read when the run was opened. `continues` is the
    feature version whose rows the run's own go on from, the newest when it was opened; 0: from none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    run_id: str
    interval: str
    rules: Rules
    as_of: AwareDatetime
    rated: bool
    bars: Literal["hydrate", "lakehouse"]
    strict: bool
    strict_scope: bool
    symbols: tuple[str, ...]
    ticks: dict[str, float]
    current: dict[str, CurrentRow]
    warnings: dict[str, tuple[str, ...]]
    pins: dict[str, int]
    unreadable: dict[str, str] = {}
    continues: int = 0
    content_sha256: str


def event_rules(name: str) -> Rules:
    """The rules as events and feature versions carry them.

    Raises ContractError for rules that do not exist.
    """
    rules = rules_named(name)
    return Rules(name=rules.id, version=rules.version)


def record_run(
    asked: RunCandidates,
    candidates: Candidates,
    *,
    run_id: str,
    event_time: datetime,
    pins: Mapping[str, int],
    unreadable: Mapping[str, str],
    continues: int = 0,
) -> RunRecord:
    """Raises ContractError for unknown rules, and for an interval of which nobody knows how long it is."""
    interval_length(asked.interval)
    found = current_values(candidates.items, observed_at=event_time)
    ticks = {item.symbol: tick for item in candidates.items if (tick := stated_tick(item)) is not None}
    return RunRecord(
        run_id=run_id,
        interval=asked.interval,
        rules=event_rules(asked.rules),
        as_of=asked.as_of or event_time,
        rated="ratings" in asked.stages,
        bars=asked.bars,
        strict=asked.strict,
        strict_scope=asked.strict_scope,
        symbols=candidates.symbols,
        ticks=dict(sorted(ticks.items())),
        current={
            symbol: CurrentRow(
                observed_at=one.observed_at,
                values={name: None if value != value else value for name, value in one.values.items()},  # noqa: PLR0124
            )
            for symbol, one in sorted(found.current.items())
        },
        warnings={symbol: (text,) for symbol, text in sorted(found.refused.items())},
        pins=dict(sorted(pins.items())),
        unreadable=dict(sorted(unreadable.items())),
        continues=continues,
        content_sha256=content_sha256(asked),
    )


def content_sha256(asked: RunCandidates) -> str:
    """Over all that shapes the run; who asked does not."""
    return hashlib.sha256(asked.model_dump_json(exclude={"requested_by", "run_id"}).encode()).hexdigest()
