"""features and adjust: ratings of the master feature store or of one run, and the splits that they know of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asof.cli.output import AsJson, emit

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

_SHOWN_ROWS = 20


def register(app: typer.Typer) -> None:
    app.command()(features)
    app.command()(adjust)


def features(
    symbols: Annotated[
        list[str] | None,
        typer.Option("--symbols", "-s", help="EXCHANGE:TICKER, with commas or repeated; all when absent"),
    ] = None,
    start: Annotated[str | None, typer.Option(help="the first date")] = None,
    end: Annotated[str | None, typer.Option(help="the last date")] = None,
    version: Annotated[int | None, typer.Option(help="a version of the store; the newest promoted when absent")] = None,
    run: Annotated[str | None, typer.Option(help="what this run computed, promoted or not")] = None,
    at: Annotated[str | None, typer.Option(help="one row a symbol: what was available at this instant")] = None,
    known_at: Annotated[str | None, typer.Option("--known-at", help="as promoted by that instant")] = None,
    interval: Annotated[str, typer.Option()] = "1d",
    rules: Annotated[str, typer.Option()] = "screener",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write a .parquet or .csv file instead of printing")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or save ratings: a matrix of dates by (symbol, feature), or one slice with --at."""
    from asof.cli.lake import open_lake

    _check_output(output)
    symbols = None if symbols is None else [symbol for listed in symbols for symbol in listed.split(",")]
    reader = open_lake().features
    if at is not None:
        frame = reader.at(at, symbols, known_at=known_at, interval=interval, rules=rules)
    else:
        frame = reader.matrix(
            symbols=symbols,
            start=start,
            end=end,
            version=version,
            run_id=run,
            known_at=known_at,
            interval=interval,
            rules=rules,
        )
    if output is not None:
        frame.to_csv(output) if output.suffix == ".csv" else frame.to_parquet(output)
        emit(
            {"path": str(output), "rows": len(frame)},
            as_json=as_json,
            render=lambda console: console.print(f"{len(frame):,} rows in {output}"),
        )
        return
    emit(_records(frame), as_json=as_json, render=lambda console: _draw(console, frame))


def adjust(
    symbol: Annotated[str, typer.Argument(help="EXCHANGE:TICKER")],
    day: Annotated[str, typer.Option("--date", help="the first trading date on the new scale")],
    reason: Annotated[str, typer.Option(help="what happened, for whoever reads the record")],
    factor: Annotated[
        float | None, typer.Option(help="new price over old: 16 for a reverse split of 16 into 1, 0.25 for 1 into 4")
    ] = None,
    known_at: Annotated[str | None, typer.Option("--known-at", help="since when it could be known")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="take the record of that date back")] = False,
    as_json: AsJson = False,
) -> None:
    """Record that a symbol was split: the only way in which one passes that moved as no market moves."""
    from asof.cli.ask import ask
    from shared.clock import format_instant, parse_instant

    known = format_instant(parse_instant(known_at, name="--known-at")) if known_at else None
    arguments = {"symbol": symbol, "date": day, "factor": factor, "known_at": known, "reason": reason}
    ask(
        "adjust", {**{name: value for name, value in arguments.items() if value}, "withdraw": withdraw}, as_json=as_json
    )


def _check_output(output: Path | None) -> None:
    from shared.errors import ContractError

    if output is not None and output.suffix not in (".parquet", ".csv"):
        raise ContractError(f"{output} would be neither Parquet nor CSV", fix="--output FILE.parquet or FILE.csv")


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    import pandas as pd

    flat = frame.copy()
    if isinstance(flat.columns, pd.MultiIndex):
        flat.columns = flat.columns.map("/".join)
    flat = flat.reset_index()
    return [
        {str(name): value for name, value in row.items()}
        for row in flat.astype(object).where(flat.notna(), None).to_dict("records")
    ]


def _draw(console: Console, frame: pd.DataFrame) -> None:
    import pandas as pd

    with pd.option_context("display.width", console.width, "display.max_rows", _SHOWN_ROWS, "display.max_columns", 12):
        console.print(str(frame.tail(_SHOWN_ROWS)))
    console.print(f"{frame.shape[0]:,} rows, {frame.shape[1]:,} columns; --output FILE saves all of them")
