"""The kept kernel is used while nothing changed, never after a source changed, and not needed at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from services.features.adapters.warm import Warmth, warm, warm_kernel
from services.features.domain.ratings import kernel
from services.features.domain.ratings.bars import checked_bars
from services.features.domain.ratings.explain import explain
from services.features.domain.ratings.frames import TechnicalRatings
from services.features.domain.ratings.panel import compute_panel, panel_trace
from services.features.domain.ratings.rules import RULE_SETS
from services.features.domain.ratings.state import RatingState
from tests.oracles import ratings_bars
from tests.oracles.ratings_bars import flat, walk

cache = pytest.importorskip("services.features.domain.ratings.cache", exc_type=ImportError)
ROOT = Path(__file__).resolve().parents[2]

# A kernel as small as can be, made like the real one: an entry in one file, what it calls in another.
PARTS = {
    "part.py": "import numba\n\n@numba.njit\ndef part(x):\n    return x + 1.0\n",
    "whole.py": """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from services.features.domain.ratings import cache, lanes
cache.PACKAGE = Path(__file__).parent
from part import part

@lanes.entry
def whole(x):
    return part(x)

print(json.dumps({"is": whole(1.0), "hits": sum(whole.stats.cache_hits.values()), "folder": str(cache.folder())}))
""",
}


def ran(folder, **environment):
    done = subprocess.run(
        [sys.executable, folder / "whole.py", ROOT],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.fixture
def parts(tmp_path):
    for name, text in PARTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_changed_part_is_compiled_again_and_an_unchanged_kernel_is_not(parts, monkeypatch):
    """numba alone sees only the stamp of whole.py, and would go on running the old part."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    first, second = ran(parts), ran(parts)
    assert (first["is"], first["hits"]) == (2.0, 0)
    assert (second["is"], second["hits"]) == (2.0, 1)
    assert first["folder"].startswith(str(parts / "__pycache__"))
    stamp = (parts / "part.py").stat().st_mtime_ns
    (parts / "part.py").write_text(PARTS["part.py"].replace("1.0", "5.0"))
    os.utime(parts / "part.py", ns=(stamp, stamp))  # not even the stamp tells
    third = ran(parts)
    assert (third["is"], third["hits"]) == (6.0, 0)
    assert third["folder"] != first["folder"]


def test_a_folder_that_was_given_is_used(parts, tmp_path):
    given = ran(parts, NUMBA_CACHE_DIR=str(tmp_path / "given"))
    assert given["folder"].startswith(str(tmp_path / "given"))


def test_where_the_package_cannot_be_written_the_users_cache_is_used_and_without_that_none(
    parts, tmp_path, monkeypatch
):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (parts / "__pycache__").write_text("a file, so that no folder can be made here")
    assert ran(parts, XDG_CACHE_HOME=str(tmp_path / "user"))["folder"].startswith(str(tmp_path / "user" / "asof"))
    (tmp_path / "nobody").write_text("another")
    nowhere = ran(parts, XDG_CACHE_HOME=str(tmp_path / "nobody"))
    assert (nowhere["is"], nowhere["folder"]) == (2.0, "None")


def test_a_given_folder_begins_with_what_the_package_was_installed_with(parts, tmp_path, monkeypatch):
    """An image is built with a kernel, and its containers may write elsewhere only."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    built = ran(parts)
    given = {"NUMBA_CACHE_DIR": str(tmp_path / "given")}
    (tmp_path / "given").mkdir()
    first = ran(parts, **given)
    assert (built["hits"], first["hits"]) == (0, 1)
    assert first["folder"].startswith(str(tmp_path / "given"))
    assert list((tmp_path / "given").iterdir()) == [Path(first["folder"])]  # nothing is left of the copying
    shutil.rmtree(built["folder"])
    assert ran(parts, **given)["hits"] == 1


def test_every_source_of_the_package_counts(tmp_path):
    """By name and content; the same files anywhere have the same print."""
    copy = tmp_path / "ratings"
    shutil.copytree(cache.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    sources = sorted(copy.glob("*.py"))
    whole = cache.fingerprint(sources)
    assert whole == cache.fingerprint(cache.PACKAGE.glob("*.py")) == cache.fingerprint(reversed(sources))
    for path in sources:
        text = path.read_bytes()
        path.write_bytes(text + b"#")
        assert cache.fingerprint(sources) != whole
        path.write_bytes(text)
    assert cache.fingerprint(sources[1:]) != whole


def test_warming_says_how_long_it_took_and_that_numba_is_there():
    found = warm()
    assert isinstance(found, Warmth)
    assert found.problem is None
    assert found.kernel_s > 0
    assert warm().kernel_s < 0.5


VARIANTS = 3  # blocks, a symbol alone, blocks with every vote noted
COUNTED = "\nfrom services.features.domain.ratings import kernel\nprint(len(kernel.advance.signatures))"
WARMERS = {
    "setup": lambda: re.search(r'"-c", "(from services.*)"\]', (ROOT / "locks" / "install.py").read_text())[1],
    "doctor": lambda: "from asof.doctor import _ratings\nlist(_ratings(None))",
    "image": lambda: re.search(r'^RUN python -c "(.*)"$', (ROOT / "Dockerfile").read_text(), re.M)[1],
}


@pytest.mark.parametrize("who", WARMERS)
def test_set_up_doctor_and_image_compile_every_variant(who):
    done = subprocess.run(
        [sys.executable, "-c", WARMERS[who]() + COUNTED], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split()[-1:] == [str(VARIANTS)], done.stderr


def frames(count=260):
    """One symbol's bars as people have them: pandas lends read-only arrays of the first two, each laid out its way."""
    bars = walk(count)
    yield ratings_bars.frame(bars)
    yield ratings_bars.frame(np.asfortranarray(bars))
    yield pd.DataFrame(dict(ratings_bars.frame(bars)))
    yield ratings_bars.frame(bars).assign(name="X:A")


def test_whoever_asks_after_warming_waits_for_no_compiler():
    warm_kernel()
    for bars in frames():
        TechnicalRatings.compute(bars)
        TechnicalRatings.votes(bars)
        explain(bars)
        RatingState.from_history(bars).update(*bars.iloc[-1][ratings_bars.COLUMNS])
    for symbols in (1, 5, 8, 17):
        arrays = ratings_bars.panel([walk(60, s, missing=0.1 * (s % 2)) for s in range(symbols)])
        for given in (
            arrays,
            [np.asfortranarray(x) for x in arrays],
            [np.frombuffer(x.tobytes()).reshape(x.shape) for x in arrays],
        ):
            compute_panel(*given)
            state = RatingState.from_bytes(RatingState.from_history(*given).to_bytes())
            state.update(*(x[-1] for x in given))
    assert len(kernel.advance.signatures) == VARIANTS


UNCOMPILED = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from services.features.adapters.warm import warm
from services.features.domain.ratings.bars import checked_bars
from services.features.domain.ratings.panel import compute_panel, panel_trace
from services.features.domain.ratings.rules import RULE_SETS
from services.features.domain.ratings.state import RatingState
assert warm().problem == "ASOF_FEATURES_WITHOUT_NUMBA is set", warm()
assert "numba" not in sys.modules
arrays = [np.load(sys.argv[2])[name] for name in ("open", "high", "low", "close", "volume")]
out = {}
for rules in RULE_SETS.values():
    out[f"{rules.id}_ratings"] = np.array(compute_panel(*arrays, rules.id))
    out[f"{rules.id}_trace"] = panel_trace(checked_bars(*arrays), rules)
    state = RatingState.from_history(*(x[:-3] for x in arrays), rules=rules.id)
    out[f"{rules.id}_updates"] = np.array([state.update(*(x[row] for x in arrays)) for row in (-3, -2, -1)])
np.savez(sys.argv[3], **out)
"""


def test_without_numba_numpy_gives_the_same_to_the_bit(tmp_path):
    columns = [walk(260, s, missing=0.1 * (s % 2), still=0.3 * (s % 3)) for s in range(9)]
    columns += [flat(200), walk(40, 9, tick=0.5, silent=0.5), walk(230, 8, jump=1e3, scale=1e-9)]
    arrays = ratings_bars.panel(columns)
    np.savez(tmp_path / "in.npz", **dict(zip(ratings_bars.COLUMNS, arrays, strict=True)))
    subprocess.run(
        [sys.executable, "-c", UNCOMPILED, ROOT, tmp_path / "in.npz", tmp_path / "out.npz"],
        env={**os.environ, "ASOF_FEATURES_WITHOUT_NUMBA": "1"}, check=True, timeout=120,
    )  # fmt: skip
    found = np.load(tmp_path / "out.npz")
    for name, rules in RULE_SETS.items():
        compiled = np.array(compute_panel(*arrays, name))
        np.testing.assert_array_equal(found[f"{name}_ratings"], compiled)
        np.testing.assert_array_equal(found[f"{name}_trace"], panel_trace(checked_bars(*arrays), rules))
        state = RatingState.from_history(*(x[:-3] for x in arrays), rules=name)
        updates = np.array([state.update(*(x[row] for x in arrays)) for row in (-3, -2, -1)])
        np.testing.assert_array_equal(found[f"{name}_updates"], updates)
        np.testing.assert_array_equal(updates, compiled[:, -3:].swapaxes(0, 1))
