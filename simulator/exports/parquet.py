"""timeseries.parquet: the columns of timeseries.csv with their types, and a column of absolute times before them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from simulator.errors import SimError
from simulator.exports.windows import is_whole, window_edges_ns

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.report.folder import RunFolder

_TOLD = ("scenario", "clock", "seed", "started_at", "version", "verdict")


def write_parquet(run: RunFolder, path: Path) -> None:
    """Writes the series of a run; `time` is each window's begin, UTC. Whole or not at all.

    Counts and money (minor units) are int64, the rest float64; where there is no value there is a null. The file's metadata has
    what the summary says of the run.

    Raises:
        SimError: pyarrow is not installed, the run has no series, or the file cannot be written; then nothing of it is left.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra, and slow to import
        from pyarrow import parquet  # noqa: PLC0415  as above
    except ImportError as error:
        raise SimError("writing Parquet needs pyarrow: pip install 'transaction-load-simulator[parquet]'") from error
    edges = window_edges_ns(run)
    columns = {"time": pa.array([begin for begin, _ in edges], pa.timestamp("ns", tz="UTC"))}
    for name, cells in run.series.items():
        columns[name] = pa.array(cells, pa.int64() if is_whole(name, cells) else pa.float64())
    told = {f"sim.{name}": json.dumps(run.summary.get(name)) for name in _TOLD}
    part = path.with_name(path.name + ".part")
    try:
        parquet.write_table(pa.table(columns).replace_schema_metadata(told), part)
        part.replace(path)
    except OSError as error:
        raise SimError(f"{path}: cannot be written: {os.strerror(error.errno) if error.errno else error}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
