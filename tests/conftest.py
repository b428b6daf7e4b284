"""What test files share: a small run that has ended well, and the environment that every process of a test sees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import sim_process

if TYPE_CHECKING:
    from sim_process import Ended

# One thread for BLAS, set before anything loads NumPy: forking a process that has threads is a warning from Python 3.12 on.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Two seconds of every kind over two nodes, passed and audited clean. Read it, never write into it."""
    ended = sim_process.run(tmp_path_factory.mktemp("small") / "run", "--quiet")
    assert (ended.code, ended.err) == (0, ""), ended
    return ended
