"""Fetch the wheels that the images install into build/wheels (`make wheels`), for the base image's Python.

The image build itself reaches no network: everything it installs is here, checked against the locks' hashes.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pip._vendor.packaging.markers import Marker

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"
IMAGES = ("fetcher", "catalog", "features", "auditor", "upstream", "redis", "demo-data")
# Newest first: what a glibc of 2.28 or later can load.
MANYLINUX = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_5",
    "manylinux1",
)


ENTRY = re.compile(r"^(?P<pin>[^\s;#]+==\S+)(?: ; (?P<marker>[^\\\n]+))?(?P<hashes>(?: \\\n\s+--hash=\S+)+)", re.M)


def wanted(lock: str, python_version: str, machine: str) -> str:
    """The entries of a universal lock that some patch release of the image's Python wants, without their markers.

    pip would judge the markers by the Python that runs here, which may be another one.
    """
    images = [
        {
            "python_version": python_version,
            "python_full_version": f"{python_version}.{patch}",
            "platform_machine": machine,
        }
        for patch in (0, 99)
    ]
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    linux["platform_python_implementation"] = "CPython"
    entries = []
    for entry in ENTRY.finditer(lock):
        marker = entry["marker"]
        if marker is None or any(Marker(marker.strip()).evaluate({**image, **linux}) for image in images):
            entries.append(entry["pin"] + entry["hashes"])
    return "\n".join(entries) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python-version", default="3.11", help="of the base image")
    parser.add_argument("--machine", default=platform.machine(), help="x86_64 or aarch64")
    options = parser.parse_args()
    WHEELS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(WHEELS), "--only-binary", ":all:"]
    command += ["--no-deps", "--require-hashes", "--python-version", options.python_version, "--implementation", "cp"]
    command += [part for tag in MANYLINUX for part in ("--platform", f"{tag}_{options.machine}")]
    for image in IMAGES:
        lock = (ROOT / "locks" / f"{image}.txt").read_text(encoding="utf-8")
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as entries:
            entries.write(wanted(lock, options.python_version, options.machine))
            entries.flush()
            subprocess.run([*command, "-r", entries.name], check=True)


if __name__ == "__main__":
    main()
