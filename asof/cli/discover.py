"""discover: a universe from the scanner as a candidates file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asof.cli.output import AsJson, Exit, emit

if TYPE_CHECKING:
    from shared.events import CommandResult


def register(app: typer.Typer) -> None:
    app.command()(discover)


def discover(
    preset: Annotated[
        str | None, typer.Option(help="crypto-spot, crypto-perpetuals, us-liquid or philippines, to start from")
    ] = None,
    market: Annotated[str | None, typer.Option(help="the scanner's market: crypto, america, philippines …")] = None,
    exchange: Annotated[str | None, typer.Option(help="only this exchange; all of it also goes to the catalog")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="stock, spot, swap …")] = None,
    min_volume: Annotated[float | None, typer.Option(help="at least this volume")] = None,
    min_price: Annotated[float | None, typer.Option(help="at least this price")] = None,
    top: Annotated[int | None, typer.Option(help="so many, the largest volume first")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="copy the file to here")] = None,
    as_json: AsJson = False,
) -> None:
    """Find symbols with the scanner and write them, with its values, as candidates for `asof run`."""
    from asof.cli.ask import published, refuse_unless_done
    from asof.settings import house_settings
    from shared.paths import ensure_safe_path

    target = ensure_safe_path(output, [Path.cwd(), house_settings().home]) if output is not None else None
    arguments = {
        "preset": preset,
        "market": market,
        "exchange": exchange,
        "type": kind,
        "min_volume": min_volume,
        "min_price": min_price,
        "top": top,
    }
    result = published("discover", {name: value for name, value in arguments.items() if value is not None})
    file: Path | None = None
    if result.outcome == "done":
        file = house_settings().paths().resolve(str(result.references["path"]))
        if target is not None:
            file = Path(shutil.copyfile(file, target))
    shown = result.model_dump(mode="json") | {"file": str(file) if file else None}
    emit(shown, as_json=as_json, render=lambda console: console.print(_text(result, file), soft_wrap=True))
    refuse_unless_done(result, failed=Exit.UPSTREAM)


def _text(result: CommandResult, file: Path | None) -> str:
    said = f"{result.outcome}: {result.message}"
    return said if file is None else f"{said}\n{file}\nnext: asof run {file}"
