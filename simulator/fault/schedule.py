"""A scenario's faults, each perhaps repeated and at random, as one sequence of strikes in the order of time.

It is pure: the same faults, nodes, length and seed give the same strikes, and the clock is an argument. Random nodes
and moments come from `Stream.FAULTS`, two numbers for each strike of each fault at indices of their own:

    2 * (fault * MOST_STRIKES + strike)        the node
    2 * (fault * MOST_STRIKES + strike) + 1    the moment

So a fault that is added at the end, or struck more often, leaves every other strike as it was.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from simulator.scenario.faults import LASTING, MOST_STRIKES, SLOW_FACTOR
from simulator.seeds import Stream, bits, stream_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from simulator.scenario.faults import PlannedFault


class Fault(StrEnum):
    """What can break, by the names a scenario has for it."""

    KILL = "kill"  # the process ends at once, as by `kill -9`
    POWER_LOSS = "power_loss"  # every node is killed, and what its disk had not synced is gone
    PAUSE = "pause"  # the process stands still, as by SIGSTOP, until the strike's `until_ns`
    POISON = "poison"  # the booking of some operations fails inside the process, until the strike's `until_ns`
    SLOW = "slow"  # what a node begins takes longer
    UNIT_LOSS = "unit_loss"  # a unit with all its nodes is gone
    DEPENDENCY = "dependency"  # the dependency is out


@dataclass(frozen=True, slots=True)
class Poisoning:
    """What a poison does.

    Attributes:
        share: of all ids, picked by their hash; above 0, at most 1.
        far: whether far legs fail, rather than requests.
        heals_after: how many tries of each fail; 0: all.
    """

    share: float
    far: bool
    heals_after: int


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault striking once.

    Attributes:
        at_ns: when, from the start of the run; within the run.
        until_ns: when it is over, at the latest when the run is; None: it strikes in an instant, as a kill or a power
            loss does on the wall clock.
        fault: what breaks.
        nodes: which nodes, in order: one, for a power loss and most poisons all of them, for a unit or the dependency none.
        unit: the unit that is lost; None: no unit is.
        factor: of a slow node.
        hangs: whether a dependency that is out gives no answer at all.
        poison: what a poison does; None for every other fault.
        delay_ns: of a slow gateway, beside its factor.
    """

    at_ns: int
    until_ns: int | None
    fault: Fault
    nodes: tuple[int, ...]
    unit: int | None = None
    factor: float = 1.0
    hangs: bool = False
    poison: Poisoning | None = None
    delay_ns: int = 0


class Schedule:
    """The strikes of one run, handed out as they come due.

    Strikes may meet: a node can be killed while it is paused, or paused twice when `spread` or two faults bring pauses
    close together. It then stands still until the last of its pauses is over.

    Args:
        faults: a valid scenario's, in its order.
        nodes: how many nodes there are, at least 1.
        duration_ns: the run's length, which the scenario's faults have been checked against.
        seed: the scenario's.
        restart_ns: how long a killed node is down where the fault does not say; None: the platform will tell.

    Attributes:
        strikes: all of them, sorted by `at_ns`; at the same instant in the order of the faults.
    """

    def __init__(
        self,
        faults: Sequence[PlannedFault],
        nodes: int,
        duration_ns: int,
        seed: int,
        restart_ns: int | None = None,
    ) -> None:
        key = stream_key(seed, Stream.FAULTS)
        strikes = [
            strike
            for index, fault in enumerate(faults)
            for strike in _expand(fault, index * MOST_STRIKES, nodes, duration_ns, restart_ns, key)
        ]
        self.strikes = tuple(sorted(strikes, key=_at_ns))  # a stable sort
        self._handed_out = 0

    @property
    def next_ns(self) -> int | None:
        """When the next strike is due that has not been handed out; None: there is none left."""
        return self.strikes[self._handed_out].at_ns if self._handed_out < len(self.strikes) else None

    def due(self, now_ns: int) -> list[Strike]:
        """Hands out the strikes due by now (`at_ns` ≤ `now_ns`), each once and in order; often none."""
        first = self._handed_out
        self._handed_out = bisect_right(self.strikes, now_ns, lo=first, key=_at_ns)
        return list(self.strikes[first : self._handed_out])


def _at_ns(strike: Strike) -> int:
    return strike.at_ns


def _expand(
    fault: PlannedFault, first: int, nodes: int, duration_ns: int, restart_ns: int | None, key: np.uint64
) -> Iterator[Strike]:
    """The strikes of one fault, of which the first has number `first`."""
    kind = Fault(fault.fault)
    every_ns = fault.every or 0
    for strike in range(fault.strikes(duration_ns)):
        draw = 2 * (first + strike)
        at_ns = fault.at + strike * every_ns
        if fault.spread is not None:
            at_ns += _below(every_ns, key, draw + 1)
        until_ns = None
        if fault.fault in LASTING:
            until_ns = duration_ns if fault.for_ is None else min(at_ns + fault.for_, duration_ns)
        elif restart_ns is not None:
            until_ns = at_ns + (restart_ns if fault.for_ is None else fault.for_)
        if fault.takes_every_node:
            struck = tuple(range(nodes))
        elif kind in (Fault.UNIT_LOSS, Fault.DEPENDENCY):
            struck = ()
        else:
            named = fault.gateway if fault.strikes_gateway else fault.node
            struck = (named if named is not None else _below(nodes, key, draw),)
        usual = 1.0 if kind is not Fault.SLOW or fault.delay is not None else SLOW_FACTOR
        factor = usual if fault.factor is None else fault.factor
        poison = None
        if kind is Fault.POISON:
            poison = Poisoning(fault.share or 0.0, fault.leg == "far", fault.heals_after or 0)
        yield Strike(at_ns, until_ns, kind, struck, fault.unit, factor, fault.mode == "hang", poison, fault.delay or 0)


def _below(bound: int, key: np.uint64, index: int) -> int:
    """A random integer in [0, bound), each alike to within bound / 2^64: 64 random bits as a fraction of 2^64."""
    return int(bits(key, index)) * bound >> 64
