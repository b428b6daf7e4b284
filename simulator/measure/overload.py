"""Goodput against offered load, and how long a spike takes to drain: pure functions of what was counted in each window.

*Goodput* is `ok` answers, in the window of the answer; *offered* is what was intended, in the window of the intention. The
*backlog* at the end of a window is what was sent and not yet answered. A platform *decides* a transaction when it answers it with
anything but a refusal for want of room.

* A window is overloaded when what was decided in it falls short of what was offered by more than noise: 4 √offered, which
  Poisson arrivals exceed once in 30,000 windows, and 2 % of offered, which is what answers 20 ms late move across its edge.
* An episode is an unbroken run of overloaded windows. The spike is the episode that left most undecided.
* It drains from the end of its last window to the moment when the backlog is back at its level before: what it was at the end
  of the last window before the spike, and of what came on top no more than 1 % (or the noise of the level itself, 4 √level).
  Within the window in which that happens the moment is found on a straight line, so it is good to a fraction of a window.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.measure.grid import NS_PER_S, lengths_s

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE_SIGMAS = 4.0
NOISE_SHARE = 0.02
LEFT_SHARE = 0.01  # of what a spike piled up: drained but for that much


@dataclass(frozen=True)
class Counted:
    """What was counted in each of T windows; all int64 of shape (T,) but the edges, (T + 1,) nanoseconds."""

    grid_ns: NDArray[np.int64]
    offered: NDArray[np.int64]  # by intended time
    sent: NDArray[np.int64]  # by fired time
    ok: NDArray[np.int64]  # this and the following by the time of the answer
    refused: NDArray[np.int64]  # for want of room
    answered: NDArray[np.int64]  # all answers; what was dropped has none


@dataclass(frozen=True)
class Overload:
    """What a run shows of overload. Of one without any: no spike, 0 s of overload, 0 s to drain."""

    offered_per_s: float  # over the time of release
    goodput_per_s: float  # over the time until the last answer
    goodput_share: float | None  # ok of offered; None: nothing was offered
    refused: int  # for want of room
    overloaded_s: float  # all episodes together
    spike_began_s: float | None = None
    spike_ended_s: float | None = None
    spike_offered_per_s: float | None = None
    sustained_per_s: float | None = None  # goodput during the spike
    backlog_before: int = 0
    backlog_peak: int = 0  # from the beginning of the spike on
    drain_s: float | None = 0.0  # None: it had not drained when the last answer came

    def to_dict(self) -> dict[str, Any]:
        """As it stands in summary.json: rounded to what is meaningful."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def is_overloaded(offered: NDArray[np.int64], decided: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which windows are overloaded."""
    noise = NOISE_SIGMAS * np.sqrt(offered) + NOISE_SHARE * offered
    overloaded: NDArray[np.bool_] = offered - decided > noise
    return overloaded


def episodes(overloaded: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The unbroken runs of True, as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], overloaded, [False]]).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def drained_ns(grid_ns: NDArray[np.int64], backlog: NDArray[np.int64], stop: int, level: float) -> float | None:
    """When the backlog at the ends of the windows, from window `stop` - 1 on, is at `level` or below; None: never."""
    if backlog[stop - 1] <= level:
        return float(grid_ns[stop])
    for window in range(stop, len(backlog)):
        now, before = float(backlog[window]), float(backlog[window - 1])
        if now <= level:
            part = (before - level) / (before - now)
            return float(grid_ns[window] + part * (grid_ns[window + 1] - grid_ns[window]))
    return None


def measure(counted: Counted, *, duration_s: float, settled_s: float) -> Overload:
    """Measures a run that released for `duration_s` and had its last answer at `settled_s`."""
    offered, ok = int(counted.offered.sum()), int(counted.ok.sum())
    decided = counted.answered - counted.refused
    overloaded = is_overloaded(counted.offered, decided)
    lengths = lengths_s(counted.grid_ns)
    whole = Overload(
        offered_per_s=offered / duration_s if duration_s else 0.0,
        goodput_per_s=ok / max(duration_s, settled_s) if max(duration_s, settled_s) else 0.0,
        goodput_share=ok / offered if offered else None,
        refused=int(counted.refused.sum()),
        overloaded_s=float(lengths[overloaded].sum()),
    )
    found = episodes(overloaded)
    if not found:
        return whole
    undecided = counted.offered - decided
    first, stop = max(found, key=lambda episode: int(undecided[episode[0] : episode[1]].sum()))
    backlog = np.cumsum(counted.sent - counted.answered)
    before = int(backlog[first - 1]) if first else 0
    peak = int(backlog[first:].max())
    level = before + max(LEFT_SHARE * (peak - before), NOISE_SIGMAS * before**0.5)
    end_ns = drained_ns(counted.grid_ns, backlog, stop, level)
    length = float(lengths[first:stop].sum())
    return Overload(
        whole.offered_per_s, whole.goodput_per_s, whole.goodput_share, whole.refused, whole.overloaded_s,
        spike_began_s=float(counted.grid_ns[first] / NS_PER_S),
        spike_ended_s=float(counted.grid_ns[stop] / NS_PER_S),
        spike_offered_per_s=int(counted.offered[first:stop].sum()) / length,
        sustained_per_s=int(counted.ok[first:stop].sum()) / length,
        backlog_before=before, backlog_peak=peak,
        drain_s=None if end_ns is None else (end_ns - float(counted.grid_ns[stop])) / NS_PER_S,
    )  # fmt: skip
