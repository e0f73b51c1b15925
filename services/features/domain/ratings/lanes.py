"""One source, two ways to run it: compiled for eight symbols at a time, or with numpy for all of them.

A *lane* is one symbol, a *block* eight of them. Kernel code is written as if for one symbol: `load` a value,
calculate, `store` it. Compiled by numba that value is eight symbols in a register (see `vectors.py`) and the code
runs once for each block; where numba cannot run it is a numpy array of all blocks, and far slower. Arithmetic is
elementwise IEEE in both, so the results agree to the bit.

One habit follows: choose between values with `where` and combine conditions with `&` and `|`, never with `if`,
`and`, `or`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])
Array = NDArray[np.float64]
Value = Any
"""A number, or a condition, of each symbol of a block: a register where compiled, an array in numpy."""

WIDTH: Final = 8
STEP: Final = 8
"""Bars that a block takes before the next block does, so that it meets most of its state in the first-level cache.
Rows of a panel lie too far apart for the processor to guess the next: they are asked for one such step ahead."""
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


if COMPILED:
    import numba

    from services.features.domain.ratings import cache
    from services.features.domain.ratings import vectors as _vectors

    vectors: Any = _vectors  # numba adds the first argument of an intrinsic, which mypy cannot know

    def _compiled(function: Function, **options: Any) -> Function:
        # No fastmath: a comparison with NaN has to be false, and batch and update have to agree to the bit.
        njit: Callable[..., Any] = numba.njit  # its stub does not know _nrt
        return cast(Function, njit(error_model="numpy", _nrt=False, **options)(function))

    def inlined(function: Function) -> Function:
        """Compile a part of the kernel into whatever calls it. Python never does, so it needs no door for it."""
        return _compiled(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)

    def entry(function: Function) -> Function:
        """Compile what Python calls: without the interpreter lock, and kept on disk where that is possible."""
        place = cache.folder()
        if place is None:
            return _compiled(function, nogil=True)
        with cache.kept_in(place):
            return _compiled(function, nogil=True, cache=True)

    where: Callable[[Any, Any, Any], Any] = vectors.where
    swayed: Callable[[Any, Any, Any], Any] = vectors.swayed
    every: Callable[[Any], bool] = vectors.every

    @inlined
    def blocks(state: Array) -> Iterable[Any]:
        """The blocks of a state `[blocks, rows, WIDTH]`, or the symbols of one `[symbols, rows]`."""
        return range(state.shape[0])

    @inlined
    def load(state: Array, block: Any, row: int) -> Value:
        return vectors.load(state, block, row)

    @inlined
    def store(state: Array, block: Any, row: int, x: Value) -> None:
        vectors.store(state, block, row, x)

    @inlined
    def take(state: Array, panel: Array, row: int, first: int, block: Any) -> Value:
        """The block's values in a row of a panel `[T, S]`, the state's first symbol being in column `first`."""
        vectors.prefetch(state, panel, row + STEP, first, block)
        return vectors.take(state, panel, row, first, block)

    @inlined
    def put(state: Array, panel: Array, row: int, first: int, block: Any, x: Value) -> None:
        vectors.prefetch(state, panel, row + STEP, first, block)
        vectors.put(state, panel, row, first, block, x)

    @inlined
    def note(trace: Array | None, row: int, first: int, block: Any, place: int, x: Value) -> None:
        """Put the block's values at `place` of a row of a trace `[T, places, S]`; without one, nothing."""
        vectors.note(trace, row, place, first + block * WIDTH, x)
else:

    def inlined(function: Function) -> Function:
        """The function as it is: numpy runs it."""
        return function

    entry = inlined
    where = np.where

    def swayed(total: Value, buy: Value, sell: Value) -> Value:
        """`total`, one more where `buy` and one less where `sell`."""
        return total + np.where(buy, 1.0, np.where(sell, -1.0, 0.0))

    def every(mask: Any) -> bool:
        return bool(np.all(mask))

    def blocks(state: Array) -> Iterable[Any]:
        return (slice(None),)

    def load(state: Array, block: Any, row: int) -> Value:
        return state[block, row].copy()

    def store(state: Array, block: Any, row: int, x: Value) -> None:
        state[block, row] = x

    def take(state: Array, panel: Array, row: int, first: int, block: Any) -> Value:
        return panel[row].reshape(-1, WIDTH).copy()

    def put(state: Array, panel: Array, row: int, first: int, block: Any, x: Value) -> None:
        panel[row].reshape(-1, WIDTH)[:] = x

    def note(trace: Array | None, row: int, first: int, block: Any, place: int, x: Value) -> None:
        if trace is not None:
            trace[row, place].reshape(-1, WIDTH)[:] = x
