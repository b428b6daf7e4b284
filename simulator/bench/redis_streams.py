"""The Redis Streams baseline: a stream a node, filled by pipelined XADDs, with a ledger of dictionaries behind each.

Used where `redis-server` is on the PATH and the `redis` package can be imported. The server is private: on a socket in a
temporary folder, without a port, writing nothing to disk, and killed with its parent.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import process
from simulator.bench.naive import (
    IN_FLIGHT,
    Baseline,
    Body,
    DictLedger,
    Window,
    new_results,
    note_drift,
    requests_of,
    run_baseline,
)
from simulator.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from simulator.bench.interruption import Interruption
    from simulator.bench.premade import Premade
    from simulator.shard.layout import Shape

_BATCH = 500  # XADDs in one pipeline, and entries asked for in one XREAD
_BLOCK_MS = 100
_START_S = 10.0
_ANSWERS = "answers"
_END = {"end": 1}


def why_not() -> str | None:
    """Why this baseline cannot be measured here; None if it can."""
    if shutil.which("redis-server") is None:
        return "no redis-server on the PATH"
    if importlib.util.find_spec("redis") is None:
        return "no Python package redis"
    return None


def measure_redis_streams(premade: Premade, shape: Shape, interruption: Interruption, *, seconds: float) -> Baseline:
    """Transactions a second through Redis Streams; raises as `measure_naive` does. Call `why_not` before."""
    requests = requests_of(premade, shape)
    results = new_results(shape)
    # Not beside the journals: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="sim-bench-") as folder:
        path = str(Path(folder) / "redis.sock")
        server = process.start("redis-server", _serve, path)
        try:
            _await(path, interruption)
            bodies: list[Body] = [(f"stream node {n}", _node, (n, shape, path, results)) for n in range(shape.nodes)]
            bodies.append(("stream client", _client, (requests, shape.nodes, path, results, seconds)))
            return run_baseline("redis streams", premade.transfers, bodies, results, interruption)
        finally:
            process.kill(server)


def _serve(path: str) -> None:
    """Becomes the server, which the kernel kills with this process's parent."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    program = shutil.which("redis-server") or "redis-server"
    quiet = ("--save", "", "--appendonly", "no", "--port", "0", "--dir", str(Path(path).parent))
    os.execv(program, [program, "--unixsocket", path, *quiet])  # noqa: S606  no shell is wanted


def _await(path: str, interruption: Interruption) -> None:
    deadline = time.monotonic() + _START_S
    while not Path(path).exists():
        interruption.check()
        if time.monotonic() > deadline:
            raise BackendError(f"redis-server did not start within {_START_S:.0f} s")
        time.sleep(0.01)


def _connect(path: str) -> Any:  # noqa: ANN401  the package is optional, so its types are not known
    return importlib.import_module("redis").Redis(unix_socket_path=path)


def _read(connection: Any, stream: str) -> Iterator[list[dict[bytes, bytes]]]:  # noqa: ANN401  as `_connect`
    """The entries of a stream, in batches as they come, for ever; an empty batch where none came for a while."""
    last = b"0"
    while True:
        found = connection.xread({stream: last}, count=_BATCH, block=_BLOCK_MS)
        entries = found[0][1] if found else []
        if entries:
            last = entries[-1][0]
        yield [fields for _, fields in entries]


def _client(
    requests: list[tuple[int, int, int, int]], nodes: int, path: str, results: NDArray[np.int64], seconds: float
) -> None:
    """The body of the client: keeps IN_FLIGHT transactions on their way, then tells the nodes that it was the last."""
    connection = _connect(path)
    answers = _read(connection, _ANSWERS)
    window = Window(results, seconds)
    number = 0
    while not window.over():
        pipeline = connection.pipeline(transaction=False)
        for _ in range(_BATCH):
            node, payer, payee, amount = requests[number % len(requests)]
            number += 1
            window.sent(number)
            pipeline.xadd(f"node-{node}", {"id": number, "payer": payer, "payee": payee, "amount": amount, "far": 0})
        pipeline.execute()
        while window.in_flight > IN_FLIGHT:
            for fields in next(answers):
                window.came(int(fields[b"id"]))
    while window.in_flight:
        for fields in next(answers):
            window.came(int(fields[b"id"]))
    for node in range(nodes):
        connection.xadd(f"node-{node}", _END)


def _node(node: int, shape: Shape, path: str, results: NDArray[np.int64]) -> None:  # noqa: C901  one loop, read top to bottom
    """The body of a node. It ends when the client and every peer have said that nothing more will come."""
    ledger = DictLedger(shape.customers, shape.opening_minor)
    connection = _connect(path)
    owners = shape.owners().tolist()
    to_end = shape.nodes
    told = False
    for batch in _read(connection, f"node-{node}"):
        pipeline = connection.pipeline(transaction=False)
        for fields in batch:
            if b"end" in fields:
                to_end -= 1
                for peer in range(0 if told else shape.nodes):
                    if peer != node:
                        pipeline.xadd(f"node-{peer}", _END)
                told = True
                continue
            number, payer, payee, amount = (int(fields[name]) for name in (b"id", b"payer", b"payee", b"amount"))
            if fields[b"far"] == b"1":
                ledger.credit(payee, amount)
                continue
            status, reason, move = ledger.debit(number, payer, payee, amount)
            if move:
                home = owners[payee % shape.shards]
                if home == node:
                    ledger.credit(payee, amount)
                else:
                    far = {"id": number, "payer": payer, "payee": payee, "amount": amount, "far": 1}
                    pipeline.xadd(f"node-{home}", far)
            pipeline.xadd(_ANSWERS, {"id": number, "status": int(status), "reason": int(reason)})
        if len(pipeline):
            pipeline.execute()
        if not to_end:
            break
    note_drift(results, node, ledger)
