"""Compiles every kernel of a run before its processes are forked, by taking a tiny run through the real classes.

Compiled code lands in Numba's cache, so this is slow once for each version of the source and takes a blink after that. Doing it
before the fork means that no process compiles (or even loads) anything while the clock is running.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from simulator import kernel_cache, process
from simulator.arrivals.process import Poisson
from simulator.arrivals.rate import Rate
from simulator.audit.auditor import audit_run
from simulator.audit.credit_lag import CreditLagSampler
from simulator.audit.history import history_path
from simulator.backend.backend import NoopBackend
from simulator.backend.embedded import EmbeddedBackend
from simulator.backend.http.judge import Judge
from simulator.backend.http.lines import Exchange, Times
from simulator.backend.http.render import Field, Op, program_of
from simulator.dispatcher import Dispatcher, WhenFull
from simulator.engine.units import PROGRESS, simulate_units
from simulator.kernel import settings
from simulator.ledger.flaws import threshold_of
from simulator.measure.answerers import Answerers
from simulator.measure.grid import peak_grid, seconds_grid
from simulator.measure.recorder import Recorder, open_tallies
from simulator.scenario.balancing import Balancer
from simulator.scenario.model import Scenario
from simulator.shard.door import Door, Doors
from simulator.shard.layout import ANSWER, QUESTION, Board, Durability, Inquiry, NodeState, Shape
from simulator.shard.poison import PoisonRules
from simulator.shard.rebalance import Order, Rebalancer
from simulator.shard.worker import Node, Wiring
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status
from simulator.workload.generator import Parties, Workload
from simulator.workload.hot_keys import HotKeys
from simulator.workload.life_cycle import Mix
from simulator.workload.source import Source
from simulator.workload.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_TRANSACTIONS = 256


def is_cold() -> bool:
    """Whether kernels must be compiled first: the largest one is not in the cache."""
    return _is_cold("post.apply")


def _is_cold(kernel: str) -> bool:
    return not any(Path(settings.CACHE_DIR).rglob(f"{kernel}-*.nbi"))


def warm(say: Callable[[str], None] | None) -> None:
    """Compiles or loads every kernel; says so through `say` when it will take a while."""
    if is_cold():
        if say is not None:
            say("compiling kernels into a cache (once; about a minute on one core) …")
        kernel_cache.forget_others(Path(settings.CACHE_DIR))
        # In a process of its own: the compiler leaves hundreds of megabytes behind, which every forked child would inherit.
        child = process.start("compiler", _in_a_temporary_folder)
        child.join()
    _in_a_temporary_folder()


def warm_virtual(say: Callable[[str], None] | None) -> None:
    """The same for the kernels of the virtual clock."""
    if _is_cold("general.run"):
        if say is not None:
            say("compiling kernels into a cache (once; a minute or two on one core) …")
        process.start("compiler", _tiny_simulation).join()
    _tiny_simulation()


def _tiny_simulation() -> None:
    scenario = Scenario.from_data(
        {
            "name": "warm", "clock": "virtual", "duration": "100ms", "load": {"rate": "1000/s", "accounts": 100},
            "platform": {"nodes": 2, "units": 2, "shards": {"count": 2}},
        }
    )  # fmt: skip
    grid_ns = peak_grid(100_000_000, scenario.dispatcher.drain, 0)
    simulate_units(scenario, [0, 1], grid_ns, np.zeros(PROGRESS, np.int64), lambda: 2**62)


def _in_a_temporary_folder() -> None:
    with tempfile.TemporaryDirectory(prefix="sim-warm-") as name:
        _tiny_run(Path(name))


def _tiny_run(folder: Path) -> None:
    """Two nodes in this process, a few hundred transactions, a shard that moves, an audit."""
    shape = Shape(
        nodes=2, shards=4, customers=64, merchants=8, opening_minor=1_000_000, remember=64, hot_accounts=1, hot_split=4
    )  # fmt: skip
    (folder / "journal").mkdir()
    board = Board(shape)
    wiring = Wiring(2, 1_024)
    modes = (Durability.OS, Durability.MEMORY)
    nodes = [
        Node(
            n,
            shape,
            wiring,
            board,
            folder=folder / "journal",
            durability=modes[n],
            interval_ns=0,
            run=1,
            poison=PoisonRules(tries=1, wait_ns=0),
            movable=True,
        )
        for n in range(2)
    ]
    rebalancer = Rebalancer(board, wiring, [Order(0, 0, 1)])
    recorder = Recorder(4, 2)
    history = history_path(folder).open("wb")
    with history:
        dispatcher = Dispatcher(
            EmbeddedBackend(shape, wiring, board), Balancer(), 1, open_tallies(seconds_grid(4), 2, 4),
            recorder,
            in_flight=1_024, patience_ns=10**10, write=cast("Callable[[memoryview], None]", history.write),
            split=shape.split, hot=HotKeys(64, 1),
        )  # fmt: skip
        workload = Workload(
            Parties(64, 8, 1.05), Ticket(10_000, 1.0),
            Mix(payment=1.0, refund=1.0, authorize=1.0, after_ns=0, void_share=0.5), 1,
        )  # fmt: skip
        batch = np.zeros(_TRANSACTIONS, TRANSACTION)
        made = Source(Poisson(Rate.constant(1_000.0, 1.0), 1), workload).fill(batch)
        dispatcher.release(batch[:made], 10**9)
        outcomes = np.zeros(_TRANSACTIONS, OUTCOME)
        board.poison[:, 0] = threshold_of(0.1)
        for _ in range(8):
            rebalancer.act(0, may_begin=True)
            for node in nodes:
                node.turn()
            board.poison[:] = 0
            while count := dispatcher.backend.poll(outcomes):
                dispatcher.settle(outcomes[:count], 2 * 10**9)
        board.nodes["incarnation"] += 1
        board.nodes["state"] = NodeState.READY
        dispatcher.backend.poll(
            outcomes
        )  # this is where it sees that they came back; only then is there something to ask
        dispatcher.ask_again()
        dispatcher.give_up(10**9, Status.UNKNOWN, Reason.TIMEOUT)
        dispatcher.flush()
    recorder.finish()
    _one_that_waits(batch[:made])
    _through_a_door(nodes[0], board)
    for node in nodes:
        node.close()
    board.nodes["state"] = NodeState.READY
    Node(
        0, shape, wiring, board, folder=folder / "journal", durability=Durability.OS, interval_ns=0, run=1, movable=True
    ).close()  # fmt: skip
    wiring.close()
    lags = CreditLagSampler(_TRANSACTIONS, shape.shards, shape.split, HotKeys(64, 1))
    audit_run(folder, lags.look)
    lags.measured()


def _one_that_waits(batch: NDArray[np.void]) -> None:
    """A dispatcher that counts nothing as sent before the backend has taken it, and what counts who answered: as over HTTP."""
    recorder = Recorder(4, 1)
    dispatcher = Dispatcher(
        NoopBackend(1, 4), Balancer(), 1, open_tallies(seconds_grid(4), 1, 4), recorder,
        in_flight=1_024, patience_ns=10**10, write=lambda _: None, when_full=WhenFull.WAIT,
    )  # fmt: skip
    dispatcher.release(batch, 10**9)
    Answerers(1).note(b"-", 0, 1)
    _an_exchange(batch)


def _an_exchange(batch: NDArray[np.void]) -> None:
    """A request out and its answer in, by a pair of sockets: what the kernels of an HTTP run do."""
    program = program_of({Kind(kind): ([Field(Op.LENGTH)], [Field(Op.ID)]) for kind in Kind})
    exchange = Exchange(1, [program], Judge().table(), glance=True)
    here, there = socket.socketpair()
    with here, there:
        row = exchange.take(0)
        exchange.attach(row, here.fileno())
        exchange.rest(row)
        exchange.send(0, batch, 0, Times(0, 1, 0))
        there.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        exchange.read(0)
    exchange.take_answers(np.zeros(1, OUTCOME))
    exchange.close()


def _through_a_door(node: Node, board: Board) -> None:
    """A question of each kind, and its answer."""
    door = Door(2, 1_024)
    doors = Doors([door], 0, board.nodes[0])
    asked = np.zeros(2, QUESTION)
    asked["what"] = [Inquiry.ACCOUNT, Inquiry.TRANSACTION]
    door.questions[0].push(asked)
    doors.look_up(node.books)
    doors.hand_out(np.zeros(0, OUTCOME))
    door.answers[0].pop(np.zeros(2, ANSWER))
    door.bell.close()


if __name__ == "__main__":
    warm(print)
    warm_virtual(print)
