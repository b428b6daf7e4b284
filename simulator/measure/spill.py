"""Rows that are kept on disk until a run is over: so that how long it lasts does not show in memory.

The file has no name and is gone with its process. Where it cannot be written (a full disk), what follows is kept in memory:
a result that is worth some megabytes more is no reason to lose it.
"""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Spill:
    """Rows of one dtype, in the order in which they came."""

    def __init__(self, dtype: np.dtype[Any], folder: Path | None) -> None:
        """`folder`: where the file is, None: in memory. Raises OSError if it cannot be made there."""
        self._dtype = dtype
        self._file = None if folder is None else TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  `close` does
        self._full = folder is None
        self._written = 0  # rows; what stands behind them was not written whole
        self._kept: list[NDArray[np.void]] = []

    def add(self, rows: NDArray[np.void]) -> None:
        """Keeps a copy of `rows`."""
        if self._file is not None and not self._full:
            left = np.ascontiguousarray(rows).view(np.uint8).data
            try:
                while len(left):
                    left = left[self._file.write(left) :]
            except OSError:
                self._full = True
            else:
                self._written += len(rows)
                return
        self._kept.append(rows.copy())

    def rows(self) -> NDArray[np.void]:
        """All of them. Raises OSError if they cannot be read back."""
        kept = np.concatenate([np.zeros(0, self._dtype), *self._kept])
        if self._file is None or not self._written:
            return kept
        self._file.seek(0)
        written = np.fromfile(self._file, self._dtype, self._written)
        return np.concatenate([written, kept]) if len(kept) else written

    def close(self) -> None:
        """Gives the file up."""
        self._kept.clear()
        if self._file is not None:
            self._file.close()
