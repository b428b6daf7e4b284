"""How this project's kernels are compiled: the one decorator for free functions over arrays and scalars.

* `cache`: compiled once into a cache (`simulator.kernel_cache`), so that a run starts warm.
* `nogil`: a kernel never touches a Python object.
* `error_model="numpy"`: no branch for division by zero; validation stays outside the kernels.
* `_nrt=False`: no reference counts. A kernel borrows its arrays and never makes or keeps one, yet Numba counts references at
  each access to an array that stands in a tuple. For the ledger that was 780 calls in the machine code and 1,650 ns a
  transaction instead of 240 (measured once, with both compilations in one run).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import get_item_pointer, unpack_tuple
from numba.extending import intrinsic

from simulator import kernel_cache

settings: Any = numba.config  # untyped, and filled at run time
if not settings.CACHE_DIR:  # NUMBA_CACHE_DIR outranks ours
    settings.CACHE_DIR = str(kernel_cache.folder())

# In a kernel this is an integer like any other; a type checker has to be told.
int64: Any = np.int64

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: _Function) -> _Function:
    """Compiles `function` when it is first called with arguments of some types, or loads it from the cache."""
    compiled: _Function = njit(**_OPTIONS)(function)
    return compiled


def inlined(function: _Function) -> _Function:
    """As `kernel`, and pasted into each kernel that calls it: for the small parts of a hot loop."""
    compiled: _Function = njit(**_OPTIONS, inline="always")(function)
    return compiled


def fused(function: _Function) -> _Function:
    """As `kernel`, and merged into its callers by LLVM, however large it is.

    For the parts of a hot loop that take whole states: passing a tuple of thirty arrays costs more than most of them do. Unlike
    `inlined` it is compiled once and typed by itself.
    """
    compiled: _Function = njit(**_OPTIONS, forceinline=True)(function)
    return compiled


item_pointer: Any = get_item_pointer  # these two are untyped in Numba
_unpack: Any = unpack_tuple


@intrinsic
def _prefetch(typing: Any, array: Any, index: Any) -> Any:  # noqa: ANN401, ARG001  numba's intrinsic signature
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        array_type, index_type = signature.args
        view = context.make_array(array_type)(context, builder, args[0])
        inner = list(_unpack(builder, args[1], index_type.count))
        address = builder.bitcast(item_pointer(context, builder, array_type, view, inner), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        declared = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = builder.module.globals.get("llvm.prefetch.p0") or ir.Function(
            builder.module, declared, "llvm.prefetch.p0"
        )
        builder.call(function, [address, flag(1), flag(3), flag(1)])  # for a write, keep in all caches, data
        return context.get_dummy_value()

    return types.void(array, index), codegen


# prefetch(array, (i, j)): asks for the cache line of an element that will be needed soon; never faults, changes nothing.
prefetch: Any = _prefetch


@intrinsic
def _bit_length(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001  numba's intrinsic signature
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        word = ir.IntType(64)
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(word, 64), zeros)

    return types.int64(types.int64), codegen


@intrinsic
def _trailing_zeros(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001  as above
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def _bits_of(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001  as above
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _float_of(typing: Any, bits: Any) -> Any:  # noqa: ANN401, ARG001  as above
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


# bit_length(value): how many bits an int64 ≥ 0 has, 0 for 0. One instruction: a chain of comparisons is mispredicted for every
# second value whose size is random.
bit_length: Callable[[int], int] = cast("Any", _bit_length)
# trailing_zeros(word): the number of the lowest bit of a uint64 that is set; 64 for 0.
trailing_zeros: Callable[[np.uint64], int] = cast("Any", _trailing_zeros)
# bits_of(value), float_of(bits): a float64's 64 bits as an int64, and back.
bits_of: Callable[[float], int] = cast("Any", _bits_of)
float_of: Callable[[int], float] = cast("Any", _float_of)
