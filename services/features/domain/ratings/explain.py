"""`explain`: the 26 votes of one bar, each with the numbers that it compared, so that a person can follow a rating."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from services.features.domain.ratings import layout
from services.features.domain.ratings.bars import bars_of_frame
from services.features.domain.ratings.labels import Label, label
from services.features.domain.ratings.panel import panel_ratings, panel_trace
from services.features.domain.ratings.rules import MA_VOTES, VOTES, Ichimoku, Rules, rules_named
from services.features.domain.ratings.votes import PRICE_TIE, SCALE_TIE
from shared.errors import NotFoundError

_AVERAGES: Final = tuple(vote for vote in MA_VOTES if vote != "ichimoku")
_TREND: Final = "close ema50"
_STOCHASTIC: Final = ("{0}_k 20", "{0}_d 20", "{0}_k 80", "{0}_d 80", "{0}_k {0}_d")

# What each vote compares: left and right, a number, an input, or an input that many bars before.
_COMPARED: Final = {
    **{vote: (f"close {vote}",) for vote in _AVERAGES},
    "rsi": ("rsi 30", "rsi 70", "rsi rsi[1]"),
    "stoch": tuple(pair.format("stoch") for pair in _STOCHASTIC),
    "cci": ("cci -100", "cci 100", "cci cci[1]"),
    "adx": ("adx 20", "adx adx[1]", "plus_di minus_di"),
    "ao": ("ao 0", "ao[1] 0", "ao ao[1]", "ao[2] ao[1]"),
    "mom": ("mom mom[1]",),
    "macd": ("macd signal",),
    "stoch_rsi": (_TREND, *(pair.format("stoch_rsi") for pair in _STOCHASTIC)),
    "williams_r": ("williams_r -80", "williams_r -20", "williams_r williams_r[1]"),
    "bull_bear": (_TREND, "bear 0", "bear bear[1]", "bull 0", "bull bull[1]"),
    "uo": ("uo 70", "uo 30"),
}
_ICHIMOKU: Final = {
    Ichimoku.NEVER: (),
    Ichimoku.CLOUD: ("lead1_26 lead2_26", "base lead1_26", "conversion base", "close conversion"),
    Ichimoku.BASE_LINE: ("close base",),
}
_RULE: Final = {
    **{vote: f"buy: close > {vote}; sell: close < {vote}" for vote in _AVERAGES},
    "rsi": "buy: rsi < 30 and rising; sell: rsi > 70 and falling",
    "stoch": "buy: K < 20, D < 20, K > D; sell: K > 80, D > 80, K < D",
    "cci": "buy: cci < -100 and rising; sell: cci > 100 and falling",
    "adx": "only with adx > 20 and rising: buy: +DI > -DI; sell: +DI < -DI",
    "ao": "buy: ao rises above 0, or dips and turns up above it; sell: the mirror",
    "mom": "buy: mom rising; sell: mom falling",
    "macd": "buy: macd > signal; sell: macd < signal",
    "stoch_rsi": "buy: close < ema50, K < 20, D < 20, K > D; sell: close > ema50, K > 80, D > 80, K < D",
    "williams_r": "buy: %R < -80 and rising; sell: %R > -20 and falling",
    "bull_bear": "buy: close > ema50, bear < 0 and rising; sell: close < ema50, bull > 0 and falling",
    "uo": "buy: uo > 70; sell: uo < 30",
}
_ICHIMOKU_RULE: Final = {
    Ichimoku.NEVER: "always neutral: its published conditions contradict each other",
    Ichimoku.CLOUD: "buy: lead1[26] > lead2[26], base > lead1[26], conversion > base, close > conversion; sell: mirror",
    Ichimoku.BASE_LINE: "buy: close > base; sell: close < base",
}
_OF_PRICES: Final = frozenset(
    (*_AVERAGES, "close", "conversion", "base", "lead1_26", "lead2_26", "ao", "mom", "macd", "signal", "bull", "bear")
)
_WORDS: Final = {-1: "below", 0: "equal to", 1: "above", None: "not comparable with"}


@dataclass(frozen=True, slots=True)
class Input:
    """One number that a vote looks at; None where NA."""

    name: str
    value: float | None
    before: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two numbers: `order` is 1 (left is above), −1 (below), 0 (equal under the tie rule), None (one is missing)."""

    left: str
    left_value: float | None
    order: int | None
    right: str
    right_value: float | None

    def __str__(self) -> str:
        right = self.right if _is_number(self.right) else f"{self.right} {_text(self.right_value)}"
        return f"{self.left} {_text(self.left_value)} is {_WORDS[self.order]} {right}"


@dataclass(frozen=True, slots=True)
class VoteExplained:
    """A vote: 1 buy, 0 neutral, −1 sell, None not counted; its rule in words, its inputs, what was compared."""

    name: str
    group: str  # "ma" or "other"
    vote: int | None
    rule: str
    inputs: tuple[Input, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A bar's ratings and the 26 votes behind them, in the order of `rules.VOTES`."""

    at: pd.Timestamp
    bars: int  # how many bars there are up to this one
    rules: Rules
    close: float
    recommend_ma: float | None
    recommend_other: float | None
    recommend_all: float | None
    label: Label | None
    votes: tuple[VoteExplained, ...]


def explain(bars: pd.DataFrame, at: pd.Timestamp | None = None, rules: str = "screener") -> Explanation:
    """The votes of the last bar whose index is not after `at`, or of the last of all.

    `bars` as `TechnicalRatings` takes them, from the beginning of the history. The caller leaves out what was not
    known yet. `ContractError` for bars that are no series, `NotFoundError` where there is no bar so early.
    """
    chosen = rules_named(rules)
    given = bars_of_frame(bars)
    rows = np.flatnonzero(~given.missing[:, 0])
    if at is not None:
        rows = rows[bars.index[rows] <= at]
    if not rows.size:
        raise NotFoundError(
            f"there is no bar at {at}" if at is not None else "there is no bar",
            cause=f"the first is of {bars.index[0]}" if len(bars) else "the series is empty",
            fix="ask for a later instant",
        )
    last = int(rows[-1])
    trace = panel_trace(given, chosen)[:, :, 0]
    ratings = panel_ratings(given, chosen, 1)
    values: dict[str, float | None] = {}
    for back in range(min(3, rows.size)):
        row = int(rows[-1 - back])
        names = ("close", *layout.INPUTS)
        numbers = (float(given.close[row, 0]), *trace[row, len(VOTES) :].tolist())
        values.update({_named(name, back): _known(x) for name, x in zip(names, numbers, strict=True)})
    ma, other, both = (_known(float(x[last, 0])) for x in ratings[:3])
    return Explanation(
        at=bars.index[last],
        bars=int(rows.size),
        rules=chosen,
        close=float(given.close[last, 0]),
        recommend_ma=ma,
        recommend_other=other,
        recommend_all=both,
        label=None if both is None else label(both),
        votes=tuple(_explained(vote, trace[last, place], values, chosen) for place, vote in enumerate(VOTES)),
    )


def _explained(vote: str, cast: float, values: dict[str, float | None], rules: Rules) -> VoteExplained:
    pairs = _ICHIMOKU[rules.ichimoku] if vote == "ichimoku" else _COMPARED[vote]
    comparisons = tuple(_compared(pair, values) for pair in pairs)
    names = dict.fromkeys(name.partition("[")[0] for pair in pairs for name in pair.split() if not _is_number(name))
    return VoteExplained(
        name=vote,
        group="ma" if vote in MA_VOTES else "other",
        vote=None if math.isnan(cast) else int(cast),
        rule=_ICHIMOKU_RULE[rules.ichimoku] if vote == "ichimoku" else _RULE[vote],
        inputs=tuple(Input(name, values.get(name), values.get(f"{name}[1]")) for name in names),
        comparisons=comparisons,
    )


def _compared(pair: str, values: dict[str, float | None]) -> Comparison:
    left, right = pair.split()
    a = values.get(left)
    b = float(right) if _is_number(right) else values.get(right)
    if a is None or b is None:
        return Comparison(left, a, None, right, b)
    close = values["close"]
    assert close is not None, "a bar has a close"
    tie = PRICE_TIE * abs(close) if left.partition("[")[0] in _OF_PRICES else SCALE_TIE
    return Comparison(left, a, 1 if a - b > tie else -1 if a - b < -tie else 0, right, b)


def _named(name: str, back: int) -> str:
    return f"{name}[{back}]" if back else name


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _known(x: float) -> float | None:
    return None if math.isnan(x) else x


def _text(x: float | None) -> str:
    return "n/a" if x is None else f"{x:.6g}"
