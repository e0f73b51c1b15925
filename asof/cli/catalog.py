"""get, history, retire and rename: a symbol's versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asof.cli.output import AsJson, emit

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from services.catalog import MetadataCatalog
    from shared.errors import NotFoundError

Symbol = Annotated[str, typer.Argument(help="EXCHANGE:TICKER")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="the instant whose values to show; now when absent")]
KnownAt = Annotated[str | None, typer.Option("--known-at", help="as the catalog knew it at that instant")]


def register(app: typer.Typer) -> None:
    app.command()(get)
    app.command()(history)
    app.command()(retire)
    app.command()(rename)


def get(symbol: Symbol, as_of: AsOf = None, known_at: KnownAt = None, as_json: AsJson = False) -> None:
    """Show one symbol's metadata at an instant."""
    from asof.cli.lake import open_lake
    from shared.errors import NotFoundError

    catalog = open_lake().catalog
    record = catalog.get_instrument(symbol, as_of=as_of, known_at=known_at)
    if record is None:
        if catalog.history(symbol).empty:
            raise _unknown(catalog, symbol, "get")
        raise NotFoundError(
            f"the catalog holds no version {f'at {as_of}' if as_of else 'now'}",
            symbol=symbol,
            fix=f"asof history {symbol}",
        )
    emit(record, as_json=as_json, render=lambda console: _draw_record(console, record))


def history(symbol: Symbol, known_at: KnownAt = None, as_json: AsJson = False) -> None:
    """Show every version of one symbol, and what changed from each to the next."""
    from asof.cli.lake import open_lake

    catalog = open_lake().catalog
    versions = catalog.history(symbol, known_at=known_at)
    if versions.empty:
        raise _unknown(catalog, symbol, "history")
    records = versions.astype(object).where(versions.notna(), None).to_dict("records")
    emit(records, as_json=as_json, render=lambda console: _draw_history(console, versions))


def _unknown(catalog: MetadataCatalog, symbol: str, command: str) -> NotFoundError:
    from shared.errors import NotFoundError
    from shared.symbols import nearest

    meant = nearest(symbol, catalog.history()["symbol"].unique())
    fix = "asof run FILE, to observe it" if meant is None else f"asof {command} {meant}, if that was meant"
    return NotFoundError("the catalog holds no version of it", symbol=symbol, fix=fix)


def retire(
    symbols: Annotated[list[str], typer.Argument(help="EXCHANGE:TICKER, one or more")],
    as_json: AsJson = False,
) -> None:
    """Mark symbols as no longer traded: a new version with active false, every attribute kept."""
    from asof.cli.ask import ask

    ask("retire", {"symbols": symbols}, as_json=as_json)


def rename(
    old: Annotated[str, typer.Argument(help="EXCHANGE:TICKER, as it was called")],
    new: Annotated[str, typer.Argument(help="EXCHANGE:TICKER, as it is called now")],
    at: Annotated[str | None, typer.Option("--at", help="from when on; now when absent")] = None,
    as_json: AsJson = False,
) -> None:
    """A ticker changed: OLD is retired, and NEW begins with its attributes and says what it was called."""
    from asof.cli.ask import ask

    ask("rename", {"old": old, "new": new, **({} if at is None else {"at": at})}, as_json=as_json)


def _draw_record(console: Console, record: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in record.items():
        table.add_row(name, "" if value is None else str(value))
    console.print(table)


_BOOKKEEPING = ("symbol", "valid_from", "valid_until", "updated_at", "last_confirmed", "run_id", "source", "sources")


def _draw_history(console: Console, versions: pd.DataFrame) -> None:
    """A version a paragraph: from when to when it holds, when it became known, and what it changed."""
    from rich.padding import Padding

    before: dict[str, Any] | None = None
    for version in versions.astype(object).where(versions.notna(), None).to_dict("records"):
        fields = {str(name): value for name, value in version.items() if name not in _BOOKKEEPING}
        since, until, known = (_instant(version[name]) for name in ("valid_from", "valid_until", "updated_at"))
        console.print(f"{since} → {until or 'now'}  known {known}", style="bold", soft_wrap=True)
        console.print(Padding(_changes(before, fields), (0, 0, 0, 2)))
        before = fields


def _changes(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    if before is None:
        return "first seen: " + ", ".join(f"{name} {value}" for name, value in after.items() if value is not None)
    return ", ".join(
        f"{name} {before.get(name)} → {value}" for name, value in after.items() if before.get(name) != value
    )


def _instant(value: Any) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"
