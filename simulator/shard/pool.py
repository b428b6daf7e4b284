"""The pool: starts the node processes of one embedded platform, watches them, and stops them in good order."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator import process
from simulator.errors import BackendError
from simulator.shard.layout import Board, Durability, NodeState, Shape, Stop, unsynced_ns_max
from simulator.shard.move import images_of
from simulator.shard.rebalance import Rebalancer
from simulator.shard.ring import HEAD, TAIL
from simulator.shard.worker import Wiring, serve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.shard.rebalance import ByLoad, Order

_START_S = 60.0  # opening balances of 10 million accounts take half a second; a minute means something is wrong
_LOOK_S = 0.002
_ATTEMPTS = 3  # starts in a row after which a node that never gets ready is given up


@dataclass(frozen=True)
class NodeFailure:
    """A node that stopped by itself."""

    node: int
    pid: int
    reason: str


@dataclass(frozen=True)
class Notice:
    """Something that happened to a node and that a run's events should tell."""

    event: str
    node: int
    details: dict[str, Any]


def _how_it_ended(child: ForkProcess) -> str:
    code = child.exitcode
    return f"killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"


class Pool:
    """The control plane of an embedded platform. Make it, `start` it, then fork whatever talks to its rings."""

    def __init__(
        self,
        shape: Shape,
        folder: Path,
        *,
        durability: Durability,
        interval_ns: int,
        queue: int,
        run: int,
        restarts: int = 0,
        rebalance: Sequence[Order] | ByLoad | None = None,
        doors: int = 0,
        **node_options: Any,  # noqa: ANN401  passed to each Node, which has their defaults
    ) -> None:
        """Makes rings and board.

        `folder` will hold the journals, `queue` is the slots of each ring, `restarts` how often dead nodes are started again
        in all. A node without a journal (`Durability.MEMORY`) has nothing to come back from. `rebalance`: which shards move.
        `doors`: how many gateways speak to it, instead of one dispatcher.
        """
        self.shape = shape
        self.board = Board(shape)
        self.wiring = Wiring(shape.nodes, queue, doors)
        self.durability = durability
        self.unsynced_ns_max = unsynced_ns_max(durability, interval_ns)
        self._options = {
            "folder": folder,
            "durability": durability,
            "interval_ns": interval_ns,
            "run": run,
            "movable": rebalance is not None,
            **node_options,
        }
        self._folder = folder
        self.rebalancer = Rebalancer(self.board, self.wiring, rebalance) if rebalance is not None else None
        self._processes: list[ForkProcess] = []
        self._restarts_left = restarts if durability != Durability.MEMORY else 0
        self._attempts: dict[int, int] = {}  # starts since a node was last ready
        self._returning: dict[int, float] = {}  # nodes that are restarting, and when their end was noticed

    @property
    def pids(self) -> list[int]:
        """The node processes."""
        return [p.pid or 0 for p in self._processes]

    @property
    def unsettled(self) -> bool:
        """Whether a node that died is not ready again yet, or a shard is on its way: worth a closer look."""
        return bool(self._returning) or (self.rebalancer is not None and self.rebalancer.busy)

    def next_ns(self) -> int | None:
        """When `supervise` has something to do by the run's clock; None: never."""
        return self.rebalancer.next_ns() if self.rebalancer is not None else None

    @property
    def sentinels(self) -> list[int]:
        """What becomes ready when a node process ends."""
        return [p.sentinel for p in self._processes]

    def row(self, node: int) -> Any:  # noqa: ANN401  one NODE_BOARD record; numpy's scalar records are untyped
        """The counters of a node."""
        return self.board.nodes[node]

    def waiting(self) -> NDArray[np.int64]:
        """How many requests of clients lie in front of each node, (nodes,); each cursor is read as it stands, without a lock."""
        found = np.zeros(self.shape.nodes, np.int64)
        doors = [self.wiring.requests, *(door.requests for door in self.wiring.doors)]
        for rings in doors:
            found += [max(int(ring.cursors[HEAD] - ring.cursors[TAIL]), 0) for ring in rings]
        return found

    def start(self) -> None:
        """Starts the nodes and returns when all are ready. Raises BackendError if one is not; none is then left."""
        self._processes = [self._fork(node) for node in range(self.shape.nodes)]
        deadline = time.monotonic() + _START_S
        while any(self.row(n)["state"] == NodeState.STARTING for n in range(self.shape.nodes)):
            failures = self.failures()
            if failures or time.monotonic() > deadline:
                self.kill()
                what = "; ".join(f"node {f.node}: {f.reason}" for f in failures) or f"not ready after {_START_S:.0f} s"
                raise BackendError(f"the platform could not start: {what}")
            wait(self.sentinels, _LOOK_S)

    def _fork(self, node: int) -> ForkProcess:
        self.row(node)["state"] = NodeState.STARTING
        return process.start(f"node {node}", serve, node, self.shape, self.wiring, self.board, **self._options)

    def halt(self) -> None:
        """Kills every node at once, as a power loss does; `supervise` starts them again.

        What was in a ring to or from a node goes too: the rings are memory of this process and would outlive what a power loss
        takes. Gateways are other machines; what is on its way to them arrives.
        """
        for child in self._processes:
            if child.pid is not None and child.is_alive():
                child.kill()
        for child in self._processes:
            child.join()
        self.wiring.lose()
        # All start together, and each must wait for the others' journals: none may take an old state for a living peer's.
        self.board.nodes["state"] = NodeState.STARTING

    def supervise(self) -> list[Notice]:
        """Starts dead nodes again, and says what happened to whom since the last call.

        The rings stay as they are: what the dead node had published stands, and what it had taken without making it durable
        is asked for again, by peers (they see its incarnation change) and by the dispatcher (`EmbeddedBackend.returned`).
        """
        notices = []
        now = time.monotonic()
        for node, child in enumerate(self._processes):
            row = self.row(node)
            if row["state"] in (NodeState.FAILED, NodeState.STOPPED):
                continue
            if not child.is_alive() and self._restarts_left > 0:
                child.join()
                # A node that ends by itself again and again has a fault that no restart mends; being killed is none.
                if child.exitcode is None or child.exitcode >= 0:
                    self._attempts[node] = self._attempts.get(node, 0) + 1
                self._restarts_left = 0 if self._attempts.get(node, 0) > _ATTEMPTS else self._restarts_left - 1
                self._returning.setdefault(node, now)
                notices.append(Notice("node_died", node, {"pid": child.pid, "how": _how_it_ended(child)}))
                row["incarnation"] += 1
                self._processes[node] = self._fork(node)
                notices.append(Notice("node_restarted", node, {"pid": self._processes[node].pid}))
            elif node in self._returning and row["state"] >= NodeState.READY:
                took = now - self._returning.pop(node)
                self._attempts.pop(node, None)
                notices.append(Notice("node_ready", node, {"recovery_s": round(took, 6)}))
        return [*notices, *self._rebalance()]

    def _rebalance(self) -> list[Notice]:
        """Moves on with moving shards, if that is asked for."""
        if self.rebalancer is None:
            return []
        now_ns = time.monotonic_ns() - int(self.board.epoch_ns[0])
        everyone = not self._returning and bool((self.board.nodes["state"] == NodeState.READY).all())
        events = self.rebalancer.act(now_ns, may_begin=everyone)
        return [Notice(event.pop("event"), event["from"], event) for event in events]

    def failures(self) -> list[NodeFailure]:
        """The nodes that stopped by themselves, and why."""
        found = []
        for node, child in enumerate(self._processes):
            state = self.row(node)["state"]
            pid = child.pid or 0
            if state == NodeState.FAILED:
                errno = int(self.row(node)["errno"])
                found.append(NodeFailure(node, pid, f"its journal could not be written: {os.strerror(errno)}"))
            elif not child.is_alive() and state != NodeState.STOPPED and self._restarts_left == 0:
                found.append(NodeFailure(node, pid, _how_it_ended(child)))
        return found

    def stop(self, timeout_s: float) -> bool:
        """Lets every node finish what is under way and close its books; False if that could not be had in time.

        Afterwards no process is left either way.
        """
        deadline = time.monotonic() + timeout_s
        everyone = range(self.shape.nodes)
        if self.rebalancer is not None:
            self.rebalancer.halt()
        quiet = not self.failures() and self._tell(Stop.QUIESCE, {NodeState.QUIET}, deadline)
        if quiet:
            quiet = self._tell(Stop.CLOSE, {NodeState.STOPPED}, deadline)
        else:
            # One node is gone, but the others' books are sound: they write down what they have.
            self._tell(Stop.CLOSE, {NodeState.STOPPED, NodeState.FAILED}, min(deadline, time.monotonic() + 1.0))
        for child in self._processes:
            child.join(max(0.0, deadline - time.monotonic()) if quiet else 0)
        self.kill()
        closed = quiet and all(self.row(n)["state"] == NodeState.STOPPED for n in everyone)
        if closed:
            for path in images_of(self._folder):  # whoever opens these journals again reads all of them
                path.unlink(missing_ok=True)
        return closed

    def _tell(self, stop: Stop, until: set[NodeState], deadline: float) -> bool:
        self.board.stop[0] = stop
        for bell in self.wiring.node_bells:
            bell.ring()
        while not self._all_in(until):
            self.supervise()
            self.wiring.drain()  # nobody else reads them any more
            if time.monotonic() > deadline or (stop == Stop.QUIESCE and self.failures()):
                return False
            time.sleep(_LOOK_S)
        return True

    def _all_in(self, until: set[NodeState]) -> bool:
        """Whether every node is in one of these states with nothing on its way to it.

        The states are read twice, before and after the rings: a node says that it is no longer quiet before it takes anything.
        """
        states = self.board.nodes["state"]
        rings = [*self.wiring.from_clients, *(ring for row in self.wiring.peers for ring in row if ring is not None)]
        quiet = NodeState.QUIET in until
        return (
            all(int(state) in until for state in states)
            and not (quiet and any(len(ring) for ring in rings))
            and all(int(state) in until for state in states)
        )

    def kill(self) -> None:
        """Ends every node at once. Harmless when they have ended."""
        for child in self._processes:
            process.kill(child)
