"""Find the runs of equal values in a row of bytes, 64 at a time.

Land cover is piecewise constant: ten runs in a row of 800 pixels. One comparison of each byte with the next,
as vectors of LLVM's own, gives a word whose bits are the ends of the runs.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["run_ends"]

_generated: Any = intrinsic  # its result takes the arguments of numba code, not of Python


@_generated
def _changes(typing_context, row, x):
    """Word whose bit k says that ``row[x + k] != row[x + k + 1]``, k = 0…63."""
    if row.layout != "C" or row.ndim != 1 or row.dtype != types.uint8:
        return None
    return types.uint64(row, types.int64), _compare


def _compare(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    row = context.make_array(signature.args[0])(context, builder, args[0])
    byte, word = ir.IntType(8), ir.IntType(64)
    values = ir.VectorType(byte, 64)
    here = builder.gep(row.data, [args[1]])
    there = builder.gep(here, [ir.Constant(word, 1)])
    loaded = [
        builder.load(builder.bitcast(at, values.as_pointer()), align=1) for at in (here, there)
    ]
    return builder.bitcast(builder.icmp_unsigned("!=", *loaded), word)


@_generated
def _lowest_bit(typing_context, word):
    """Number of zero bits below the lowest one; the word is not zero."""

    def count(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), count


@numba.njit(nogil=True)
def run_ends(row, start, stop, ends):
    """Write the end of each run of ``row[start:stop]`` into `ends`; their number.

    Parameters
    ----------
    row : np.ndarray
        uint8 ``(x,)``, contiguous.
    start, stop : int
        Half-open; the last run ends at `stop`.
    ends : np.ndarray
        int64, at least ``stop - start``.
    """
    n, x = 0, start
    while x + 65 <= stop:
        n = _write_ends(_changes(row, x), x, ends, n)
        x += 64
    if stop - start >= 65:
        # the rest lies in the last 64 comparisons, part of which were made
        back = x - (stop - 65)
        n = _write_ends(_changes(row, stop - 65) >> np.uint64(back), x, ends, n) if back < 64 else n
    else:
        while x + 1 < stop:
            if row[x] != row[x + 1]:
                ends[n] = x + 1
                n += 1
            x += 1
    if stop > start:
        ends[n] = stop
        n += 1
    return n


@numba.njit(nogil=True, inline="always")
def _write_ends(word, x, ends, n):
    """Write the end of a run for every bit of a word, the lowest of which is pixel x."""
    while word:
        ends[n] = x + _lowest_bit(word) + 1
        n += 1
        word &= word - np.uint64(1)
    return n
