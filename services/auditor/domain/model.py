"""The base of the auditor's own records: frozen, and unknown fields are refused when they are read back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
