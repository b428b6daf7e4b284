"""Keeps the figures of the day: one file for each machine, in the user's cache folder (XDG Base Directory Specification)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.doctor.figures import Figures
from simulator.report.export import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_MACHINE_ID = Path("/etc/machine-id")


def path_of(environ: Mapping[str, str], home: Path, machine: str) -> Path:
    """Where the figures of a machine are kept. A relative XDG_CACHE_HOME is ignored, as its specification asks."""
    base = Path(environ.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else home / ".cache") / "transaction-load-simulator" / f"doctor-{machine}.json"


def machine_name() -> str:
    """A name that tells this machine, with as many cores as this process may use, from others; the id itself is not written."""
    try:
        identity = _MACHINE_ID.read_text("ascii").strip()
    except (OSError, UnicodeError):
        identity = ""
    seen = f"{identity}/{platform.node()}/{platform.machine()}/{len(os.sched_getaffinity(0))}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def better(new: Figures, old: Figures | None) -> bool:
    """Whether new figures replace those that are kept: a quick look never replaces an examination."""
    return old is None or old.quick or not new.quick


def of_today(today: str) -> Figures | None:
    """The figures kept for this machine, if they are of this day (`2019-11-11`, UTC)."""
    try:
        figures = Figures.from_json(json.loads(_path().read_text("utf-8")))
    except (OSError, RuntimeError, ValueError):
        return None
    return figures if figures.taken_at.startswith(today) else None


def keep(figures: Figures) -> None:
    """Keeps figures, if they are better than those of the same day; a cache that cannot be written is no error."""
    if not better(figures, of_today(figures.taken_at[:10])):
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, figures.as_json())


def day_of(moment: datetime) -> str:
    """The day a moment is of, UTC."""
    return moment.astimezone(UTC).date().isoformat()


def _path() -> Path:
    return path_of(os.environ, Path.home(), machine_name())
