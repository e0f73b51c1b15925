"""demo: the main job on real input, offline."""

from __future__ import annotations

import typer

from asof.cli.output import AsJson, emit, terminal


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(as_json: AsJson = False) -> None:
    """Take a real exchange's 272 companies to a blocked verdict, sign for the gaps and promote; offline."""
    import asyncio

    from asof.cli.picture import draw_verdict
    from asof.demo.picture import draw_story, story_as_dict
    from asof.demo.story import play
    from asof.settings import house_settings

    console = terminal(quiet=as_json)
    story = asyncio.run(
        play(
            house_settings(),
            say=lambda text: console.print(f"· {text}", style="cyan"),
            show=lambda verdict: draw_verdict(console, verdict),
            quiet=as_json,
        )
    )
    emit(story_as_dict(story), as_json=as_json, render=lambda console: draw_story(console, story))
