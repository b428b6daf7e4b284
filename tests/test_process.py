from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from simulator import process
from simulator.shard.layout import shared_array
from simulator.shard.ring import Doorbell

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_LAST_S = 30.0  # only how long a broken build makes us wait; nothing is measured against it

PARENT = """
import os, signal
from simulator import process

def live():
    os.write(1, f"{os.getpid()}\\n".encode())
    while True:
        signal.pause()

process.start("child", live).join()
"""


def ended(pidfd: int) -> bool:
    """Whether the process behind this descriptor ends at last."""
    return bool(select.select([pidfd], [], [], AT_LAST_S)[0])


def test_a_child_dies_with_its_parent_even_when_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        pidfd = os.pidfd_open(child)
        try:
            assert child != parent.pid
            assert not select.select([pidfd], [], [], 0)[0]
            parent.kill()
            assert ended(pidfd)
        finally:
            os.close(pidfd)


def _answer(ready: Doorbell, asked: Doorbell, said: NDArray[Any]) -> None:
    ready.ring()
    if asked.wait(AT_LAST_S):
        said[0] = 42


def test_a_child_leaves_the_terminals_signals_to_its_parent() -> None:
    ready, asked = Doorbell(), Doorbell()
    said = shared_array(1, np.int64)
    child = process.start("child", _answer, ready, asked, said)
    assert ready.wait(AT_LAST_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid or 0, number)
    asked.ring()
    child.join(AT_LAST_S)
    process.kill(child)
    assert (child.exitcode, int(said[0])) == (0, 42)
    ready.close()
    asked.close()


def _fail(text: str) -> None:
    raise ValueError(text)


def test_an_error_in_a_child_ends_it_with_code_1_and_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIM_DEBUG", raising=False)
    child = process.start("node 3", _fail, "no such thing")
    child.join(AT_LAST_S)
    assert child.exitcode == 1
    assert capfd.readouterr() == ("", "sim: node 3: ValueError: no such thing (SIM_DEBUG=1 shows where)\n")


def test_with_sim_debug_an_error_in_a_child_shows_where(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIM_DEBUG", "1")
    child = process.start("node 3", _fail, "no such thing")
    child.join(AT_LAST_S)
    assert child.exitcode == 1
    shown = capfd.readouterr().err
    assert shown.startswith("Traceback")
    assert "in _fail" in shown
    assert shown.endswith("ValueError: no such thing\n")


def test_a_child_gets_its_arguments_and_ends_with_code_0() -> None:
    said = shared_array(2, np.int64)

    def body(value: int, *, other: int) -> None:
        said[:] = value, other

    child = process.start("child", body, 3, other=4)
    child.join(AT_LAST_S)
    assert (child.exitcode, said.tolist()) == (0, [3, 4])


def test_killing_a_child_reaps_it_and_may_be_done_twice() -> None:
    child = process.start("child", signal.pause)
    assert child.is_alive()
    process.kill(child)
    process.kill(child)
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid or 0, os.WNOHANG)
