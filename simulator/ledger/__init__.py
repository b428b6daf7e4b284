"""Double entry on integers: the balances, the window of remembered ids, and the kernels that book transactions."""

from __future__ import annotations
