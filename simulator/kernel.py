"""How this project's kernels are compiled: the one decorator for free functions over arrays and scalars.

* `cache`: compiled once into a cache beside the source (or the user's cache folder), so that a run starts warm.
* `nogil`: a kernel never touches a Python object.
* `error_model="numpy"`: no branch for division by zero; validation stays outside the kernels.
* `_nrt=False`: no reference counts. A kernel borrows its arrays and never makes or keeps one, yet Numba counts references at
  each access to an array that stands in a tuple. For the ledger that was 780 calls in the machine code and 1,650 ns a
  transaction instead of 240 (benchmarks/ledger.py shows the ratio).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

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
