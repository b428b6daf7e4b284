"""The source: arrivals and a workload, joined into the transactions of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.arrivals.trace import TraceArrivals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.arrivals.process import Arrivals
    from simulator.workload.generator import Workload


class Source:
    """Numbers what arrives 1, 2, 3 … in order of intended time, and says what each asks for."""

    def __init__(self, arrivals: Arrivals, workload: Workload) -> None:
        self._arrivals = arrivals
        self._workload = workload
        self._made = 0
        self._times = np.empty(0, np.int64)

    @property
    def made(self) -> int:
        """How many transactions it has given out."""
        return self._made

    def fill(self, batch: NDArray[Any]) -> int:
        """Write the next transactions, up to as many as fit, and return how many; 0: the run is over.

        Args:
            batch: TRANSACTION[n], contiguous. The first records are overwritten whole: `fired_ns`, `slot`, `node`,
                `message` and `sequence` are 0, for others to set. Records beyond the returned number are left as they
                are.

        Raises:
            ScenarioError: if the arrivals are a trace and a row of it is wrong.
        """
        if self._times.size < batch.size:
            self._times = np.empty(batch.size, np.int64)
        n = self._arrivals.fill(self._times[: batch.size])
        if n == 0:
            return 0
        made = batch[:n]
        made.view(np.uint8)[:] = 0
        made["id"] = np.arange(self._made + 1, self._made + 1 + n, dtype=np.uint64)
        made["intended_ns"] = self._times[:n]
        recorded = self._arrivals.recorded if isinstance(self._arrivals, TraceArrivals) else None
        self._workload.fill(made, recorded)
        self._made += n
        return n
