"""Sum a stretch of a row in float64, as fast as it can be read and in one order on every processor.

A compiler may not reorder additions, so a plain loop waits for each; and where it is allowed to, it picks an
order by the width of the processor's registers. So the lanes are written out here, as vectors of LLVM's own:
sixteen sums side by side, whatever the registers are.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["LANES", "stretch_sum"]

_generated: Any = intrinsic  # its result takes the arguments of numba code, not of Python

LANES = 16

_WORD = ir.IntType(64)


def _integers(values: Any) -> ir.Constant:
    values = list(values)
    return ir.Constant(ir.VectorType(_WORD, len(values)), values)


@_generated
def _sum_in_lanes(typing_context, row, start, stop):
    """The sum of ``row[start:stop]``."""
    if row.layout != "C" or row.ndim != 1:
        return None
    return types.float64(row, types.int64, types.int64), _generate


def _generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    row_type = signature.args[0]
    row = context.make_array(row_type)(context, builder, args[0])
    single = row_type.dtype == types.float32
    scalar = ir.FloatType() if single else ir.DoubleType()
    values, lanes = ir.VectorType(scalar, LANES), ir.VectorType(ir.DoubleType(), LANES)
    align = 4 if single else 8
    sums = cgutils.alloca_once_value(builder, ir.Constant(lanes, [0.0] * LANES))

    def load(x: Any) -> Any:
        at = builder.bitcast(builder.gep(row.data, [x]), values.as_pointer())
        return builder.load(at, align=align)

    def add(loaded: Any) -> None:
        doubles = builder.fpext(loaded, lanes) if single else loaded
        builder.store(builder.fadd(builder.load(sums), doubles), sums)

    start, stop = args[1], args[2]
    length = builder.sub(stop, start)
    whole = builder.and_(length, ir.Constant(_WORD, ~(LANES - 1)))
    end, n = builder.add(start, whole), builder.sub(length, whole)
    step = ir.Constant(_WORD, LANES)
    with cgutils.for_range_slice(builder, start, end, step, intp=_WORD) as (x, _):
        add(load(x))
    # what is left over goes into the first lanes; the others add nothing
    with builder.if_then(builder.icmp_signed(">", n, ir.Constant(_WORD, 0))):
        (size,) = cgutils.unpack_tuple(builder, row.shape, 1)
        room = builder.icmp_signed("<=", builder.add(end, step), size)
        with builder.if_else(room, likely=True) as (inside, at_the_end):
            with inside:
                n_everywhere = builder.shuffle_vector(
                    builder.insert_element(ir.Constant(ir.VectorType(_WORD, LANES), ir.Undefined), n,
                                           ir.Constant(ir.IntType(32), 0)),
                    ir.Constant(ir.VectorType(_WORD, LANES), ir.Undefined),
                    ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES),
                )  # fmt: skip
                mine = builder.icmp_signed("<", _integers(range(LANES)), n_everywhere)
                add(builder.select(mine, load(end), ir.Constant(values, [0.0] * LANES)))
            with at_the_end:
                # nothing may be read beyond the row
                few = cgutils.alloca_once(builder, values)
                builder.store(ir.Constant(values, [0.0] * LANES), few)
                first = builder.bitcast(few, scalar.as_pointer())
                with cgutils.for_range(builder, n, intp=_WORD) as loop:
                    value = builder.load(builder.gep(row.data, [builder.add(end, loop.index)]))
                    builder.store(value, builder.gep(first, [loop.index]))
                add(builder.load(few))
    total, n_lanes = builder.load(sums), LANES
    while n_lanes > 1:
        n_lanes //= 2
        halves = [
            builder.shuffle_vector(
                total, total,
                ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), list(range(k, k + n_lanes))),
            )
            for k in (0, n_lanes)
        ]  # fmt: skip
        total = builder.fadd(*halves)
    return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))


@numba.njit(nogil=True, inline="always")
def stretch_sum(row, start, stop):
    """Sum of ``row[start:stop]``, float32 or float64 and contiguous, in float64.

    Lane k of sixteen adds the values k, k + 16, …; then the upper half of the lanes is added to the lower
    until one is left.
    """
    return _sum_in_lanes(row, start, stop)
