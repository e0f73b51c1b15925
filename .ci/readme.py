"""Run every command of the README, in its order: what a newcomer would type is what is tested.

Fenced blocks tagged `sh` run in one bash at the repository's root, blocks tagged `python` in the project's interpreter.
`sh compose` blocks run only where a Docker engine answers and has a base image. Other tags (`console`, `text`) are
pictures, not commands.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(?P<tag>[a-z ]+)\n(?P<code>.*?)^```", re.M | re.S)
LIMIT_S = 20 * 60


def command(tag: str, code: str) -> list[str]:
    if tag == "python":
        return [str(ROOT / ".venv" / "bin" / "python"), "-c", code]
    return ["bash", "-euo", "pipefail", "-c", f'export PATH="$PWD/.venv/bin:$PATH"\n{code}']


def why_no_images() -> str | None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
        return "no Docker engine answers"
    base = os.environ.get("ASOF_BASE_IMAGE", "")
    known = subprocess.run([docker, "image", "inspect", base], capture_output=True, check=False).returncode == 0
    return None if known else "there is no base image to build on (.ci/run makes one where it can)"


def main() -> int:
    passed = failed = skipped = 0
    for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        tag, code = match["tag"].strip(), match["code"]
        if tag not in ("sh", "python", "sh compose"):
            continue
        print(f"\n$ {code.strip()}", flush=True)
        if tag == "sh compose" and (reason := why_no_images()):
            print(f"-- skipped: {reason}")
            skipped += 1
            continue
        began = time.monotonic()
        ended = subprocess.run(command(tag, code), cwd=ROOT, timeout=LIMIT_S, check=False)
        print(f"-- exit {ended.returncode} after {time.monotonic() - began:.1f} s", flush=True)
        passed, failed = passed + (ended.returncode == 0), failed + (ended.returncode != 0)
    print(f"\nREADME: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
