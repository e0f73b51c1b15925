"""`TechnicalRatings`: the ratings of one symbol's bars, in and out as DataFrames."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from services.features.domain.ratings.bars import bars_of_frame
from services.features.domain.ratings.rules import VOTES, rules_named


@cache
def _columns() -> pd.Index:
    # Making an index of five names takes longer than two hundred bars do.
    from services.features.domain.ratings.panel import PanelRatings

    return pd.Index(PanelRatings._fields)


class TechnicalRatings:
    """Technical ratings of one symbol.

    `bars`: open, high, low, close, volume, with a UTC DatetimeIndex, ascending and unique. Every result has its
    index. A bar with a NaN open, high, low or close is no bar: its row is NaN and is not counted. `rules` is
    `screener`, `pine_v3` or `institutional`. Errors are `ContractError`.
    """

    @staticmethod
    def compute(bars: pd.DataFrame, rules: str = "screener") -> pd.DataFrame:
        """recommend_ma, recommend_other, recommend_all in [−1, 1]; rsi, adx in [0, 100]; NaN where NA."""
        from services.features.domain.ratings.panel import panel_ratings

        ratings = np.stack(panel_ratings(bars_of_frame(bars), rules_named(rules)))[:, :, 0]
        return pd.DataFrame(ratings.T, index=bars.index, columns=_columns(), copy=False)  # a frame lies so itself

    @staticmethod
    def votes(bars: pd.DataFrame, rules: str = "screener") -> pd.DataFrame:
        """The 26 votes −1, 0 or +1 as floats, NaN where NA, in the order of `rules.VOTES`."""
        from services.features.domain.ratings.panel import panel_trace

        votes = panel_trace(bars_of_frame(bars), rules_named(rules))[:, : len(VOTES), 0]
        return pd.DataFrame(np.ascontiguousarray(votes), index=bars.index, columns=list(VOTES))

    @classmethod
    def calculate_recommend_ma_series(cls, bars: pd.DataFrame, rules: str = "screener") -> pd.Series[float]:
        """The mean of the moving averages' votes."""
        return cls.compute(bars, rules)["recommend_ma"]

    @classmethod
    def calculate_recommend_other_series(cls, bars: pd.DataFrame, rules: str = "screener") -> pd.Series[float]:
        """The mean of the oscillators' votes."""
        return cls.compute(bars, rules)["recommend_other"]

    @classmethod
    def calculate_recommend_all_series(cls, bars: pd.DataFrame, rules: str = "screener") -> pd.Series[float]:
        """MA and Other in one, as the rules say; where one of them is missing, the other."""
        return cls.compute(bars, rules)["recommend_all"]
