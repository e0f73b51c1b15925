"""import: take over an existing house, each part by the service whose it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from asof.cli.output import AsJson, Exit, emit

if TYPE_CHECKING:
    from rich.console import Console

    from shared.events import CommandKind, CommandResult

# The catalog first, so that symbols are known before their bars, and bars before what was computed of them.
_PARTS: Final[tuple[tuple[CommandKind, tuple[str, ...]], ...]] = (
    ("import", ("symbols.parquet", "exchanges.parquet")),
    ("import-bars", ("bars.parquet", "bars/*.parquet", "bars/*/*.parquet")),
    ("import-features", ("features_matrix.parquet",)),
)
# A house of years of bars takes minutes.
_PATIENCE_S: Final = 3600.0
_COUNTS: Final = ("rows", "keys", "symbols", "versions", "retired", "repeated", "endless", "added", "unchanged")


def register(app: typer.Typer) -> None:
    app.command("import")(import_house)


def import_house(
    folder: Annotated[
        Path,
        typer.Argument(
            help="with symbols.parquet, exchanges.parquet, bars/ or features_matrix.parquet; below ASOF_HOME"
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="take over what is sound; without it nothing is written")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at an existing house, name what is refused and why, and with --apply take over the rest.

    The folder lies below ASOF_HOME. Imported ratings stand apart (`asof features --rules imported`): what is promoted
    passes the gate.
    """
    from asof.cli.ask import published_each
    from shared.errors import NotFoundError

    kinds = [kind for kind, patterns in _PARTS if any(next(folder.glob(one), None) for one in patterns)]
    if not kinds:
        raise NotFoundError(
            f"{folder} has nothing to take over",
            cause="there is none of " + ", ".join(pattern for _, patterns in _PARTS for pattern in patterns),
            fix="asof import DIR, the folder with them",
        )
    results = published_each(kinds, {"folder": str(folder.absolute()), "apply": apply}, timeout_s=_PATIENCE_S)
    emit(_together(results), as_json=as_json, render=lambda console: _draw(console, results))
    outcomes = {result.outcome for result in results}
    if "failed" in outcomes:
        raise typer.Exit(Exit.INTEGRITY)
    if "refused" in outcomes:
        raise typer.Exit(Exit.BLOCKED)


def _together(results: list[CommandResult]) -> dict[str, Any]:
    """One answer: the worst outcome, every message, every file."""
    worst = next(word for word in ("failed", "refused", "done") if word in {result.outcome for result in results})
    return {
        "outcome": worst,
        "message": "; ".join(result.message for result in results),
        "references": {"files": [file for result in results for file in _files(result)]},
        "parts": [result.model_dump(mode="json") for result in results],
    }


def _files(result: CommandResult) -> list[dict[str, Any]]:
    files: Any = result.references.get("files", ())
    return list(files)


def _draw(console: Console, results: list[CommandResult]) -> None:
    for result in results:
        console.print(f"{result.outcome}: {result.message}", soft_wrap=True)
    dry = False
    for file in (file for result in results for file in _files(result)):
        counts = "  ".join(f"{name} {file[name]:,}" for name in _COUNTS if name in file)
        console.print(f"\n{file['file']}  {counts}", style="bold", soft_wrap=True)
        if file["ignored_columns"]:
            console.print(f"  columns that nobody reads here: {', '.join(file['ignored_columns'])}", soft_wrap=True)
        for key, flaws in file["refused"].items():
            console.print(f"  refused {key}: {'; '.join(flaws)}", style="red", soft_wrap=True)
        dry |= not file.get("applied", file.get("catalog_version") is not None)
    if dry:
        console.print("\nnothing was written; next: the same command with --apply", style="cyan")
