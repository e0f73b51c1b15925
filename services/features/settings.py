"""The settings of the features service, read from `ASOF_FEATURES_…`; what it shares with the house, from `ASOF_…`."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """An empty variable is an absent one."""

    model_config = SettingsConfigDict(env_prefix="ASOF_FEATURES_", env_ignore_empty=True, frozen=True)

    home: Path = Field(
        Path("data"), validation_alias=AliasChoices("ASOF_HOME", "home"), description="the folder of the house"
    )
    default_exchange: str | None = Field(
        None,
        validation_alias=AliasChoices("ASOF_DEFAULT_EXCHANGE", "default_exchange"),
        pattern=r"^[A-Z0-9_]{1,24}$",
        description="of a bare ticker",
    )
    batch: int = Field(50, ge=1, le=500, description="symbols rated at once when a run reads stored bars")
