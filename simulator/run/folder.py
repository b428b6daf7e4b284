"""The folder of a run while it is made: never over another, nothing left of a run that could not start, room to report."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import BackendError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

_RESERVE_BYTES = 16 << 20  # kept free for the reports of a run that fills its disk


def new_folder(name: str, out: Path | None, started: datetime) -> Path:
    """Makes a run's folder, which must not exist: results are never overwritten.

    Args:
        name: the scenario's, for a folder below results/.
        out: the folder asked for; None: one below results/ by name and time.
        started: when.

    Raises:
        UsageError: it exists, or cannot be made.
    """
    word = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "run"
    folder = out or Path("results") / f"{word}-{started.strftime('%Y%m%dT%H%M%SZ')}"
    try:
        return _made(folder, again=out is None)
    except FileExistsError:
        raise UsageError(
            f"{folder} exists already, and results are never overwritten; name another folder with --out"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; name another folder with --out") from error


def _made(folder: Path, *, again: bool) -> Path:
    """Makes a folder; with `again` a taken name gets -2, -3 … (runs that begin in the same second)."""
    wanted = folder
    for number in range(2, 100):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not again:
                raise
            folder = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return folder
    raise FileExistsError(wanted)


def reserve(folder: Path) -> int:
    """Takes disk space that is given back (by closing) before results are written, so that a full disk still gets a verdict.

    The file has no name, so it goes with this process however that ends.
    """
    path = folder / ".reserve"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    path.unlink()
    with contextlib.suppress(OSError):
        os.posix_fallocate(fd, 0, _RESERVE_BYTES)
        os.fsync(fd)
    return fd


@contextlib.contextmanager
def nothing_left(folder: Path, kill: Callable[[], None] | None = None) -> Iterator[None]:
    """If what is inside fails, neither a process nor the folder stays; an error of the disk becomes one clear line."""
    try:
        yield
    except BaseException as error:
        if kill is not None:
            kill()
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise BackendError(f"{folder} cannot be written: {error.strerror}; nothing of the run was kept") from error
        raise


@contextlib.contextmanager
def whoever_listens() -> Iterator[None]:
    """Output to somebody who has gone (`| head`), or to a full disk, is no reason to end a run."""
    try:
        yield
        sys.stdout.flush()
    except (OSError, SystemExit):  # rich turns a broken pipe into the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Prints a line, if anybody listens."""
    with whoever_listens():
        sys.stdout.write(text + "\n")
