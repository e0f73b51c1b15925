"""The errors of asof. An error's class says what to do next; its text is for a person.

PipelineError
├── TransientError        try again: the event is redelivered
│   └── CommitConflict    somebody else committed first: reload, recompute, retry
└── TerminalError         trying again cannot help: the event goes to dead-letters
    ├── ContractError     input that breaks a contract (a payload, a file, a setting)
    │   └── UnsafePathError   a path outside the allowed roots
    ├── NotFoundError     what was asked for does not exist
    ├── UpstreamRefused   an upstream gave a final no (unknown symbol, region, ban)
    └── IntegrityError    stored bytes are not the bytes that were written
        ├── StaleEpochError   a writer whose lease was taken over tried to commit
        └── DamagedState      a service cannot read its own state: it ends, and the event stays pending
"""

from __future__ import annotations

from typing import ClassVar


class PipelineError(Exception):
    """Something a person has to read: what, which symbol, the exact cause, retryable or not, the next command.

    `code` is the stable short name that coverage artifacts, alerts and waivers carry.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, what: str, *, symbol: str | None = None, cause: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.symbol = symbol
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.symbol}: {self.what}" if self.symbol else self.what
        if self.cause:
            text += f" ({self.cause})"
        text += "; retrying may help" if self.retryable else "; retrying cannot help"
        return f"{text}. Next: {self.fix}" if self.fix else text


class TransientError(PipelineError):
    code = "transient"
    retryable = True


class CommitConflict(TransientError):
    code = "commit_conflict"


class TerminalError(PipelineError):
    code = "terminal"


class ContractError(TerminalError):
    code = "contract"


class UnsafePathError(ContractError):
    code = "unsafe_path"


class NotFoundError(TerminalError):
    code = "not_found"


class UpstreamRefused(TerminalError):
    code = "upstream_refused"


class IntegrityError(TerminalError):
    code = "integrity"


class StaleEpochError(IntegrityError):
    code = "stale_epoch"


class DamagedState(IntegrityError):
    code = "damaged_state"

    @classmethod
    def of(cls, fault: IntegrityError) -> DamagedState:
        return cls(fault.what, symbol=fault.symbol, cause=fault.cause, fix=fault.fix)
