"""One source, two ways to run it: compiled over lanes, or with numpy over whole rows.

A *lane* is one symbol. Kernel code says `for s in lanes(width)` and indexes every row with `s`. Compiled
by numba, `lanes` is `range`, `s` a symbol, and the loop becomes vector instructions. Where numba cannot
run, `lanes` yields one full slice, `s` is the whole row, and the same lines run once as numpy operations
(about 50 times slower for 200 symbols). Arithmetic is elementwise IEEE in both, so the results agree to the bit.

Two habits follow for every loop body: choose with `where` and combine with `&` and `|`, never with `if`,
`and`, `or`; and read and compute first, store last, because a row read in numpy is a view of what it is about to store.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])
Row = NDArray[np.float64]

WITHOUT_NUMBA: Final = "ASOF_FEATURES_WITHOUT_NUMBA"


def _numba_problem() -> str | None:
    if os.environ.get(WITHOUT_NUMBA):
        return f"{WITHOUT_NUMBA} is set"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    try:
        import numba  # noqa: F401
    except (ImportError, OSError) as error:
        return f"numba cannot be imported: {error}"
    return None


NUMBA_PROBLEM: Final = _numba_problem()
COMPILED: Final = NUMBA_PROBLEM is None


def _select(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def _whole_row(width: int) -> Iterable[slice]:
    return (slice(None),)


if COMPILED:
    import numba
    from numba.core.compiler import CompilerBase, DefaultPassBuilder

    class _RowsApart(CompilerBase):
        """The usual compiler, told that array arguments never overlap: else a loop over ten rows stays scalar."""

        def define_pipelines(self) -> list[Any]:
            self.state.flags.noalias = True
            return [DefaultPassBuilder.define_nopython_pipeline(self.state)]  # type: ignore[no-untyped-call]

    def _compiled(function: Function, **options: Any) -> Function:
        # No fastmath: a comparison with NaN has to be false, and batch and update have to agree to the bit.
        njit: Callable[..., Any] = numba.njit  # its stub knows neither a pipeline class nor _nrt
        return cast(Function, njit(error_model="numpy", _nrt=False, **options)(function))

    def rowwise(function: Function) -> Function:
        """Compile a loop over lanes. Its row arguments must not overlap, or at least not where it stores."""
        return _compiled(function, pipeline_class=_RowsApart, forceinline=True)

    def elementwise(function: Function) -> Function:
        """Compile a function of numbers; in numpy the same function takes rows."""
        return _compiled(function)

    def helper(function: Function) -> Function:
        """Compile a function that calls others and loops over no lanes."""
        return _compiled(function, forceinline=True)

    def view(function: Function) -> Function:
        """Inline a function that returns a row."""
        return _compiled(function, inline="always")

    def entry(function: Function) -> Function:
        """Compile what Python calls: without the interpreter lock."""
        return _compiled(function, nogil=True, cache=True)

    lanes: Callable[[int], Iterable[Any]] = range
    where: Callable[[Any, Any, Any], Any] = numba.njit(_select)
else:

    def rowwise(function: Function) -> Function:
        """The function as it is: numpy runs it on whole rows."""
        return function

    entry = helper = view = elementwise = rowwise
    lanes = _whole_row
    where = np.where
