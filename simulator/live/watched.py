"""What the live page reads of a run: memory that the run's processes share anyway. Nothing of it is written by the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from simulator.clock import Clock
    from simulator.measure.recorder import Tallies
    from simulator.report.snapshot import Phase, Snapshot


@dataclass(frozen=True)
class Platform:
    """A platform of our own, looked at from outside.

    Attributes:
        waiting: how many requests lie in front of each node, int64 (nodes,).
        commits: histograms of the nodes' commit times, int64 (nodes, COUNTS), shared.
        busy_ns: how long each node has worked, int64 (nodes,), shared.
        applied: records in the log of each shard, int64 (shards,), shared.
    """

    waiting: Callable[[], NDArray[np.int64]]
    commits: NDArray[np.int64]
    busy_ns: NDArray[np.int64]
    applied: NDArray[np.int64]


@dataclass(frozen=True)
class Watched:
    """A run on the wall clock, as a process forked from its control process sees it.

    Attributes:
        name: the scenario's.
        description: the scenario's.
        scenario: its text, with every default.
        currency: of its money.
        folder: where its report will be.
        clock: the run's.
        tallies: what its generators count, shared; windows are seconds.
        target: transactions that the rate asks for in each second, float64.
        duration_s: how long transactions arrive.
        snapshot: the moment, as the terminal shows it.
        events: what has happened, in the control process; in another one it stays as it was.
        platform: None: it is not ours to look at.
    """

    name: str
    description: str
    scenario: str
    currency: str
    folder: Path
    clock: Clock
    tallies: Tallies
    target: NDArray[np.float64]
    duration_s: float
    snapshot: Callable[[Phase], Snapshot]
    events: list[dict[str, Any]]
    platform: Platform | None
