"""Draws the README's picture from a real demo: `.venv/bin/python docs/picture.py` writes docs/demo.svg.

It plays the demo into a fresh folder and keeps what a terminal of 160 columns would show, with three symbols of each
cause instead of all.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from asof.cli.picture import draw_verdict
from asof.demo.picture import draw_story
from asof.demo.story import play
from asof.settings import HouseSettings

TARGET = Path(__file__).with_name("demo.svg")
WIDTH = 160
# A plain frame: no font is fetched from anywhere.
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "data"
        console = Console(record=True, width=WIDTH, force_terminal=True, highlight=False, markup=False, emoji=False)
        story = asyncio.run(
            play(
                HouseSettings(home=home),
                say=lambda text: console.print(f"· {text}", style="cyan"),
                show=lambda verdict: draw_verdict(console, verdict, at_most=3),
                quiet=True,
            )
        )
        draw_story(console, story)
        svg = console.export_svg(title="make run", theme=MONOKAI, code_format=FRAME, unique_id="asof")
    TARGET.write_text("\n".join(_relative(line.rstrip(), home) for line in svg.splitlines()) + "\n", encoding="utf-8")


def _relative(line: str, home: Path) -> str:
    """Paths as a reader will have them; a shortened text no longer has the length that was measured for it."""
    shorter = line.replace(str(home), "data").replace(f"{Path(sys.executable).parent}/", "")
    return line if shorter == line else re.sub(r' textLength="[^"]*"', "", shorter)


if __name__ == "__main__":
    main()
