"""Child processes that cannot outlive their parent, and leave when they are told to.

Children are forked, not spawned: they inherit compiled kernels and anonymous shared memory, so they are ready in
milliseconds and nothing they share has a name that could be left behind. The parent stays single-threaded for that (the
terminal view refreshes without a thread). The kernel kills a child when its parent dies (PR_SET_PDEATHSIG), also after
`kill -9`; signals of the terminal are the parent's to handle, so children ignore them.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkProcess

_PR_SET_PDEATHSIG = 1
_FORK = multiprocessing.get_context("fork")


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the one that forked it ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _body(parent: int, name: str, target: Callable[..., None], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    die_with_parent()
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.disable()  # children hold arrays, not object graphs; a collection would only be a pause
    try:
        target(*args, **options)
    except Exception:  # noqa: BLE001  whatever it is, the parent must learn of it by the exit code and a human by the text
        if os.environ.get("SIM_DEBUG"):
            traceback.print_exc()
        else:
            text = traceback.format_exc().strip().splitlines()[-1]
            os.write(2, f"sim: {name}: {text} (SIM_DEBUG=1 shows where)\n".encode())
        os._exit(1)


def start(name: str, target: Callable[..., None], *args: Any, **options: Any) -> ForkProcess:  # noqa: ANN401  passed through
    """Forks a process that runs `target(*args, **options)`."""
    process = _FORK.Process(target=_body, args=(os.getpid(), name, target, args, options), name=name, daemon=True)
    process.start()
    return process


def kill(process: ForkProcess) -> None:
    """Ends a process at once and reaps it."""
    if process.is_alive():
        process.kill()
    process.join()
