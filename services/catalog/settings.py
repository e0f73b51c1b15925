"""The settings of the catalog, read from `ASOF_CATALOG_…`; what it shares with the house comes from `ASOF_…`."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """An empty variable is an absent one."""

    model_config = SettingsConfigDict(env_prefix="ASOF_CATALOG_", env_ignore_empty=True, frozen=True)

    home: Path = Field(
        Path("data"), validation_alias=AliasChoices("ASOF_HOME", "home"), description="the folder of the house"
    )
    lease_s: float = Field(10.0, gt=0, le=600, description="seconds after which a silent writer's lease lapses")
    batch: int = Field(256, ge=1, le=10_000, description="observations that one commit takes at most")
