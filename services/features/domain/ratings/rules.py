"""Rating rules as data: what differs between the three published rule sets, and nothing else.

The 26 votes themselves, next to the table that defines them, stand in `votes.py`. Everything here is
a plain value: no branch of the kernel names a rule set.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from shared.errors import ContractError

MA_VOTES: Final = (
    *(f"{kind}{length}" for length in (10, 20, 30, 50, 100, 200) for kind in ("sma", "ema")),
    "hull9",
    "vwma20",
    "ichimoku",
)
OSCILLATOR_VOTES: Final = (
    "rsi",
    "stoch",
    "cci",
    "adx",
    "ao",
    "mom",
    "macd",
    "stoch_rsi",
    "williams_r",
    "bull_bear",
    "uo",
)
VOTES: Final = MA_VOTES + OSCILLATOR_VOTES


class Ichimoku(IntEnum):
    """What the Ichimoku vote asks."""

    NEVER = 0  # the scanner's own conditions contradict each other: always 0 once defined
    CLOUD = 1  # lead1[26] > lead2[26], base > lead1[26], conversion > base, close > conversion
    BASE_LINE = 2  # close against the base line (Kijun)


class Rules(BaseModel):
    """One named set of rating rules. `id` and `version` go wherever a rating goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    version: str
    source: str
    stochastic_length: int
    ichimoku: Ichimoku
    cci_of_close: bool  # else of hlc3
    every_input_must_exist: bool  # else one input alone decides whether a vote is NA
    first_directional_move_is_zero: bool  # else NA, so that Wilder's seed starts a bar later
    weights: tuple[float, float] | None  # of MA and Other in All; None is the plain mean

    def __str__(self) -> str:
        return f"{self.id}@{self.version}"


class Switches(NamedTuple):
    """A rule set in the form that compiled code takes: numbers only."""

    stochastic_length: int
    ichimoku: int
    cci_of_close: bool
    one_input: bool
    moves_from: float  # the bar (0-based) that carries the first directional movement
    weight_ma: float
    weight_other: float


SCREENER: Final = Rules(
    id="screener",
    version="2025-09",
    source="the scanner's published script, 2025-09",
    stochastic_length=8,
    ichimoku=Ichimoku.NEVER,
    cci_of_close=False,
    every_input_must_exist=True,
    first_directional_move_is_zero=True,
    weights=None,
)
PINE_V3: Final = Rules(
    id="pine_v3",
    version="2024-11",
    source="the Pine library TradingView/TechnicalRating v3, 2024-11",
    stochastic_length=14,
    ichimoku=Ichimoku.CLOUD,
    cci_of_close=True,
    every_input_must_exist=False,
    first_directional_move_is_zero=False,
    weights=None,
)
INSTITUTIONAL: Final = SCREENER.model_copy(
    update={
        "id": "institutional",
        "version": "1",
        "source": "as screener, with the base line in Ichimoku and All = 0.574 MA + 0.3914 Other",
        "ichimoku": Ichimoku.BASE_LINE,
        "weights": (0.574, 0.3914),
    }
)
RULE_SETS: Final = {rules.id: rules for rules in (SCREENER, PINE_V3, INSTITUTIONAL)}


def rules_named(name: str) -> Rules:
    """The rule set of that id; `ContractError` lists the known ones."""
    if name not in RULE_SETS:
        raise ContractError(
            f"unknown rating rules {name!r}", cause=f"known rules: {', '.join(RULE_SETS)}", fix="name one of those"
        )
    return RULE_SETS[name]


def switches(rules: Rules) -> Switches:
    """The numbers that the kernel needs of `rules`."""
    weight_ma, weight_other = rules.weights or (0.5, 0.5)
    return Switches(
        stochastic_length=rules.stochastic_length,
        ichimoku=int(rules.ichimoku),
        cci_of_close=rules.cci_of_close,
        one_input=not rules.every_input_must_exist,
        moves_from=0.0 if rules.first_directional_move_is_zero else 1.0,
        weight_ma=weight_ma,
        weight_other=weight_other,
    )
