"""A base image made of Debian packages, for machines with a Docker engine and no image registry in reach."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TAG = "asof-base:debian"
PACKAGES = "python3,python3-venv,ca-certificates"


def engine_answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and _run(docker, "info").returncode == 0


def compose_command() -> list[str] | None:
    """Compose 2 where it is a plug-in, else the stand-alone 1.29."""
    if _run("docker", "compose", "version").returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def why_no_base() -> str | None:
    """The reason why the base image cannot be made here, or None."""
    if _run("docker", "image", "inspect", TAG).returncode == 0:
        return None
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed (apt-get install debootstrap)"
    return None if _mirror() else "apt names no Debian mirror"


def make_base(folder: Path) -> str:
    """Build the image where it is absent and return its tag. Takes about a minute and needs root."""
    if _run("docker", "image", "inspect", TAG).returncode == 0:
        return TAG
    suite, mirror = _mirror()
    root = folder / "root"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root), mirror],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["docker", "import", "-", TAG], stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL)
    assert archive.wait() == 0
    return TAG


def main() -> int:
    """Print the tag of the base image, made when it is absent; without an engine or debootstrap the reason, code 1."""
    reason = why_no_base() if engine_answers() else "no Docker engine answers"
    if reason is None:
        with tempfile.TemporaryDirectory() as folder:
            print(make_base(Path(folder)))
        return 0
    print(reason)
    return 1


def _mirror() -> tuple[str, str] | None:
    """Suite and address of the first Debian release that this machine's own apt is set to use."""
    listed = _run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI) $(SUITE)")
    for line in listed.stdout.splitlines() if listed.returncode == 0 else ():
        codename, mirror, *_ = line.split()
        if "-" not in codename and "security" not in mirror:
            return codename, mirror
    return None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "")


if __name__ == "__main__":
    sys.exit(main())
