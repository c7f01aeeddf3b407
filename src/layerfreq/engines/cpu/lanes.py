"""Several float32 side by side as one value of compiled loops, which stays in a register: one per filter centre.

Numba vectorises only inner loops, and keeps no array in registers. This file defines a type for it, with the operators
+, -, * and /, and the functions below.
"""

from __future__ import annotations

import operator
from typing import Any, cast

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # float32 in a register, or in two
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)
_builtin = cast(Any, intrinsic)  # loops call the results without `typingctx`


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes({LANES})")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _operator(symbol: Any, method: str) -> None:
    """Define an operator for lanes; a product and the sum that follows it may become one operation."""

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
    """Return lanes that all hold the same float32."""

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
def nothing(typingctx: Any, like: Any) -> Any:
    """Return a tuple of lanes of zeros, as long as another tuple."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return types.UniTuple(_lanes, like.count)(like), generate


@_builtin
def add_products(typingctx: Any, sums: Any, low: Any, three: Any, factor: Any, fourth: Any, eighth: Any) -> Any:
    """Add lanes, and products of doubled Chebyshev polynomials D_k = 2 T_k, to a tuple of sums.

    The sums are those of `low` (three lanes), then of the `fourth`, its products with `three` (D_1, D_2, D_3), of the
    `eighth`, its products, and so on: D_4(b+1) = D_4 D_4b - D_4(b-1), where D_4 is the factor. So most take one
    multiplication with addition, instead of two operations. The loop is unrolled, so that sums stay in registers.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, low, three, factor, *fours = args
        for k in range(signature.args[0].count):
            b, a = divmod(k, 4)
            if a == 3 and b >= 2:
                product = builder.fmul(factor, fours[-1], flags=("contract",))
                fours.append(builder.fsub(product, fours[-2], flags=("contract", "nsz")))
            if a == 3:
                value = fours[b]
            elif b == 0:
                value = builder.extract_value(low, a)
            else:
                value = builder.fmul(builder.extract_value(three, a), fours[b - 1], flags=("contract",))
            total = builder.fadd(builder.extract_value(sums, k), value, flags=("contract", "nsz"))
            sums = builder.insert_value(sums, total, k)
        return sums

    return sums(sums, low, three, factor, fourth, eighth), generate


@_builtin
def keep(typingctx: Any, array: Any, at: Any, sums: Any) -> Any:
    """Add a tuple of lanes to the numbers in a flat float32 array, from an index on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = _address(context, builder, signature, args)
        for k in range(sums.count):
            to = builder.gep(first, [ir.Constant(_INDEX, k)])
            builder.store(builder.fadd(builder.load(to, align=4), builder.extract_value(args[2], k)), to, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, sums), generate


@_builtin
def load_each(typingctx: Any, array: Any, at: Any, stride: Any, each: Any) -> Any:
    """Return a tuple of lanes, as long as `each`, from a flat array: at an index, and at every stride after it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, at, stride, _ = args
        steps = (builder.mul(stride, ir.Constant(stride.type, k)) for k in range(each.count))
        found = [_pointer(context, builder, signature.args[0], array, builder.add(at, step)) for step in steps]
        lanes = [builder.load(one, align=4) for one in found]
        return context.make_tuple(builder, signature.return_type, lanes)

    return types.UniTuple(_lanes, each.count)(array, types.intp, types.intp, each), generate


@_builtin
def add_outer(typingctx: Any, sums: Any, numbers: Any, at: Any, some: Any) -> Any:
    """Add the products of numbers, from an index on, with each of some lanes to a tuple of sums, row by row."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, numbers, at, some = args
        data = context.make_array(signature.args[1])(context, builder, numbers).data
        first, empty = builder.gep(data, [at]), ir.Constant(_VECTOR, ir.Undefined)
        for k in range(signature.args[0].count):
            row, column = divmod(k, signature.args[3].count)
            number = builder.load(builder.gep(first, [ir.Constant(_INDEX, row)]))
            one = builder.insert_element(empty, number, ir.Constant(_INDEX, 0))
            factor = builder.shuffle_vector(one, empty, _places([0] * LANES))
            product = builder.fmul(factor, builder.extract_value(some, column), flags=("contract",))
            total = builder.fadd(builder.extract_value(sums, k), product, flags=("contract", "nsz"))
            sums = builder.insert_value(sums, total, k)
        return sums

    return sums(sums, numbers, types.intp, some), generate


def _rows(how: str, text: str) -> Any:
    def rows(typingctx: Any, array: Any, at: Any, stride: Any, sums: Any, each: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array, at, stride, sums, _ = args
            for k in range(signature.args[3].count):
                row, column = divmod(k, signature.args[4].count)
                place = builder.add(at, builder.mul(stride, ir.Constant(stride.type, row)))
                place = builder.add(place, ir.Constant(at.type, column * LANES))
                to, value = _pointer(context, builder, signature.args[0], array, place), builder.extract_value(sums, k)
                if how == "add":
                    value = builder.fadd(builder.load(to, align=4), value)
                builder.store(value, to, align=4)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, sums, each), generate

    rows.__doc__ = text
    return _builtin(rows)


write_rows = _rows(
    "write",
    "Write the sums of `add_outer` to a flat matrix: where they begin there, its stride, and a tuple as long as a row.",
)
keep_rows = _rows("add", "Add the sums of `add_outer` to a flat matrix; arguments as of `write_rows`.")


@_builtin
def outside(typingctx: Any, number: Any, lowest: Any, highest: Any) -> Any:
    """Return whether a lane is not between its lowest and highest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, lowest, highest = args
        below, above = builder.fcmp_unordered("<", number, lowest), builder.fcmp_unordered(">", number, highest)
        bits = builder.bitcast(builder.or_(below, above), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(_lanes, _lanes, _lanes), generate


@_builtin
def turn(typingctx: Any, block: Any, at: Any, stride: Any, out: Any, to: Any, out_stride: Any) -> Any:
    """Write the transpose of a square of lanes from one flat array to another: where it begins in each, and strides."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for value, to in _turned(context, builder, (signature.args[0], signature.args[3]), *args):
            builder.store(value, builder.bitcast(to, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(block, index, index, out, index, index), generate


@_builtin
def add_turned(typingctx: Any, block: Any, at: Any, out: Any, to: Any, out_stride: Any, count: Any) -> Any:
    """Add the transpose of a square of lanes, side by side in `block`, to float64: `count` of each, a multiple of 4."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block, at, out, to, out_stride, count = args
        kinds = signature.args[0], signature.args[2]
        turned = _turned(context, builder, kinds, block, at, ir.Constant(at.type, LANES), out, to, out_stride)
        wide = ir.VectorType(ir.DoubleType(), 4)
        for begin in range(0, LANES, 4):
            with builder.if_then(builder.icmp_signed(">", count, ir.Constant(count.type, begin)), likely=True):
                for value, to in turned:
                    part = builder.shuffle_vector(value, value, _places(list(range(begin, begin + 4))))
                    here = builder.bitcast(builder.gep(to, [ir.Constant(_INDEX, begin)]), wide.as_pointer())
                    builder.store(builder.fadd(builder.load(here, align=8), builder.fpext(part, wide)), here, align=8)
        return context.get_dummy_value()

    index = types.intp
    return types.void(block, index, out, index, index, index), generate


def _turned(
    context: Any, builder: Any, kinds: Any, block: Any, at: Any, stride: Any, out: Any, to: Any, out_stride: Any
) -> Any:
    """Return the columns of a square of lanes, and pointers to their places."""
    data = context.make_array(kinds[1])(context, builder, out).data
    rows = []
    for i in range(LANES):
        place = builder.add(at, builder.mul(stride, ir.Constant(stride.type, i)))
        rows.append(builder.load(_pointer(context, builder, kinds[0], block, place), align=4))
    half = LANES // 2
    while half:  # swap the corners of ever smaller squares
        mixed = list(rows)
        for i in (i for i in range(LANES) if not i & half):
            low = [j if not j & half else j - half + LANES for j in range(LANES)]
            high = [j + half if not j & half else j + LANES for j in range(LANES)]
            mixed[i] = builder.shuffle_vector(rows[i], rows[i + half], _places(low))
            mixed[i + half] = builder.shuffle_vector(rows[i], rows[i + half], _places(high))
        rows, half = mixed, half // 2
    steps = (builder.mul(out_stride, ir.Constant(out_stride.type, i)) for i in range(LANES))
    return [(row, builder.gep(data, [builder.add(to, step)])) for row, step in zip(rows, steps, strict=True)]


def _places(which: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INDEX, len(which)), which)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _pointer(context, builder, signature.args[0], args[0], args[1])
