"""Drives a balancer in tests: the verbs as kernels over arrays, compiled once for all test files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.balancer.choose import choose, note_answered, note_message, note_report, note_sent, sweep
from simulator.balancer.policy import open_fleet, settings_of
from simulator.kernel import kernel
from simulator.seeds import Stream, bits, stream_key

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from simulator.balancer.fleet import Fleet, Settings

MS, S = 1_000_000, 1_000_000_000


@kernel
def _drive(
    settings: Settings, fleet: Fleet, b: int, now: int, key: np.uint64, first: int, keys: NDArray[Any], homes: NDArray[Any],
    send: int, out: NDArray[Any],
) -> None:  # fmt: skip
    for i in range(out.shape[0]):
        out[i] = choose(settings, fleet, b, now, key, first + i, keys[i], homes[i])
        if send != 0 and out[i] >= 0:
            note_sent(settings, fleet, b, out[i], now)


@kernel
def _answer(
    settings: Settings, fleet: Fleet, b: int, node: int, now: int, took: int, good: int, count: int
) -> None:  # fmt: skip
    for _ in range(count):
        note_sent(settings, fleet, b, node, now)
        note_answered(settings, fleet, b, node, now, took, good)


@kernel
def _end(settings: Settings, fleet: Fleet, b: int, node: int, now: int, took: int, good: int) -> None:
    note_answered(settings, fleet, b, node, now, took, good)


class Driver:
    """One fleet and its policy."""

    def __init__(
        self, policy: str, nodes: int, *, balancers: int = 1, weights: list[float] | None = None, seed: int = 1,
        table_size: int = 65_537, changes: dict[str, float] | None = None, **more: float,
    ) -> None:  # fmt: skip
        changed = {**(changes or {}), **more}
        differ = weights is not None and len(set(weights)) > 1
        self.settings = settings_of(policy, **{"weighted": int(differ), **changed})
        self.fleet = open_fleet(
            self.settings, nodes, balancers, seed=seed, table_size=table_size,
            weights=None if weights is None else np.array(weights, np.float64),
        )  # fmt: skip
        if policy == "aperture" and "aperture_ns" not in changed:  # as wide as it gets, and it stays so
            self.settings = self.settings._replace(load_low=-1.0)
            self.fleet.width[:] = nodes
        self.key = stream_key(seed, Stream.BALANCER)
        self.picked = 0

    def picks(
        self, count: int, *, b: int = 0, now: int = 0, send: bool = False, keys: ArrayLike | None = None, home: int = 0
    ) -> NDArray[np.int64]:  # fmt: skip
        """The next picks; with `send` each one leaves."""
        out = np.zeros(count, np.int64)
        hashed = np.arange(self.picked, self.picked + count) if keys is None else np.asarray(keys)
        homes = np.full(count, home, np.int64)
        _drive(
            self.settings, self.fleet, b, now, self.key, self.picked, hashed.astype(np.uint64), homes, int(send), out
        )
        self.picked += count
        return out

    def answer(self, node: int, *, b: int = 0, now: int = 0, took: int = MS, good: bool = True, count: int = 1) -> None:
        """`count` requests go to a node and come back one after the other."""
        _answer(self.settings, self.fleet, b, node, now, took, int(good), count)

    def end(self, node: int, *, b: int = 0, now: int = 0, took: int = MS, good: bool = True) -> None:
        """A request that was sent ends."""
        _end(self.settings, self.fleet, b, node, now, took, int(good))

    def tell(self, node: int, *, b: int = 0, now: int = 0, queue: float = 0.0, latency: float = 0.0) -> None:
        """A node answers this balancer's probe, or tells it that it is idle."""
        word = np.uint64(bits(self.key, now))
        note_message(self.settings, self.fleet, b, node, now, word, float(queue), float(latency))

    def report(
        self, node: int, *, b: int = 0, now: int = 0, queue: float = 0.0, service: float = 0.0, utilization: float = 0.0,
        served: float = 0.0, errors: float = 0.0,
    ) -> None:  # fmt: skip
        """A node says how it is."""
        note_report(
            self.settings, self.fleet, b, node, now, float(queue), float(service), float(utilization), float(served),
            float(errors),
        )  # fmt: skip

    def sweep(self, now: int, *, b: int = 0) -> None:
        """The periodic duties."""
        sweep(self.settings, self.fleet, b, now)

    def available(self, *, b: int = 0) -> set[int]:
        """Whom balancer b takes for available."""
        return set(self.fleet.ready[b, : self.fleet.ready_count[b]].tolist())


def five_sigma(probability: float, count: int) -> float:
    """How far a share of `count` independent picks may lie from its probability: by chance beyond once in 1.7 million."""
    return 5 * float(np.sqrt(probability * (1 - probability) / count))


def shares(picked: NDArray[np.int64], nodes: int) -> NDArray[np.float64]:
    """The share of each node."""
    return np.bincount(picked, minlength=nodes) / len(picked)
