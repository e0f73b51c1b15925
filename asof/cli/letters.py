"""dead-letters: what could not be applied; look at it, put it back, or drop it with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from asof.cli.output import AsJson, emit, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from asof.session import Session
    from shared.bus.letterbox import Letter

Answer = TypeVar("Answer")
Ids = Annotated[list[str], typer.Argument(help="as `asof dead-letters` lists them")]

letters = typer.Typer(
    help="List what could not be applied; show one, put it back, or drop it with a reason.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(letters, name="dead-letters")


@letters.callback()
def listed(
    context: typer.Context,
    handled: Annotated[bool, typer.Option("--all", help="those that were replayed or dropped too")] = False,
    as_json: AsJson = False,
) -> None:
    """List what could not be applied, newest first."""
    if context.invoked_subcommand is not None:
        return
    from shared.bus import letterbox

    found = _at_work(lambda session: letterbox.letters(session.redis_url, unhandled=not handled))
    emit([_row(letter) for letter in found], as_json=as_json, render=lambda console: _draw(console, found))


@letters.command()
def show(
    letter_id: Annotated[str, typer.Argument(help="as `asof dead-letters` lists them")], as_json: AsJson = False
) -> None:
    """Show one letter: the error, who gave up on it and when, and the entry as it came."""
    from shared.bus import letterbox

    found = _at_work(lambda session: letterbox.letter(session.redis_url, letter_id))
    shown = _row(found) | {"entry": _entry(found)}
    emit(shown, as_json=as_json, render=lambda console: _draw_one(console, shown))


@letters.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="as `asof dead-letters` lists them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every letter that nobody has handled")] = False,
    as_json: AsJson = False,
) -> None:
    """Put entries back into their streams, after their cause is gone. What was applied before is not applied again."""
    from shared.bus import letterbox
    from shared.errors import ContractError
    from shared.streams import SERVICES

    if bool(ids) == everything:
        raise ContractError("say which letters to put back", fix="asof dead-letters replay ID…, or --all")

    async def put_back(session: Session) -> letterbox.Replayed:
        by = session.requested_by
        if everything:
            return await letterbox.replay_all(session.redis_url, by=by)
        return letterbox.Replayed(await letterbox.replay(session.redis_url, ids or [], by=by), [])

    done = _at_work(put_back, SERVICES)
    shown = {"replayed": [_row(letter) for letter in done.put_back], "left": [_row(letter) for letter in done.left]}
    emit(shown, as_json=as_json, render=lambda console: _draw_replayed(console, done))


@letters.command()
def drop(
    ids: Ids,
    reason: Annotated[str, typer.Option(help="why nothing has to be done about it")],
    as_json: AsJson = False,
) -> None:
    """Say for good that nothing will be done about these letters, and why."""
    from shared.bus import letterbox

    found = _at_work(lambda session: letterbox.drop(session.redis_url, ids, by=session.requested_by, reason=reason))
    emit(
        {"dropped": [_row(letter) for letter in found]},
        as_json=as_json,
        render=lambda console: console.print(f"{len(found)} dropped"),
    )


def _at_work(talk: Callable[[Session], Awaitable[Answer]], services: tuple[str, ...] = ()) -> Answer:
    from asof.runner import house_at_work
    from asof.settings import house_settings

    async def at_work() -> Answer:
        async with house_at_work(house_settings(), services) as session:
            return await talk(session)

    return asyncio.run(at_work())


def _row(letter: Letter) -> dict[str, Any]:
    content = letter.content
    return {
        "id": letter.id,
        "stream": content.origin if content else None,
        "entry_id": content.entry_id if content else None,
        "service": content.group if content else None,
        "run_id": content.run_id if content else None,
        "deliveries": content.deliveries if content else None,
        "error": content.error.model_dump(mode="json") if content else {"message": letter.unreadable},
        "handled": asdict(letter.handled) if letter.handled else None,
    }


def _entry(letter: Letter) -> dict[str, str]:
    """The fields as they came; bytes that are no text stand as escapes."""
    from shared.bus.dead_letters import raw_fields

    fields = raw_fields(letter.content) if letter.content else {}
    return {
        name.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
        for name, value in fields.items()
    }


def _draw(console: Console, found: list[Letter]) -> None:
    if not found:
        console.print("no dead letters")
        return
    rows = [_row(letter) for letter in found]
    columns = ("id", "stream", "service", "run_id", "handled")
    for row in rows:
        row["handled"] = (row["handled"] or {}).get("how")
    print_table(console, columns, [[row[name] or "" for name in columns] for row in rows])
    console.print()
    console.print("next: asof dead-letters show ID", style="cyan")


def _draw_one(console: Console, shown: dict[str, Any]) -> None:
    for name in ("id", "stream", "entry_id", "service", "run_id", "deliveries"):
        console.print(f"{name:11} {shown[name] if shown[name] is not None else ''}", soft_wrap=True)
    console.print(f"{'error':11} {shown['error']['message']}", style="red", soft_wrap=True)
    if shown["handled"]:
        handled = shown["handled"]
        console.print(
            f"{'handled':11} {handled['how']} by {handled['by']} at {handled['at']}  {handled['reason'] or ''}"
        )
    for name, value in shown["entry"].items():
        console.print(f"\n{name}", style="bold")
        console.print(value[:4000], soft_wrap=True)


def _draw_replayed(console: Console, done: Any) -> None:
    console.print(f"{len(done.put_back)} put back")
    for letter in done.left:
        console.print(f"left: {letter.cannot_be_replayed}", style="yellow", soft_wrap=True)
    if done.put_back:
        console.print("next: asof dead-letters, to see whether they came back", style="cyan")
