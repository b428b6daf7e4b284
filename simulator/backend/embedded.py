"""The embedded platform as a backend: the dispatcher's ends of the rings to and from the node processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simulator.shard.layout import Shape
    from simulator.shard.worker import Wiring


class EmbeddedBackend:
    """Speaks to the nodes of a `simulator.shard.pool.Pool` from one other process."""

    def __init__(self, shape: Shape, wiring: Wiring) -> None:
        self._shape = shape
        self._wiring = wiring

    @property
    def nodes(self) -> int:
        """The node processes."""
        return self._shape.nodes

    def owners(self) -> NDArray[np.int64]:
        """The node that owns each shard."""
        return self._shape.owners()

    def offer(self, node: int, batch: NDArray[np.void]) -> int:
        """Pushes what fits into the node's ring and wakes it."""
        taken = self._wiring.requests[node].push(batch)
        self._wiring.node_bells[node].ring()
        return taken

    def poll(self, outcomes: NDArray[np.void]) -> int:
        """Takes answers from every node in turn."""
        count = 0
        for ring in self._wiring.replies:
            if count == len(outcomes):
                break
            count += ring.pop(outcomes[count:])
        return count

    def wait(self, timeout_s: float) -> None:
        """Sleeps until a node rings, at most this long."""
        self._wiring.dispatcher_bell.wait(timeout_s)
