"""`asof doctor`: what asof needs here, checked one by one, each red line with its fix."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from asof.checks import Check, red, warning, well
from asof.settings import HouseSettings
from shared.errors import PipelineError

_LOW_DISK = 1 << 30
_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 11), (3, 13)
_PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "redis", "faststream", "numba")


def examine(settings: HouseSettings) -> Iterator[Check]:
    """Every check in turn, each as soon as it is made. A check that cannot be made is a red line, not an exception."""
    checks: tuple[tuple[str, Callable[[HouseSettings], Iterable[Check]]], ...] = (
        ("python", _python),
        ("versions", _versions),
        ("settings", _settings),
        ("home", _home),
        ("redis", _redis),
        ("ledger", _ledger),
        ("alerts", _alerts),
        ("demo data", _demo_data),
        ("ratings", _ratings),
    )
    for name, check in checks:
        try:
            yield from check(settings)
        except PipelineError as fault:
            cause = f"{fault.what} ({fault.cause})" if fault.cause else fault.what
            yield red(name, cause, fault.fix or "asof doctor, after the cause is gone")
        except Exception as fault:  # noqa: BLE001  (whatever breaks a check is what the doctor is asked to name)
            words = str(fault).strip().splitlines() or [""]
            yield red(name, f"{type(fault).__name__}: {words[0]}", "make setup")


def _python(_: HouseSettings) -> Iterator[Check]:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if _OLDEST_PYTHON <= sys.version_info[:2] <= _NEWEST_PYTHON:
        yield well("python", detail)
    else:
        yield red("python", detail, "use Python 3.11 to 3.13, then make setup")


def _versions(_: HouseSettings) -> Iterator[Check]:
    yield well("versions", ", ".join(f"{name} {found}" for name in ("asof", *_PACKAGES) if (found := _version(name))))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _settings(_: HouseSettings) -> Iterator[Check]:
    from asof.configuration import DEFAULT, missing_services, settings_table, unread_variables

    rows = settings_table()
    changed = sum(row.origin != DEFAULT for row in rows)
    here = f"{len(rows)} settings, {changed} of them set"
    if missing := missing_services():
        here += f"; not installed here: {', '.join(missing)}"
    yield well("settings", here)
    if unread := unread_variables():
        yield warning("settings", f"nothing reads {', '.join(unread)}", "asof config lists what can be set")


def _home(settings: HouseSettings) -> Iterator[Check]:
    root = settings.paths().root
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if not existing.is_dir():
        yield red("home", f"{existing} is not a folder", "set ASOF_HOME to a folder")
        return
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as fault:
        yield red("home", f"{root}: {fault.strerror}", "set ASOF_HOME to a folder that you may write")
        return
    yield well("home", str(root) if root.exists() else f"{root} (made on first use)")
    free = shutil.disk_usage(existing).free
    detail = f"{free / (1 << 30):,.1f} GiB free"
    yield well("disk", detail) if free > _LOW_DISK else red("disk", detail, "free some space, or move ASOF_HOME")


def _redis(settings: HouseSettings) -> Iterator[Check]:
    from asof.redis_health import examine_redis

    secret = settings.redis()
    if secret is not None:
        yield from asyncio.run(examine_redis(secret.get_secret_value(), expect_services=True))
        return
    from asof.embedded import find_server

    yield well("server", f"embedded: {find_server()}")
    # A house that was at work before: its server is joined or started, so that what it left behind is seen.
    if (settings.paths().state / "redis").is_dir():
        yield from asyncio.run(_examine_embedded(settings))


async def _examine_embedded(settings: HouseSettings) -> list[Check]:
    from asof.embedded import embedded_redis
    from asof.redis_health import examine_redis

    async with embedded_redis(settings.paths()) as url:
        return await examine_redis(url, expect_services=False)


def _ledger(settings: HouseSettings) -> Iterator[Check]:
    home = settings.paths()
    if find_spec("services.auditor") is None or not home.ledger.is_file():
        yield well("ledger", "nothing is entered here yet")
        return
    from services.auditor import verify_ledger

    flaws, entries, _ = verify_ledger(home)
    if flaws:
        yield red("ledger", str(flaws[0]), "asof audit ledger")
    else:
        yield well("ledger", f"{entries:,} entries, whole")


def _alerts(settings: HouseSettings) -> Iterator[Check]:
    if find_spec("services.auditor") is None:
        return
    from services.auditor import list_alerts
    from shared.clock import system_clock

    last = [row for row in list_alerts(settings.paths(), now=system_clock()) if row["status"] == "firing"]
    if last:
        yield warning("alerts", f"{len(last):,} last, the newest: {last[-1]['annotations']['summary']}", "asof alerts")
    else:
        yield well("alerts", "none lasts")


def _ratings(_: HouseSettings) -> Iterator[Check]:
    """Compiles the kernel, or loads it from its cache, all of it, and rates one made-up symbol."""
    if find_spec("services.features") is None:
        yield well("ratings", "not installed here")
        return
    import numpy as np

    from services.features.adapters.warm import warm_kernel
    from services.features.domain.ratings.lanes import NUMBA_PROBLEM
    from services.features.domain.ratings.panel import compute_panel

    took = warm_kernel()
    close = np.linspace(10.0, 20.0, 300)[:, None]
    rated = compute_panel(close, close + 1, close - 1, close, close * 100)
    if not -1 <= float(rated.recommend_all[-1, 0]) <= 1:
        yield red("ratings", f"a rising price is rated {rated.recommend_all[-1, 0]}", "make setup")
    elif NUMBA_PROBLEM is not None:
        yield warning("ratings", f"they run in numpy, slowly: {NUMBA_PROBLEM}", "make setup")
    else:
        yield well("ratings", f"compiled and ready in {took:.1f} s")


def _demo_data(_: HouseSettings) -> Iterator[Check]:
    if find_spec("asof.upstream") is None:
        yield well("demo data", "not installed here")
        return
    from asof.upstream.pse import locate
    from shared.errors import NotFoundError

    try:
        folder: Path = locate()
    except NotFoundError as fault:
        yield warning("demo data", fault.what, fault.fix or "make setup")
    else:
        yield well("demo data", f"Philippine Stock Exchange, {folder}")
