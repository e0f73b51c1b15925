"""Write the lock files anew from pyproject.toml (`make lock`; needs uv): exact versions with hashes, and no address.

`dev.txt` is resolved first and constrains the others, so that every image and every machine runs the same versions.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
# Lock name to what it holds: one for each image, one for `make run`, one for developers.
LOCKS = {
    "dev": ("--extra", "dev"),
    "run": ("--extra", "run", "--extra", "build"),
    "fetcher": ("--extra", "fetcher"),
    "catalog": ("--extra", "catalog"),
    "features": ("--extra", "features"),
    "auditor": ("--extra", "auditor"),
    "upstream": ("--extra", "upstream"),
    "redis": ("--group", "redis"),
    "demo-data": ("--group", "demo-data", "--no-deps"),
}


def compile_lock(name: str, *holds: str) -> None:
    # A dependency group stands for itself; an extra adds to the package's own dependencies.
    source = [] if "--group" in holds else ["pyproject.toml"]
    command = ["uv", "pip", "compile", *source, *holds]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-header"]
    command += ["--no-annotate", "--quiet", "--output-file", f"locks/{name}.txt"]
    if name not in ("dev", "demo-data"):
        command += ["--constraint", "locks/dev.txt"]
    subprocess.run(command, cwd=HERE.parent, check=True)


if __name__ == "__main__":
    for name, holds in LOCKS.items():
        compile_lock(name, *holds)
