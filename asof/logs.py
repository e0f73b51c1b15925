"""Logging of the processes that run services: one line an event on stderr, as text or JSON; or into a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import structlog


def log_to_stderr(style: str) -> None:
    """For a process that only runs services. `style` is text or json."""
    _configure(sys.stderr, as_json=style == "json")


def log_to_file(path: Path) -> None:
    """For a command that runs services beside what it prints: their log must not get between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Open for the rest of the process: whoever logs last closes nothing.
    _configure(path.open("a", encoding="utf-8"), as_json=True)


def _configure(stream: TextIO, *, as_json: bool) -> None:
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *((structlog.processors.format_exc_info,) if as_json else ()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
