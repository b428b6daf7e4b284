"""`sim report RUN --format …` and `--otlp`: a finished run for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.errors import SimError
from simulator.report.folder import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_AS_THEY_ARE = {"json": "summary.json", "csv": "timeseries.csv"}


def export(run: Path, form: str, say: Callable[[str], None]) -> None:
    """Says a run in another form: `json` and `csv` are its own files, `md` is for people; `parquet` becomes a file beside them.

    Raises:
        SimError: the run cannot be read, or has not what is asked for.
    """
    found = read(run)
    if form == "parquet":
        from simulator.exports.parquet import write_parquet  # noqa: PLC0415  heavy

        path = run / "timeseries.parquet"
        write_parquet(found, path)
        say(str(path))
        return
    if form == "md":
        from simulator.report.markdown import markdown  # noqa: PLC0415  only this one needs it

        say(markdown([(run.name, found.summary)]).rstrip("\n"))
        return
    path = run / _AS_THEY_ARE[form]
    try:
        say(path.read_text("utf-8").rstrip("\n"))
    except OSError as error:
        raise SimError(f"{path}: cannot be read: {error.strerror or error}") from error


def send_by_otlp(run: Path, endpoint: str, say: Callable[[str], None]) -> None:
    """Sends a run's metrics to an OpenTelemetry collector. Raises as `simulator.exports.otlp.send`."""
    from simulator.exports.otlp import send  # noqa: PLC0415  heavy

    requests = send(read(run), endpoint)
    say(f"sent to {endpoint} in {requests} request{'s' if requests != 1 else ''}")
