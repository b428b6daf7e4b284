"""The pool's part in moving shards: which one, when and to where, one after the other, and what became of it.

`choose` decides from counters alone. `Rebalancer` asks for a move by words on the board (`simulator.shard.move` has what the
nodes do about it), watches it and reports it. A move that a killed node has interrupted goes on when the node is back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.shard.layout import MovePhase, MoveWord
from simulator.shard.move import look, publish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulator.shard.layout import Board
    from simulator.shard.worker import Wiring

RESTS = 3  # windows in which a shard that was moved stays where it is
_LEAST_GAIN = 0.02  # of the mean: a move that gains less than this is not worth its pause
_SIGMAS = 4.0  # how far a node's count must be above the mean before chance is ruled out


class Order(NamedTuple):
    """A move that is to be made at a set time."""

    at_ns: int
    shard: int
    to: int


@dataclass(frozen=True)
class ByLoad:
    """Moves are made when the load of the nodes differs too much."""

    every_ns: int  # the window over which load is counted
    imbalance: float  # the busiest node over the mean; above this a shard is moved
    moves: int  # at most, in the whole run


def choose(
    work: NDArray[np.int64], owners: NDArray[np.int64], nodes: int, imbalance: float, resting: NDArray[np.bool_]
) -> tuple[int, int] | None:
    """(shard, node): the move that evens the load best, or None if none is called for.

    `work` is what each shard has booked in the window, `resting` marks shards that may not be moved. From the busiest node to
    the idlest the shard goes after which the busier of the two has least; None if that gains less than 2 % of the mean, or if
    chance alone could have made the difference (counts scatter by their square root).
    """
    load = np.bincount(owners, weights=work, minlength=nodes)
    mean = float(load.mean())
    busiest, idlest = int(load.argmax()), int(load.argmin())
    if load[busiest] <= imbalance * mean or load[busiest] - mean <= _SIGMAS * math.sqrt(mean):
        return None
    there = np.flatnonzero((owners == busiest) & ~resting)
    if not len(there):
        return None
    after = np.maximum(load[busiest] - work[there], load[idlest] + work[there])
    best = int(after.argmin())
    if load[busiest] - after[best] < _LEAST_GAIN * mean:
        return None
    return int(there[best]), idlest


class Rebalancer:
    """Moves shards, as `plan` says: at set times, or by load. One object in the control process."""

    def __init__(self, board: Board, wiring: Wiring, plan: Sequence[Order] | ByLoad) -> None:
        self._board = board
        self._wiring = wiring
        self._by_load = plan if isinstance(plan, ByLoad) else None
        self.orders = [] if isinstance(plan, ByLoad) else sorted(plan, key=lambda order: order.at_ns)
        self._planned = len(self.orders)
        self._told = MovePhase.IDLE  # the last phase of the present move that was reported
        self._halted = False
        self.done: list[dict[str, Any]] = []
        shards = len(board.owners)
        self._window_ns = self._by_load.every_ns if self._by_load else 0  # when the window ends
        self._applied = np.zeros(shards, np.int64)  # as its window began
        self._rests = np.zeros(shards, np.int64)  # windows that each shard is still to stay

    @property
    def busy(self) -> bool:
        """Whether a move is under way."""
        return look(self._board.move, MoveWord.PHASE) != MovePhase.IDLE

    @property
    def planned(self) -> int | None:
        """How many moves were asked for; None: as load demands."""
        return None if self._by_load else self._planned

    def next_ns(self) -> int | None:
        """When a move may be asked for next, on the run's clock; None: never."""
        if self._halted or self.busy:
            return None
        if self._by_load:
            return self._window_ns if len(self.done) < self._by_load.moves else None
        return self.orders[0].at_ns if self.orders else None

    def halt(self) -> None:
        """Asks for nothing more; a move under way is still brought to its end, and nobody is left who would ask again."""
        self._halted = True
        self._board.asked[:] = self._board.nodes["incarnation"]

    def act(self, now_ns: int, *, may_begin: bool) -> list[dict[str, Any]]:
        """Does what is due and returns an event for each thing that happened; `may_begin` is whether every node is there."""
        events = self._watch(now_ns)
        if self._halted:
            self.halt()
        elif may_begin and not self.busy:
            order = self._next(now_ns)
            if order is not None:
                events.append(self._ask(order, now_ns))
        return events

    def _next(self, now_ns: int) -> Order | None:
        due = self.next_ns()
        if due is None or due > now_ns:
            return None
        if self._by_load is None:
            return self.orders.pop(0)
        work = self._board.applied - self._applied
        self._applied += work
        self._window_ns = now_ns + self._by_load.every_ns
        owners = self._board.owners.copy()
        found = choose(work, owners, len(self._board.nodes), self._by_load.imbalance, self._rests > 0)
        self._rests = np.maximum(self._rests - 1, 0)
        return Order(now_ns, *found) if found else None

    def _ask(self, order: Order, now_ns: int) -> dict[str, Any]:
        words = self._board.move
        source = int(self._board.owners[order.shard])
        words[MoveWord.NUMBER] += 1
        words[MoveWord.SHARD], words[MoveWord.SOURCE], words[MoveWord.TARGET] = order.shard, source, order.to
        words[MoveWord.REQUESTED_NS] = now_ns
        self._board.parked[:] = 0
        self._board.park_refused[:] = 0
        self._told = MovePhase.REQUESTED
        publish(words, MoveWord.PHASE, MovePhase.REQUESTED)
        self._ring()
        return self._event("move_requested", now_ns)

    def _ring(self) -> None:
        for bell in self._wiring.node_bells:
            bell.ring()

    def _watch(self, now_ns: int) -> list[dict[str, Any]]:
        """What has happened to the move under way since the last look."""
        words, events = self._board.move, []
        phase = look(words, MoveWord.PHASE)
        if phase >= MovePhase.FROZEN and self._told < MovePhase.FROZEN:
            events.append(self._event("move_frozen", int(words[MoveWord.FROZEN_NS])))
            self._told = MovePhase.FROZEN
        if phase >= MovePhase.TAKEN and self._told < MovePhase.TAKEN:
            events.append(self._event("move_taken", int(words[MoveWord.RESUMED_NS])))
            self._told = MovePhase.TAKEN
        number = int(words[MoveWord.NUMBER])
        if phase == MovePhase.TAKEN and all(
            look(self._board.switched, n) == number for n in range(len(self._board.nodes))
        ):
            move = self._finished(now_ns)
            self.done.append(move)
            details = {k: move[k] for k in ("pause_ms", "keys_moved", "parked", "refused", "bytes")}
            events.append({**self._event("move_switched", now_ns), **details})
            self._told = MovePhase.IDLE
            publish(words, MoveWord.PHASE, MovePhase.IDLE)
        return events

    def _event(self, name: str, at_ns: int) -> dict[str, Any]:
        words = self._board.move
        return {
            "t_s": round(at_ns / 1e9, 6),
            "event": name,
            "move": int(words[MoveWord.NUMBER]),
            "shard": int(words[MoveWord.SHARD]),
            "from": int(words[MoveWord.SOURCE]),
            "to": int(words[MoveWord.TARGET]),
        }

    def _finished(self, now_ns: int) -> dict[str, Any]:
        words, board = self._board.move, self._board
        # The work of a shard that has moved belongs to neither node's window.
        self._rests[int(words[MoveWord.SHARD])] = RESTS
        self._applied[:] = board.applied
        if self._by_load:
            self._window_ns = now_ns + self._by_load.every_ns
        return {
            "shard": int(words[MoveWord.SHARD]),
            "from": int(words[MoveWord.SOURCE]),
            "to": int(words[MoveWord.TARGET]),
            "at_s": round(int(words[MoveWord.REQUESTED_NS]) / 1e9, 6),
            "took_ms": round((now_ns - int(words[MoveWord.REQUESTED_NS])) / 1e6, 3),
            "pause_ms": round(int(words[MoveWord.RESUMED_NS] - words[MoveWord.STOPPED_NS]) / 1e6, 3),
            "keys_moved": int(words[MoveWord.KEYS]),
            "parked": int(board.parked.sum()),
            "refused": int(board.park_refused.sum()),
            "bytes": int(words[MoveWord.BYTES]),
        }

    def summary(self) -> dict[str, Any]:
        """What a run's summary says about moves."""
        pauses = [move["pause_ms"] for move in self.done]
        return {
            "mode": "by load" if self._by_load else "at set times",
            "planned": self.planned,
            "moves": self.done,
            "pause_ms_max": max(pauses, default=None),
            "keys_moved": sum(move["keys_moved"] for move in self.done),
        }
