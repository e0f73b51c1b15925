"""What can go wrong with an upstream, as errors of ours; the class says retry or stop.

UpstreamError                carries host, status and, where the upstream named it, how long to wait
├── UpstreamTrouble          transient: try the symbols that failed again
│   ├── RateLimited          429, or an error payload that says so
│   ├── Banned               418, Bybit's 403: the upstream named a time before which nothing may be sent
│   ├── Paused               our own limiter keeps the host closed for longer than we wait
│   ├── BudgetSpent          this run has used up its retries
│   ├── Unreachable          refused, reset, no route, connection closed half-way
│   ├── TimedOut             accepted but silent, or dripping past the deadline
│   ├── ServerFault          5xx
│   ├── EmptyAnswer          200 with nothing in it
│   └── Garbled              truncated or malformed bytes
└── UpstreamRefusal          terminal: the same question gets the same answer
    ├── UnknownSymbol        the upstream does not know it
    ├── NoBars               the series exists and is empty
    ├── BadRequest           the upstream says that we asked wrongly
    ├── RegionBlocked        451
    ├── Forbidden            403 and other closed doors
    ├── Untrusted            too large, wrong content type, redirect, control characters, too deep
    └── Unsupported          no connector serves this venue or interval
"""

from __future__ import annotations

from shared.errors import PipelineError, TransientError, UpstreamRefused
from shared.events import Failure


class UpstreamError(PipelineError):
    """`retry_after` is in seconds from now, when the upstream named a time."""

    def __init__(
        self,
        what: str,
        *,
        host: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        symbol: str | None = None,
        cause: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, symbol=symbol, cause=cause, fix=fix)
        self.host = host
        self.status = status
        self.retry_after = retry_after


class UpstreamTrouble(UpstreamError, TransientError):
    code = "upstream_trouble"


class RateLimited(UpstreamTrouble):
    code = "rate_limited"


class Banned(UpstreamTrouble):
    code = "banned"


class Paused(UpstreamTrouble):
    code = "host_paused"


class BudgetSpent(UpstreamTrouble):
    code = "retry_budget_spent"


class Unreachable(UpstreamTrouble):
    code = "unreachable"


class TimedOut(UpstreamTrouble):
    code = "timeout"


class ServerFault(UpstreamTrouble):
    code = "server_error"


class EmptyAnswer(UpstreamTrouble):
    code = "empty_answer"


class Garbled(UpstreamTrouble):
    code = "garbled_answer"


class UpstreamRefusal(UpstreamError, UpstreamRefused):
    code = "upstream_refused"


class UnknownSymbol(UpstreamRefusal):
    code = "unknown_symbol"


class NoBars(UpstreamRefusal):
    code = "no_bars"


class BadRequest(UpstreamRefusal):
    code = "bad_request"


class RegionBlocked(UpstreamRefusal):
    code = "region_blocked"


class Forbidden(UpstreamRefusal):
    code = "forbidden"


class Untrusted(UpstreamRefusal):
    code = "untrusted_answer"


class Unsupported(UpstreamRefusal):
    code = "unsupported"


_MESSAGE_LIMIT = 2000


def failure_of(fault: PipelineError, *, attempts: int, fix: str | None = None) -> Failure:
    """The fault as events carry it: exact words, host and status included, after `attempts` attempts."""
    words = f"{fault.what} ({fault.cause})" if fault.cause else fault.what
    return Failure(
        code=fault.code,
        message=words[:_MESSAGE_LIMIT],
        retryable=fault.retryable,
        host=getattr(fault, "host", None),
        status=getattr(fault, "status", None),
        attempts=attempts,
        fix=fix or fault.fix,
    )
