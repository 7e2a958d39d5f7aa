"""Sum a stretch of a row in float64, as fast as it can be read and in one order on every processor.

A compiler may not reorder additions, so a plain loop waits for each; and where it is allowed to, it picks an
order by the width of the processor's registers. So the lanes are written out here, as vectors of LLVM's own:
sixteen sums side by side, then four, then one by one, whatever the registers are.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["stretch_sum"]


def _sum_in_lanes(width: int) -> Any:
    """A function ``(row, start, stop)`` for numba code: the sum of a stretch of `width` · n values."""

    @intrinsic
    def sum_in_lanes(typing_context, row, start, stop):
        if row.layout != "C" or row.ndim != 1:
            return None
        return types.float64(row, types.int64, types.int64), generate

    def generate(context, builder, signature, args):
        row_type = signature.args[0]
        row = context.make_array(row_type)(context, builder, args[0])
        single = row_type.dtype == types.float32
        values = ir.VectorType(ir.FloatType() if single else ir.DoubleType(), width)
        lanes = ir.VectorType(ir.DoubleType(), width)
        sums = cgutils.alloca_once_value(builder, ir.Constant(lanes, [0.0] * width))
        word = ir.IntType(64)
        with cgutils.for_range_slice(
            builder, args[1], args[2], ir.Constant(word, width), intp=word
        ) as (x, _):
            at = builder.bitcast(builder.gep(row.data, [x]), values.as_pointer())
            loaded = builder.load(at, align=4 if single else 8)
            if single:
                loaded = builder.fpext(loaded, lanes)
            builder.store(builder.fadd(builder.load(sums), loaded), sums)
        total, n = builder.load(sums), width
        while n > 1:
            n //= 2
            halves = [
                builder.shuffle_vector(
                    total, total,
                    ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(first, first + n))),
                )
                for first in (0, n)
            ]  # fmt: skip
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return sum_in_lanes


_sixteen, _four = _sum_in_lanes(16), _sum_in_lanes(4)


@numba.njit(nogil=True, inline="always")
def stretch_sum(row, start, stop):
    """Sum of ``row[start:stop]``, float32 or float64 and contiguous, in float64.

    Lane k of sixteen adds the values k, k + 16, …; the upper half of the lanes is added to the lower
    until one is left; then four lanes likewise; then what is left over, one by one.
    """
    sixteens = start + ((stop - start) & ~np.int64(15))
    fours = sixteens + ((stop - sixteens) & ~np.int64(3))
    total = _sixteen(row, start, sixteens)
    total += _four(row, sixteens, fours)
    for x in range(fours, stop):
        total += row[x]
    return total
