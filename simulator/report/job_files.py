"""Files for the job that a run is part of: JUnit's XML and a Markdown summary, at paths that the job names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import SimError, UsageError
from simulator.report.export import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def check_writable(path: Path, flag: str) -> None:
    """Refuses a path that nothing can be written to, before a run is made for it.

    Raises:
        UsageError: it is a folder, or its folder is not there.
    """
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}; make it first, or name another file")


def write_junit(path: Path, text: str) -> None:
    """Writes the file, whole or not at all. Raises SimError if it cannot be written."""
    try:
        write_text(path, text)
    except OSError as error:
        raise SimError(f"{path}: cannot be written: {error.strerror}") from None


def write_markdown(path: Path, text: str, environ: Mapping[str, str]) -> None:
    """Writes a summary; a job's own summary page is added to, as other steps' words may stand there already.

    Raises:
        SimError: it cannot be written.
    """
    shared = environ.get(STEP_SUMMARY)
    try:
        if shared and path.resolve() == Path(shared).resolve():
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            write_text(path, text)
    except OSError as error:
        raise SimError(f"{path}: cannot be written: {error.strerror}") from None
