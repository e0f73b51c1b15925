"""The command line. Modules here only declare commands and print; what a command needs is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from asof.cli import catalog, collect, demo, discover, explain, features, gate, importing, letters, operate, runs, watch
from asof.cli.output import Exit, complain, report_error, report_fault

# Plain help, because rich's costs half of the 0.3 s that `asof --help` may take.
app = typer.Typer(
    name="asof",
    help="Point-in-time symbol metadata and technical ratings, with proof of coverage.\n\n"
    "Exit codes: 0 fine, 2 usage, 3 blocked by the gate, 4 upstream failed, 5 integrity, 6 not reachable.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (demo, runs, discover, catalog, importing, features, explain, gate, watch, letters, collect, operate):
    group.register(app)

_INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; an error of ours is printed for a person (or as JSON with --json)."""
    from shared.errors import PipelineError

    as_json = "--json" in arguments
    try:
        code = app(list(arguments), prog_name="asof", standalone_mode=False)
    except typer.TyperException as fault:
        return _report_usage(fault, as_json=as_json)
    except SystemExit as stop:
        code = stop.code
    except PipelineError as fault:
        return report_fault(fault, as_json=as_json)
    except OSError as fault:
        return _report_os(fault, as_json=as_json)
    if code == _INTERRUPTED and not as_json:
        complain("interrupted; a run that was published goes on when services run, see asof runs", colour="yellow")
    return code if isinstance(code, int) else 0


def _report_usage(fault: typer.TyperException, *, as_json: bool) -> int:
    if as_json:
        error = {"code": "usage", "what": fault.format_message(), "symbol": None, "cause": None, "retryable": False}
        report_error({**error, "next": "asof --help"}, Exit.USAGE)
    else:
        context: typer.Context | None = getattr(fault, "ctx", None)  # usage errors have one
        complain(f"{context.get_usage()}\n{fault.format_message()}" if context else fault.format_message())
    return int(Exit.USAGE)


def _report_os(fault: OSError, *, as_json: bool) -> int:
    """What the operating system refused: a folder without rights, a full disk, a reader that went away."""
    from shared.errors import ContractError, TransientError

    if isinstance(fault, BrokenPipeError):
        return _quietly()
    where = f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault)
    kind = (
        ContractError if isinstance(fault, FileNotFoundError | NotADirectoryError | PermissionError) else TransientError
    )
    report_fault(kind("a file cannot be used", cause=where, fix="asof doctor"), as_json=as_json)
    return int(Exit.UNREACHABLE)


def _quietly() -> int:
    """`asof runs | head`: nobody reads on, which is no fault."""
    import os
    import sys

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(Exit.FINE)
