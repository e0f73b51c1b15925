"""How fast each venue may be asked, and what an answer says about going on like this.

The figures keep below what a venue publishes (docs of each API; the scanner publishes nothing, so it starts at what is
known to be safe): in any window, rate · window + burst stays under the allowance, with room for jitter on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.fetcher.domain.faults import Banned, EmptyAnswer, RateLimited, ServerFault, TimedOut, Unreachable
from shared.errors import PipelineError

Verdict = Literal["fine", "push-back", "trouble"]


@dataclass(frozen=True, slots=True)
class VenuePace:
    """`rate`: weight a second; `burst`: weight that may be spent at once; `at_once`: requests in flight.

    `window`: the weight a venue allows in the window whose use it reports; None when it reports none.
    """

    rate: float
    burst: float
    at_once: int
    window: int | None = None


PACES: dict[str, VenuePace] = {
    "scanner": VenuePace(rate=1, burst=4, at_once=2),
    "scanner-ws": VenuePace(rate=5, burst=5, at_once=5),
    "binance": VenuePace(rate=92, burst=300, at_once=16, window=6000),  # 6,000 a minute
    "binance-usdm": VenuePace(rate=36.8, burst=120, at_once=16, window=2400),  # 2,400 a minute
    "okx": VenuePace(rate=9.2, burst=1.5, at_once=8),  # 20 in 2 s
    "bybit": VenuePace(rate=110, burst=40, at_once=16),  # 600 in 5 s
}


def verdict_of(fault: PipelineError | None) -> Verdict:
    """Push-back is the venue saying "slower"; trouble is the venue not being well; a plain refusal is an answer."""
    if isinstance(fault, RateLimited | Banned | EmptyAnswer):
        return "push-back"
    if isinstance(fault, Unreachable | TimedOut | ServerFault):
        return "trouble"
    return "fine"


def unnamed_wait_s(fault: PipelineError | None) -> float:
    """The first pause when the venue does not say how long: an empty body has been seen to last half a minute."""
    return 5.0 if isinstance(fault, EmptyAnswer) else 0.5
