"""What commands print and how they end: text for people, one JSON document with --json, and the exit codes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from shared.errors import PipelineError

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document")]


class Exit(IntEnum):
    FINE = 0
    USAGE = 2
    BLOCKED = 3
    UPSTREAM = 4
    INTEGRITY = 5
    UNREACHABLE = 6


def emit(data: Any, *, as_json: bool, render: Callable[[Console], None]) -> None:
    """Print `data` as JSON, or let `render` draw it. A callable gives the data only when it is asked for."""
    if as_json:
        emit_json(data() if callable(data) else data)
    else:
        render(terminal())


def emit_json(data: Any) -> None:
    typer.echo(json.dumps(_finite(data), indent=2, default=_plain, allow_nan=False))


def terminal(*, quiet: bool = False) -> Console:
    from rich.console import Console

    # Symbols and errors are not markup: a bracket in one must print as it is.
    return Console(highlight=False, markup=False, emoji=False, quiet=quiet)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
    """Rows under their column names, each cell whole: what is too long for the terminal wraps and is never cut.

    `right` names the columns, separated by blanks, that stand at the right: numbers.
    """
    aligned = ["rjust" if name in right.split() else "ljust" for name in columns]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for number, cells in enumerate((columns, *rows)):
        line = "  ".join(getattr(cell, align)(width) for cell, align, width in zip(cells, aligned, widths, strict=True))
        console.print(line.rstrip(), style="bold" if number == 0 else None, soft_wrap=True)


def report_fault(fault: PipelineError, *, as_json: bool) -> int:
    """Print one of our errors to stderr (as JSON to stdout with --json) and return the exit code of its class."""
    code = exit_code(fault)
    if as_json:
        error = {
            "code": fault.code,
            "what": fault.what,
            "symbol": fault.symbol,
            "cause": fault.cause,
            "retryable": fault.retryable,
            "next": fault.fix,
        }
        report_error(error, code)
    else:
        complain(str(fault))
    return int(code)


def report_error(error: Mapping[str, Any], code: Exit) -> None:
    emit_json({"error": error, "exit_code": int(code)})


def complain(message: str, *, colour: str = "red") -> None:
    """One message to stderr."""
    typer.secho(f"asof: {message}", fg=colour, err=True)


def exit_code(fault: PipelineError) -> Exit:
    from shared.errors import ContractError, IntegrityError, NotFoundError, TransientError, UpstreamRefused

    if isinstance(fault, IntegrityError):
        return Exit.INTEGRITY
    if isinstance(fault, UpstreamRefused):
        return Exit.UPSTREAM
    if isinstance(fault, ContractError | NotFoundError):
        return Exit.USAGE
    return Exit.UNREACHABLE if isinstance(fault, TransientError) else Exit.USAGE


def _finite(value: Any) -> Any:
    """NaN and the infinities are null: JSON has no word for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """Timestamps, paths and numpy scalars as JSON knows them."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return _finite(value.item())
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)
