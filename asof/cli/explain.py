"""explain: the 26 votes behind one rating, so that a person can follow it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asof.cli.output import AsJson, emit

if TYPE_CHECKING:
    from rich.console import Console

    from services.features.adapters.explaining import StoredExplanation
    from services.features.domain.ratings.explain import Comparison, Input, VoteExplained

_BALLOTS = {1: ("+1 buy", "green"), 0: ("0", ""), -1: ("-1 sell", "red"), None: ("n/a", "dim")}
_SIGNS = {1: ">", 0: "=", -1: "<", None: "?"}
_CLOSE = "close"  # stands in the heading
_GROUPS = {"ma": "Moving averages", "other": "Oscillators"}


def register(app: typer.Typer) -> None:
    app.command()(explain)


def explain(
    symbol: Annotated[str, typer.Argument(help="EXCHANGE:TICKER")],
    at: Annotated[
        str | None, typer.Option("--at", help="the instant: the newest bar known then; now when absent")
    ] = None,
    interval: Annotated[str, typer.Option()] = "1d",
    rules: Annotated[str, typer.Option(help="screener, pine_v3 or institutional")] = "screener",
    as_json: AsJson = False,
) -> None:
    """Show why a symbol was rated as it was: the 26 votes of a bar, what each compared, and the sums."""
    from asof.cli.lake import open_lake

    explained = open_lake().features.explain(symbol, at, interval=interval, rules=rules)
    emit(explained.as_dict, as_json=as_json, render=lambda console: _draw(console, explained))


def _draw(console: Console, explained: StoredExplanation) -> None:
    day = f"{explained.at:%Y-%m-%d}" if explained.interval.endswith(("d", "w")) else f"{explained.at:%Y-%m-%d %H:%M}"
    console.print(f"{explained.symbol}  {day}  {explained.label or 'not rated'}", style="bold")
    console.print(
        f"close {explained.close:g}, bar {explained.bars:,} of its history, known since "
        f"{explained.available_at:%Y-%m-%d %H:%M} UTC; bars version {explained.bars_version}; rules {explained.rules}",
        soft_wrap=True,
    )
    for warning in explained.warnings:
        console.print(warning, style="yellow", soft_wrap=True)
    for group, title in _GROUPS.items():
        _draw_group(console, title, [vote for vote in explained.votes if vote.group == group])
    _draw_sums(console, explained)
    _draw_promoted(console, explained)


def _draw_group(console: Console, title: str, votes: list[VoteExplained]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for name in (title, "vote"):
        table.add_column(name, no_wrap=True)
    for name in ("value (before)", "compared, and the rule"):
        table.add_column(name, overflow="fold")
    for vote in votes:
        word, style = _BALLOTS[vote.vote]
        inputs = "\n".join(_input(one) for one in vote.inputs if one.name != _CLOSE)
        why = Text(", ".join(map(_compared, vote.comparisons)))
        if len(vote.comparisons) != 1:  # what compares once is its own rule
            why.append(f"\n{vote.rule}".removeprefix("" if vote.comparisons else "\n"), style="dim")
        table.add_row(vote.name, Text(word, style=style), inputs, why)
    console.print()
    console.print(table)


def _draw_sums(console: Console, explained: StoredExplanation) -> None:
    """How the votes become the three ratings."""
    console.print()
    for name, group, mean in (("MA", "ma", explained.recommend_ma), ("Other", "other", explained.recommend_other)):
        cast = [vote.vote for vote in explained.votes if vote.group == group and vote.vote is not None]
        console.print(
            f"{name:5} = ({cast.count(1)} buy - {cast.count(-1)} sell) / {len(cast)} votes = {_number(mean)}",
            soft_wrap=True,
        )
    console.print(f"All   = {_formula(explained)} = {_number(explained.recommend_all)}", style="bold", soft_wrap=True)
    console.print(
        "above 0.5 is strong buy, above 0.1 buy, down to -0.1 neutral, and mirrored; a vote n/a is not counted;\n"
        "= is within 1e-9 of the close, for oscillators within 1e-7; ? is with a value that does not exist",
        style="dim",
        soft_wrap=True,
    )


def _formula(explained: StoredExplanation) -> str:
    if explained.recommend_ma is None or explained.recommend_other is None:
        return "the one that exists"
    weights = explained.rules.weights
    return "(MA + Other) / 2" if weights is None else f"{weights[0]} MA + {weights[1]} Other"


def _draw_promoted(console: Console, explained: StoredExplanation) -> None:
    promoted = explained.promoted
    if promoted is None:
        console.print("nothing of this bar is promoted", style="yellow")
    elif promoted.same:
        console.print(f"the same stands in features version {promoted.version}", style="green")
    else:
        three = ", ".join(map(_number, (promoted.recommend_ma, promoted.recommend_other, promoted.recommend_all)))
        console.print(
            f"features version {promoted.version} has {three}: its run rated other bars, or knew of other splits, than "
            f"are stored now; asof reproduce RUN tells which",
            style="yellow",
            soft_wrap=True,
        )


def _compared(one: Comparison) -> str:
    left, right = (
        f"{name} {value:.6g}" if name.endswith("[2]") and value is not None else name  # the one that no column shows
        for name, value in ((one.left, one.left_value), (one.right, one.right_value))
    )
    return f"{left} {_SIGNS[one.order]} {right}"


def _input(one: Input) -> str:
    before = "" if one.before is None else f" ({one.before:.6g})"
    return f"{one.name} {'n/a' if one.value is None else f'{one.value:.6g}'}{before}"


def _number(x: float | None) -> str:
    return "n/a" if x is None else f"{x:.4f}"
