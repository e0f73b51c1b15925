"""What the demo made, for a person to look at."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from asof.demo.story import OBSERVED, RUN_DAY, Story
from asof.lakehouse import Lakehouse

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

_TOP = 5
_SPARK = "▁▂▃▄▅▆▇█"
_SPARK_DAYS = 40
# A stock whose price crossed a band of the exchange's tick table between the two observations.
_TICK_EXAMPLE = "PSE:JFC"


def story_as_dict(story: Story) -> dict[str, Any]:
    return {
        "home": str(story.home),
        "repeated": story.repeated,
        "blocked": story.blocked.as_dict() if story.blocked else None,
        "promoted": story.promoted.as_dict(),
        "top": top_ratings(Lakehouse(story.home)).reset_index().to_dict("records"),
        "ticks": tick_history(Lakehouse(story.home)),
    }


def draw_story(console: Console, story: Story) -> None:
    """What the promoted run made, and what to try next."""
    lake = Lakehouse(story.home)
    _draw_top(console, lake)
    _draw_ticks(console, lake)
    _draw_next(console, story)


def top_ratings(lake: Lakehouse) -> pd.DataFrame:
    """The highest `recommend_all` available at the day of the run: one row a symbol."""
    known: pd.DataFrame = lake.features.at(RUN_DAY)
    return known.sort_values(["recommend_all", "recommend_ma"], ascending=False).head(_TOP)


def tick_history(lake: Lakehouse, symbol: str = _TICK_EXAMPLE) -> dict[str, Any]:
    """One symbol's tick size as of each observation: what a backtest of that day may know."""
    return {
        f"{day:%Y-%m-%d}": (lake.catalog.get_instrument(symbol, as_of=day) or {}).get("tick_size")
        for day in (*OBSERVED, RUN_DAY)
    }


def sparkline(values: list[float]) -> str:
    """Numbers in [−1, 1] as one character each; a missing one is a blank."""
    return "".join(_spark(value) for value in values)


def _spark(value: float) -> str:
    if math.isnan(value):
        return " "
    return _SPARK[min(int((value + 1) / 2 * len(_SPARK)), len(_SPARK) - 1)]


def _draw_top(console: Console, lake: Lakehouse) -> None:
    top = top_ratings(lake)
    if top.empty:  # a rollback took the run out of the store again
        return
    symbols = [str(symbol) for symbol in top.index]
    matrix = lake.features.matrix(symbols=symbols, end=RUN_DAY)
    console.print()
    console.print(f"highest ratings on {RUN_DAY:%Y-%m-%d}, and their last {_SPARK_DAYS} sessions", style="bold")
    for symbol in symbols:
        ratings = matrix[(symbol, "recommend_all")].tail(_SPARK_DAYS).tolist()
        row = top.loc[symbol]
        text = f"  {symbol:12} {row['recommend_all']:+.2f}  rsi {row['rsi']:5.1f}  {sparkline(ratings)}"
        console.print(text, soft_wrap=True)


def _draw_ticks(console: Console, lake: Lakehouse) -> None:
    console.print()
    console.print(f"{_TICK_EXAMPLE}: tick size as of", style="bold")
    for day, tick in tick_history(lake).items():
        console.print(f"  {day}   {tick}")


def _draw_next(console: Console, story: Story) -> None:
    console.print()
    console.print("files", style="bold")
    for path in (
        "lakehouse/features_matrix.parquet",
        "lakehouse/symbols.parquet",
        "audit.jsonl",
        f"runs/{story.promoted.run_id}",
    ):
        console.print(f"  {story.home / path}", soft_wrap=True)
    console.print()
    console.print("try next", style="bold")
    here = "" if which("asof") else f"{Path(sys.executable).parent}/"
    console.print(f"  {here}asof show {story.promoted.run_id}", soft_wrap=True)
    console.print(f"  {here}asof history {_TICK_EXAMPLE}", soft_wrap=True)
    code = f"from asof import Lakehouse; print(Lakehouse({str(story.home)!r}).features.at('{RUN_DAY:%Y-%m-%d}'))"
    console.print(f'  {here}python -c "{code}"', soft_wrap=True)
