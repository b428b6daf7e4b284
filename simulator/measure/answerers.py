"""Who answered: counts by the name that an answer's header gives, in windows of 100 ms, and service times.

Behind a balancer that is not ours this is all that a client can know of the nodes. Names are as many as come, up to a bound;
the rest counts together. An answer without a name, or none at all, counts as nobody's: a balancer's own error page, a
connection that ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.measure.histogram import COUNTS, count_one
from simulator.shard.layout import shared_array

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

WINDOW_NS = 100_000_000
NAMES_MAX = 62
NOBODY, OTHERS = 0, NAMES_MAX + 1
_NAME_BYTES = 64


class Answerers:
    """Counts in shared memory: one process writes, another reads. Columns: nobody, then the names in the order they came."""

    def __init__(self, seconds: int) -> None:
        windows = seconds * (1_000_000_000 // WINDOW_NS)
        columns = NAMES_MAX + 2
        self.counts: NDArray[np.int64] = shared_array(windows * columns, np.int64).reshape(windows, columns)
        self.service: NDArray[np.int64] = shared_array(columns * COUNTS, np.int64).reshape(columns, COUNTS)
        self._names = shared_array(columns * _NAME_BYTES, np.dtype([("byte", "u1")]))["byte"].reshape(
            columns, _NAME_BYTES
        )
        self._columns: dict[bytes, int] = {b"": NOBODY}

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """What several processes counted over the same windows, as one would have; names in the order they first came.

        Within a window that order is the parts', and names beyond the bound join the others.
        """
        whole = cls(len(parts[0].counts) * WINDOW_NS // 1_000_000_000)
        came: dict[bytes, int] = {}  # the window in which each was first seen
        found: list[tuple[Self, int, bytes]] = []
        for part in parts:
            for column, name in enumerate(part.raw_names, start=1):
                first = int(np.argmax(part.counts[:, column] > 0))
                came[name] = min(came.get(name, first), first)
                found.append((part, column, name))
            for column in (NOBODY, OTHERS):
                whole.counts[:, column] += part.counts[:, column]
                whole.service[column] += part.service[column]
        for at, name in enumerate(sorted(came, key=came.__getitem__), start=1):
            whole._columns[name] = min(at, OTHERS)
            if at < OTHERS:
                whole._names[at, : len(name)] = np.frombuffer(name, np.uint8)
        for part, column, name in found:
            whole.counts[:, whole._columns[name]] += part.counts[:, column]
            whole.service[whole._columns[name]] += part.service[column]
        return whole

    def note(self, name: bytes, now_ns: int, service_ns: int) -> None:
        """Counts one ending; b"": nobody said who."""
        column = self._columns.get(name)
        if column is None:
            column = min(len(self._columns), OTHERS)
            if column < OTHERS:
                self._columns[name] = column
                kept = name[:_NAME_BYTES]
                self._names[column, : len(kept)] = np.frombuffer(kept, np.uint8)
        window = min(max(now_ns, 0) // WINDOW_NS, len(self.counts) - 1)
        self.counts[window, column] += 1
        if column != NOBODY:
            count_one(self.service[column], service_ns)

    @property
    def raw_names(self) -> list[bytes]:
        """The names as they came, cut at their bound; the first is column 1."""
        found = []
        for column in range(1, OTHERS):
            raw = self._names[column].tobytes().rstrip(b"\0")
            if not raw:
                break
            found.append(raw)
        return found

    @property
    def names(self) -> list[str]:
        """Who answered, in the order they first did."""
        found = [
            "".join(c if c.isprintable() else "?" for c in raw.decode("utf-8", "replace")) for raw in self.raw_names
        ]
        return [*found, "others"] if self.counts[:, OTHERS].any() else found

    @property
    def by_window(self) -> NDArray[np.int64]:
        """Answers by window and name, int64 (windows, names)."""
        names = self.names
        columns = [*range(1, len(names) + 1)]
        if names and names[-1] == "others":
            columns[-1] = OTHERS
        found: NDArray[np.int64] = self.counts[:, columns]
        return found

    @property
    def nobody(self) -> NDArray[np.int64]:
        """Endings that nobody put a name to, int64 (windows,)."""
        found: NDArray[np.int64] = self.counts[:, NOBODY]
        return found

    def service_of(self, index: int) -> NDArray[np.int64]:
        """Histogram counts of the service time of names[index]: from sent to answered, whatever the answer."""
        found: NDArray[np.int64] = self.service[OTHERS if self.names[index] == "others" else index + 1]
        return found
