"""Some float32 side by side as one value of compiled loops, which stays in a register: one per filter centre.

Numba vectorises inner loops alone, and keeps no array in registers. Here is a type of its own instead, with the
operators +, -, * and /, and the functions below.
"""

from __future__ import annotations

import operator
from typing import Any, cast

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # float32 of a register, or of two
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)
_builtin = cast(Any, intrinsic)  # loops call what it makes without `typingctx`


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes({LANES})")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _operator(symbol: Any, method: str) -> None:
    """Let an operator work on lanes; products and the sums that follow them may become one operation."""

    @_builtin
    def compute(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, method)(*args, flags=("contract", "nsz"))

        return _lanes(_lanes, _lanes), generate

    @overload(symbol)
    def choose(a, b):  # without annotations: Numba compares signatures with those of the lambda
        return (lambda a, b: compute(a, b)) if a == b == _lanes else None


for _symbol, _method in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _method)


@_builtin
def spread(typingctx: Any, number: Any) -> Any:
    """Return lanes that all have one float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        empty = ir.Constant(_VECTOR, ir.Undefined)
        one = builder.insert_element(empty, args[0], ir.Constant(_INDEX, 0))
        return builder.shuffle_vector(one, empty, _places([0] * LANES))

    return _lanes(types.float32), generate


@_builtin
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """Return the lanes that begin at an index of a flat float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature, args), align=4)

    return _lanes(array, types.intp), generate


@_builtin
def store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """Write lanes to a flat float32 array, from an index on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), generate


@_builtin
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the larger number of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _lanes(_lanes, _lanes), generate


@_builtin
def outside(typingctx: Any, number: Any, lowest: Any, highest: Any) -> Any:
    """Return whether any lane is not between two others."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, lowest, highest = args
        below, above = builder.fcmp_unordered("<", number, lowest), builder.fcmp_unordered(">", number, highest)
        bits = builder.bitcast(builder.or_(below, above), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(_lanes, _lanes, _lanes), generate


@_builtin
def turn(typingctx: Any, block: Any, at: Any, stride: Any, out: Any, to: Any, out_stride: Any) -> Any:
    """Write the transpose of a square of lanes: flat arrays, where the square begins in each, and their strides."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block, at, stride, out, to, out_stride = args
        given, taken = signature.args[0], signature.args[3]
        rows = []
        for i in range(LANES):
            place = builder.add(at, builder.mul(stride, ir.Constant(stride.type, i)))
            rows.append(builder.load(_pointer(context, builder, given, block, place), align=4))
        half = LANES // 2
        while half:  # swap the corners of ever smaller squares
            mixed = list(rows)
            for i in (i for i in range(LANES) if not i & half):
                low = [j if not j & half else j - half + LANES for j in range(LANES)]
                high = [j + half if not j & half else j + LANES for j in range(LANES)]
                mixed[i] = builder.shuffle_vector(rows[i], rows[i + half], _places(low))
                mixed[i + half] = builder.shuffle_vector(rows[i], rows[i + half], _places(high))
            rows, half = mixed, half // 2
        for i, row in enumerate(rows):
            place = builder.add(to, builder.mul(out_stride, ir.Constant(out_stride.type, i)))
            builder.store(row, _pointer(context, builder, taken, out, place), align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(block, index, index, out, index, index), generate


def _places(which: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INDEX, len(which)), which)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _pointer(context, builder, signature.args[0], args[0], args[1])
