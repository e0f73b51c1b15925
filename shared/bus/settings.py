"""How the bus behaves; every figure can be set as `ASOF_BUS_<NAME>`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class BusSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ASOF_BUS_", env_ignore_empty=True, frozen=True)

    port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(None, description="serves /live, /ready and /metrics")
    host: str = Field("127.0.0.1", description="the address that `port` is opened on")
    event_cap: Count = Field(2 << 20, description="bytes of one entry; a larger one is dead-lettered unparsed")
    block_s: Positive = Field(1.0, description="how long one read waits in the server for new entries")
    min_idle_s: Positive = Field(5.0, description="a pending entry without a heartbeat for so long is taken over")
    reclaim_every_s: Positive = Field(1.0, description="how often abandoned entries are looked for")
    max_deliveries: Count = Field(6, description="an entry at which its handler failed so often is dead-lettered")
    max_unfinished: Count = Field(12, description="so many deliveries that ended with their process: dead-lettered too")
    retry_first_s: Positive = Field(0.25, description="wait before the second delivery; it triples each time")
    retry_most_s: Positive = Field(30.0, description="the longest wait between two deliveries")
    handler_timeout_s: Positive = Field(900.0, description="a handler call that takes longer has failed")
    read_ahead_s: Positive = Field(0.02, description="how much work a reader of single events takes in advance")
    grace_s: Positive = Field(30.0, description="how long a stop waits for what is in flight")
    upkeep_s: Positive = Field(10.0, description="how often streams are trimmed, archived and measured")
    keep_s: Positive = Field(900.0, description="what every group is done with stays so long, for those who follow")
    archive_keep_s: Positive = Field(604_800.0, description="what is archived on disk stays so long in its stream")
    trim_roughly: bool = Field(True, description="trim whole nodes of a stream only, which costs nothing")
    reap_after_s: Positive = Field(
        3600.0, description="a consumer that was silent so long and holds nothing is removed"
    )
    traces: bool = Field(False, description="write a span for every handler call below <state>/traces")
    seen_kept: Count = Field(100_000, description="ids remembered per group and stream to drop repeated events")

    @property
    def heartbeat_s(self) -> float:
        """Four beats to a takeover: three may be late."""
        return self.min_idle_s / 4
