"""demo: the main job on real input, offline."""

from __future__ import annotations

import typer

from asof.cli.output import AsJson, emit


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(as_json: AsJson = False) -> None:
    """Take a real exchange's 272 companies to a blocked verdict, sign for the gaps and promote; offline."""
    import asyncio

    from asof.demo.picture import draw_story, story_as_dict
    from asof.demo.story import play
    from asof.settings import HouseSettings

    say = (lambda text: None) if as_json else (lambda text: typer.secho(f"· {text}", fg="cyan"))
    story = asyncio.run(play(HouseSettings(), say=say, quiet=as_json))
    emit(story_as_dict(story), as_json=as_json, render=lambda console: draw_story(console, story))
