"""The pool: starts the node processes of one embedded platform, watches them, and stops them in good order."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from simulator import process
from simulator.errors import BackendError
from simulator.shard.layout import Board, Durability, NodeState, Shape, Stop
from simulator.shard.worker import Wiring, serve

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess
    from pathlib import Path

_START_S = 60.0  # opening balances of 10 million accounts take half a second; a minute means something is wrong
_LOOK_S = 0.002


@dataclass(frozen=True)
class NodeFailure:
    """A node that stopped by itself."""

    node: int
    pid: int
    reason: str


class Pool:
    """The control plane of an embedded platform. Make it, `start` it, then fork whatever talks to its rings."""

    def __init__(
        self, shape: Shape, folder: Path, *, durability: Durability, interval_ns: int, queue: int, run: int
    ) -> None:
        """Makes rings and board; `folder` will hold the journals, `queue` is the slots of each ring."""
        self.shape = shape
        self.board = Board(shape)
        self.wiring = Wiring(shape.nodes, queue)
        self._options = {"folder": folder, "durability": durability, "interval_ns": interval_ns, "run": run}
        self._processes: list[ForkProcess] = []

    @property
    def pids(self) -> list[int]:
        """The node processes."""
        return [p.pid or 0 for p in self._processes]

    @property
    def sentinels(self) -> list[int]:
        """What becomes ready when a node process ends."""
        return [p.sentinel for p in self._processes]

    def row(self, node: int) -> Any:  # noqa: ANN401  one NODE_BOARD record; numpy's scalar records are untyped
        """The counters of a node."""
        return self.board.nodes[node]

    def start(self) -> None:
        """Starts the nodes and returns when all are ready. Raises BackendError if one is not; none is then left."""
        for node in range(self.shape.nodes):
            self._processes.append(
                process.start(f"node {node}", serve, node, self.shape, self.wiring, self.board, **self._options)
            )
        deadline = time.monotonic() + _START_S
        while any(self.row(n)["state"] == NodeState.STARTING for n in range(self.shape.nodes)):
            failures = self.failures()
            if failures or time.monotonic() > deadline:
                self.kill()
                what = "; ".join(f"node {f.node}: {f.reason}" for f in failures) or f"not ready after {_START_S:.0f} s"
                raise BackendError(f"the platform could not start: {what}")
            wait(self.sentinels, _LOOK_S)

    def failures(self) -> list[NodeFailure]:
        """The nodes that stopped by themselves, and why."""
        found = []
        for node, child in enumerate(self._processes):
            state = self.row(node)["state"]
            pid = child.pid or 0
            if state == NodeState.FAILED:
                errno = int(self.row(node)["errno"])
                found.append(NodeFailure(node, pid, f"its journal could not be written: {os.strerror(errno)}"))
            elif not child.is_alive() and state != NodeState.STOPPED:
                code = child.exitcode
                how = f"killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
                found.append(NodeFailure(node, pid, how))
        return found

    def stop(self, timeout_s: float) -> bool:
        """Lets every node finish what is under way and close its books; False if that could not be had in time.

        Afterwards no process is left either way.
        """
        deadline = time.monotonic() + timeout_s
        everyone = range(self.shape.nodes)
        quiet = not self.failures() and self._tell(Stop.QUIESCE, {NodeState.QUIET}, deadline)
        if quiet:
            quiet = self._tell(Stop.CLOSE, {NodeState.STOPPED}, deadline)
        else:
            # One node is gone, but the others' books are sound: they write down what they have.
            self._tell(Stop.CLOSE, {NodeState.STOPPED, NodeState.FAILED}, min(deadline, time.monotonic() + 1.0))
        for child in self._processes:
            child.join(max(0.0, deadline - time.monotonic()) if quiet else 0)
        self.kill()
        return quiet and all(self.row(n)["state"] == NodeState.STOPPED for n in everyone)

    def _tell(self, stop: Stop, until: set[NodeState], deadline: float) -> bool:
        self.board.stop[0] = stop
        for bell in self.wiring.node_bells:
            bell.ring()
        while any(self.row(n)["state"] not in until for n in range(self.shape.nodes)):
            if time.monotonic() > deadline or (stop == Stop.QUIESCE and self.failures()):
                return False
            time.sleep(_LOOK_S)
        return True

    def kill(self) -> None:
        """Ends every node at once. Harmless when they have ended."""
        for child in self._processes:
            process.kill(child)
