"""How much memory the processes of a run hold."""

from __future__ import annotations

import os
from pathlib import Path


def rss_bytes(pid: int) -> int:
    """What a process has in memory, shared pages included; 0: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def pss_bytes(pid: int) -> int:
    """The same, each shared page divided among those who share it, so that sums over forked processes count it once."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1_024
    except (OSError, IndexError, ValueError):
        pass
    return rss_bytes(pid)
