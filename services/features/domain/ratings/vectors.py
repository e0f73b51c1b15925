"""Eight symbols in one register: the two types that the compiled kernel calculates with, and where they lie.

numba has no vector type, and whether LLVM turns a loop into vector instructions depends on the loop. `LANES` is
LLVM's own vector of eight doubles and `MASK` of eight booleans, with the operators that the kernel uses, so nothing
is left to a heuristic: AVX-512 holds one in a register, AVX2 in two, NEON in four. A number beside lanes stands for
eight of it.

A state without an axis of lanes, `[blocks, rows]`, makes the same source a kernel of plain numbers: for one symbol
alone, seven of eight lanes would be in vain.
"""

# mypy: disable-error-code="no-untyped-call"
# numba's own functions are untyped.

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import product
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

WIDTH: Final = 8

_NUMBERS: Final = ir.VectorType(ir.DoubleType(), WIDTH)
_BITS: Final = ir.VectorType(ir.IntType(1), WIDTH)


class _LanesType(types.Type):
    pass


class _MaskType(types.Type):
    pass


LANES: Final = _LanesType(f"float64x{WIDTH}")
MASK: Final = _MaskType(f"bool x{WIDTH}")


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _NUMBERS)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _BITS)


def _spread(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """`value` in every lane, unless it is lanes already."""
    if kind in (LANES, MASK):
        return value
    if isinstance(kind, types.Boolean):
        value, vector = builder.trunc(value, ir.IntType(1)) if value.type.width > 1 else value, _BITS
    else:
        value, vector = context.cast(builder, value, kind, types.float64), _NUMBERS
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)


def _operator(function: Any, arity: int, operand: Any, scalar: Any, result: Any, emit: Callable[..., Any]) -> None:
    """Teach numba `function` of `operand`s; all but one may be a `scalar`."""

    @infer_global(function)
    class Typed(AbstractTemplate):
        def generic(self, args: Any, keywords: Any) -> Any:
            fits = len(args) == arity and operand in args and not keywords
            if fits and all(kind == operand or isinstance(kind, scalar) for kind in args):
                return signature(result, *(types.unliteral(kind) for kind in args))
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *(_spread(context, builder, *pair) for pair in zip(sig.args, args, strict=True)))

    for kinds in product((operand, scalar), repeat=arity):
        if operand in kinds:
            lower_builtin(function, *kinds)(lower)


def _comparison(function: Any, sign: str) -> None:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        return builder.fcmp_ordered(sign, a, b)

    _operator(function, 2, LANES, types.Number, MASK, emit)


def _magnitude(builder: Any, x: Any) -> Any:
    kind = ir.FunctionType(_NUMBERS, [_NUMBERS])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fabs.v{WIDTH}f64"), [x])


_operator(operator.add, 2, LANES, types.Number, LANES, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, 2, LANES, types.Number, LANES, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, 2, LANES, types.Number, LANES, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, 2, LANES, types.Number, LANES, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.neg, 1, LANES, types.Number, LANES, lambda builder, a: builder.fneg(a))
_operator(abs, 1, LANES, types.Number, LANES, _magnitude)
_operator(operator.and_, 2, MASK, types.Boolean, MASK, lambda builder, a, b: builder.and_(a, b))
_operator(operator.or_, 2, MASK, types.Boolean, MASK, lambda builder, a, b: builder.or_(a, b))
for _function, _sign in ((operator.gt, ">"), (operator.lt, "<"), (operator.ge, ">="), (operator.le, "<="),
                         (operator.eq, "==")):  # fmt: skip
    _comparison(_function, _sign)


def _wide(*kinds: Any) -> bool:
    return any(kind in (LANES, MASK) for kind in kinds)


@intrinsic
def where(context: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `condition` holds, `no` in the others; of one symbol, one of them."""
    wide = _wide(condition, yes, no)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if wide:
            parts = [_spread(context, builder, *pair) for pair in zip(sig.args, args, strict=True)]
        else:
            parts = [context.cast(builder, args[0], sig.args[0], types.boolean)]
            parts += [
                context.cast(builder, x, kind, types.float64) for kind, x in zip(sig.args[1:], args[1:], strict=True)
            ]
        return builder.select(*parts)

    result = LANES if wide else types.float64
    return result(*(types.unliteral(kind) for kind in (condition, yes, no))), emit


@intrinsic
def swayed(context: Any, total: Any, buy: Any, sell: Any) -> Any:
    """`total`, one more where `buy` and one less where `sell`.

    Lanes are short of arithmetic: they take one masked addition each way. One symbol is short of time between one vote
    and the next: it takes a single addition of what both come to.
    """
    wide = _wide(total, buy, sell)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if wide:
            before, buys, sells = (_spread(context, builder, *pair) for pair in zip(sig.args, args, strict=True))
            one = ir.Constant(_NUMBERS, [1.0] * WIDTH)
            bought = builder.select(buys, builder.fadd(before, one), before)
            return builder.select(sells, builder.fsub(bought, one), bought)
        before = context.cast(builder, args[0], sig.args[0], types.float64)
        buys, sells = (context.cast(builder, args[at], sig.args[at], types.boolean) for at in (1, 2))
        less, none, more = (ir.Constant(ir.DoubleType(), number) for number in (-1.0, 0.0, 1.0))
        return builder.fadd(before, builder.select(buys, more, builder.select(sells, less, none)))

    result = LANES if wide else types.float64
    return result(*(types.unliteral(kind) for kind in (total, buy, sell))), emit


@intrinsic
def every(context: Any, condition: Any) -> Any:
    """Whether it holds in all lanes."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not _wide(sig.args[0]):
            return args[0]
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 2**WIDTH - 1))

    return types.boolean(condition), emit


def _value(state: Any) -> Any:
    """What a state holds in a row: lanes, or one number where it has no axis of lanes."""
    return LANES if state.ndim == 3 else types.float64


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any, value: Any) -> Any:
    """Where `value`s lie in an array; `place` gives the flat index of the first from the array's shape."""
    assert kind.layout == "C", "rows of symbols have to lie one after the other"
    struct = context.make_array(kind)(context, builder, value=array)
    flat = place(*cgutils.unpack_tuple(builder, struct.shape))
    return builder.bitcast(builder.gep(struct.data, [flat]), ir.PointerType(context.get_value_type(value)))


def _in_state(context: Any, builder: Any, kind: Any, state: Any, block: Any, row: Any) -> Any:
    value = _value(kind)

    def place(blocks: Any, rows: Any, *lanes: Any) -> Any:
        size = WIDTH if lanes else 1
        start = builder.mul(block, builder.mul(rows, ir.Constant(rows.type, size)))
        return builder.add(start, builder.mul(row, ir.Constant(rows.type, size)))

    return _address(context, builder, kind, state, place, value)


def _in_panel(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Of the arguments state, panel, row, first column of the state, block."""
    value = _value(sig.args[0])

    def place(height: Any, width: Any) -> Any:
        column = builder.add(args[3], builder.mul(args[4], ir.Constant(width.type, WIDTH if value == LANES else 1)))
        return builder.add(builder.mul(args[2], width), column)

    return _address(context, builder, sig.args[1], args[1], place, value)


@intrinsic
def load(context: Any, state: Any, block: Any, row: Any) -> Any:
    """A row of a block of a state."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_in_state(context, builder, sig.args[0], *args), align=8)

    return _value(state)(state, types.intp, types.intp), emit


@intrinsic
def store(context: Any, state: Any, block: Any, row: Any, x: Any) -> Any:
    """Put it back."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[3], _in_state(context, builder, sig.args[0], *args[:3]), align=8)
        return context.get_dummy_value()

    return types.void(state, types.intp, types.intp, _value(state)), emit


@intrinsic
def take(context: Any, state: Any, panel: Any, row: Any, first: Any, block: Any) -> Any:
    """What a row of a panel `[T, S]` holds of the symbols of a block, the state's first being in column `first`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_in_panel(context, builder, sig, args), align=8)

    return _value(state)(state, panel, types.intp, types.intp, types.intp), emit


@intrinsic
def put(context: Any, state: Any, panel: Any, row: Any, first: Any, block: Any, x: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[5], _in_panel(context, builder, sig, args[:5]), align=8)
        return context.get_dummy_value()

    return types.void(state, panel, types.intp, types.intp, types.intp, _value(state)), emit


@intrinsic
def prefetch(context: Any, state: Any, panel: Any, row: Any, first: Any, block: Any) -> Any:
    """Ask for the cache line of what `take` would give, which may lie outside the panel."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _in_panel(context, builder, sig, args)
        address = builder.bitcast(address, ir.PointerType(ir.IntType(8)))
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [address, *(ir.Constant(word, number) for number in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(state, panel, types.intp, types.intp, types.intp), emit


@intrinsic
def note(context: Any, trace: Any, row: Any, place: Any, column: Any, x: Any) -> Any:
    """Put eight numbers into a trace `[T, places, S]`; no code at all where `trace` is None."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not isinstance(sig.args[0], types.NoneType):

            def first(height: Any, places: Any, width: Any) -> Any:
                line = builder.add(builder.mul(args[1], places), args[2])
                return builder.add(builder.mul(line, width), args[3])

            address = _address(context, builder, sig.args[0], args[0], first, LANES)
            builder.store(args[4], address, align=8)
        return context.get_dummy_value()

    return types.void(trace, types.intp, types.intp, types.intp, x), emit
