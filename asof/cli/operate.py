"""up, upstream, doctor and config: running the house and looking after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asof.cli.output import AsJson, Exit, emit, emit_json, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from asof.checks import Check
    from asof.configuration import Setting


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(doctor)
    app.command()(config)
    app.command()(upstream)


def up(
    services: Annotated[
        list[str] | None, typer.Argument(help="fetcher, catalog, features, auditor; all when absent")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="log one JSON object a line, as ASOF_LOG=json does")] = False,
) -> None:
    """Run the services until Ctrl-C, all in one process or only those named; Redis is started when none is set."""
    from asof.runner import run_until_stopped
    from asof.settings import house_settings

    settings = house_settings()
    run_until_stopped(settings.model_copy(update={"log": "json"}) if as_json else settings, services or [])


def upstream(
    now: Annotated[str | None, typer.Option(help="the server's clock, ISO 8601; nothing later is served")] = None,
    source: Annotated[Path | None, typer.Option(help="a folder of recorded payloads; the PSE data when absent")] = None,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8090,
    latency: Annotated[float, typer.Option(help="seconds before each answer")] = 0.0,
    limits: Annotated[bool, typer.Option(help="enforce each venue's published limits")] = True,
    faults: Annotated[
        str | None, typer.Option(help="a fault of the matrix by name, several with commas, or `matrix`")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the faults")] = 0,
    allow_any_host: Annotated[bool, typer.Option(help="listen beyond loopback (in a container)")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve recorded market data in the upstreams' own wire formats, to try asof without the internet."""
    import json

    from asof.settings import house_settings
    from asof.upstream import UpstreamOptions, endpoints, run
    from shared.clock import parse_instant

    options = UpstreamOptions(
        folder=source,
        now=parse_instant(now, name="--now") if now else None,
        host=host,
        port=port,
        latency_s=latency,
        limits=limits,
        faults=faults,
        seed=seed,
        cache_dir=house_settings().paths().cache,
        allow_any_host=allow_any_host,
    )

    def announce(base_url: str) -> None:
        served = endpoints(base_url)
        typer.echo(json.dumps({"url": base_url, "endpoints": served}) if as_json else _endpoints_text(base_url, served))

    run(options, announce)


def _endpoints_text(base_url: str, served: dict[str, str]) -> str:
    exports = "\n".join(f"export ASOF_FETCHER_{name.upper()}={url}" for name, url in served.items())
    return f"replaying on {base_url} until Ctrl-C; point a fetcher at it with\n{exports}"


def config(as_json: AsJson = False) -> None:
    """Print every setting, its value and where it comes from. Passwords are never shown."""
    from asof.configuration import settings_table, unread_variables

    rows, unread = settings_table(), unread_variables()
    emit(
        {"settings": [row._asdict() for row in rows], "unread": unread},
        as_json=as_json,
        render=lambda console: _draw_settings(console, rows, unread),
    )


def _draw_settings(console: Console, rows: list[Setting], unread: list[str]) -> None:
    from rich.padding import Padding

    from asof.configuration import DEFAULT

    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            console.print(f"\n{group}", style="bold")
        changed = row.origin != DEFAULT
        # Copied as it stands, a line is what a shell or an env file takes.
        console.print(f"{row.name}={row.value}", style="green" if changed else None, soft_wrap=True)
        console.print(Padding(f"{'set in the environment' if changed else DEFAULT}: {row.meaning}", (0, 0, 0, 4)))
    for name in unread:
        console.print(f"\n{name} is set, and nothing reads it", style="yellow")


def doctor(as_json: AsJson = False) -> None:
    """Check what asof needs here, each red line with its fix (exit code 6 when there is one)."""
    from dataclasses import asdict

    from asof.doctor import examine
    from asof.settings import house_settings

    settings = house_settings()
    checks = []
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            _draw_check(terminal(), check)
    healthy = all(check.state != "red" for check in checks)
    if as_json:
        emit_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    if not healthy:
        raise typer.Exit(Exit.UNREACHABLE)


_MARKS = {"ok": ("ok  ", None), "warning": ("look", "yellow"), "red": ("RED ", "red")}


def _draw_check(console: Console, check: Check) -> None:
    mark, colour = _MARKS[check.state]
    console.print(f"{mark}  {check.name:13} {check.detail}", style=colour, soft_wrap=True)
    if check.fix:
        console.print(f"{'':19} next: {check.fix}", soft_wrap=True)
