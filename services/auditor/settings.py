"""The settings of the auditor, read from `ASOF_AUDITOR_…`; what it shares with the house comes from `ASOF_…`."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.auditor.domain.manifest import DeadlinePolicy
from shared.errors import ContractError


class Settings(BaseSettings):
    """An empty variable is an absent one. Secrets are named by files and read once, at the start."""

    model_config = SettingsConfigDict(env_prefix="ASOF_AUDITOR_", env_ignore_empty=True, frozen=True)

    home: Path = Field(
        Path("data"), validation_alias=AliasChoices("ASOF_HOME", "home"), description="the folder of the house"
    )
    default_exchange: str | None = Field(
        None,
        validation_alias=AliasChoices("ASOF_DEFAULT_EXCHANGE", "default_exchange"),
        pattern=r"^[A-Z0-9_]{1,24}$",
        description="of a bare ticker",
    )
    tick_s: float = Field(0.5, gt=0, le=60, description="how often deadlines are looked at")
    attempts_grace_s: float = Field(1, ge=0, le=60, description="a complete run waits this long for its last attempts")
    deadline_base_s: float = Field(120, gt=0, le=86_400, description="silence of a run is a gap after this long …")
    deadline_per_symbol_s: float = Field(1, ge=0, le=3_600, description="… and this much more for each symbol …")
    deadline_longest_s: float = Field(21_600, gt=0, le=86_400, description="… but never after more than this")

    schedules_file: Path | None = Field(None, description="schedules.toml: runs and refreshes on cron text")
    schedule_s: float = Field(10, gt=0, le=60, description="how often schedules are looked at")

    approvals: int = Field(1, ge=1, le=2, description="different people who have to sign a waiver")
    approvers_file: Path | None = Field(None, description="approvers.toml: public keys; waivers then need signatures")
    ledger_key_file: Path | None = Field(None, description="a file with an ed25519 key that signs the ledger's entries")

    alert_stdout: bool = Field(False, description="alerts go to stdout")
    alert_file: Path | None = Field(None, description="alerts go to this file")
    webhook_url: HttpUrl | None = Field(None, description="alerts go there, signed as Standard Webhooks says")
    webhook_secret_file: Path | None = Field(None, description="a file with the webhook's secret, whsec_<base64>")
    apprise_file: Path | None = Field(None, description="a file with one apprise URL a line: mail, chat and the rest")
    stuck_s: float = Field(
        60, gt=0, description="a service that reads nothing for so long, while events wait, is stuck"
    )
    alert_repeat_s: float = Field(
        14_400, ge=60, description="an alert that lasts unacknowledged is sent again after this"
    )
    promotion_stale_s: float = Field(
        300, gt=0, description="a granted run that is not in the store after this is an alert"
    )

    def secret(self, name: str) -> str:
        """The content of the secret file that the setting `name` names. Raises ContractError when it cannot be read."""
        path = getattr(self, name)
        try:
            return str(path.read_text(encoding="utf-8")).strip()
        except (OSError, AttributeError) as fault:
            raise ContractError(
                f"ASOF_AUDITOR_{name.upper()} cannot be read", cause=str(fault), fix="check the path and its mode"
            ) from fault

    def deadlines(self) -> DeadlinePolicy:
        return DeadlinePolicy(
            base_s=self.deadline_base_s, per_symbol_s=self.deadline_per_symbol_s, longest_s=self.deadline_longest_s
        )
