"""Eight symbols in one register: the two types that the compiled kernel calculates with.

numba has no vector type, and whether LLVM turns a loop into vector instructions depends on the loop. `LANES` is
LLVM's own vector of eight doubles and `MASK` of eight booleans, with the operators that the kernel uses, so nothing
is left to a heuristic: AVX-512 holds one in a register, AVX2 in two, NEON in four. A number beside lanes stands for
eight of it.
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


@intrinsic
def where(context: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `condition` holds, `no` in the others."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [_spread(context, builder, *pair) for pair in zip(sig.args, args, strict=True)]
        return builder.select(*parts)

    return LANES(*(types.unliteral(kind) for kind in (condition, yes, no))), emit


@intrinsic
def every(context: Any, mask: Any) -> Any:
    """Whether it holds in all lanes."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 2**WIDTH - 1))

    return types.boolean(mask), emit


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    assert sig.args[0].layout == "C", "rows of symbols have to lie one after the other"
    array = context.make_array(sig.args[0])(context, builder, value=args[0])
    place = builder.gep(builder.gep(array.data, [args[1]]), [args[2]])
    return builder.bitcast(place, ir.PointerType(_NUMBERS))


@intrinsic
def load(context: Any, array: Any, base: Any, offset: Any) -> Any:
    """Eight neighbours of a contiguous array, the first at flat index `base` + `offset`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, sig, args), align=8)

    return LANES(array, types.intp, types.intp), emit


@intrinsic
def store(context: Any, array: Any, base: Any, offset: Any, x: Any) -> Any:
    """Put them back."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = _spread(context, builder, sig.args[3], args[3])
        builder.store(value, _address(context, builder, sig, args), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.unliteral(x)), emit


@intrinsic
def note(context: Any, trace: Any, row: Any, place: Any, column: Any, x: Any) -> Any:
    """Put eight numbers into a trace `[T, places, S]`; no code at all where `trace` is None."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not isinstance(sig.args[0], types.NoneType):
            array = context.make_array(sig.args[0])(context, builder, value=args[0])
            shape = cgutils.unpack_tuple(builder, array.shape)
            first = builder.mul(builder.add(builder.mul(args[1], shape[1]), args[2]), shape[2])
            address = builder.gep(array.data, [builder.add(first, args[3])])
            builder.store(args[4], builder.bitcast(address, ir.PointerType(_NUMBERS)), align=8)
        return context.get_dummy_value()

    return types.void(trace, types.intp, types.intp, types.intp, LANES), emit


@intrinsic
def prefetch(context: Any, array: Any, base: Any, offset: Any) -> Any:
    """Ask for the cache line of `base` + `offset`, which may lie outside the array."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig, args)
        address = builder.bitcast(address, ir.PointerType(ir.IntType(8)))
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [address, *(ir.Constant(word, number) for number in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), emit
