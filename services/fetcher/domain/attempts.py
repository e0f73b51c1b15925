"""How often, and how long apart: bounded attempts with exponential back-off and full jitter."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from shared.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Backoff:
    """Attempt n waits a random time in [0, base · 2^(n-1)] seconds, at most `cap_s`.

    A pause that an upstream named is the pace's to keep, for every replica; one longer than `patience_s` ends the
    attempts, because the run would only wait.
    """

    attempts: int = 3
    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 120.0

    def wait(self, attempt: int, random: Random) -> float:
        """Seconds before the attempt after `attempt`, counted from 1."""
        return random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))

    def may_retry(self, fault: PipelineError) -> bool:
        """Whether another attempt within this run may help."""
        named = getattr(fault, "retry_after", None)
        return fault.retryable and (named is None or named <= self.patience_s)
