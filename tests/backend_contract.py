"""What every backend promises, as tests: a subclass gives a `backend` fixture, and pytest runs them all against it.

The fixture's backend has at least two shards, accounts 0 … 99 with more money than the tests move, and queues of `QUEUE`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.transaction import OUTCOME, TRANSACTION, Kind, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.backend.backend import Backend

QUEUE = 256  # slots of each queue towards the backend
AT_LAST_S = 30.0  # only how long a broken backend makes us wait; nothing is measured against it


def payments(first: int, count: int, slot: int = 0) -> NDArray[Any]:
    """Payments of 1 fen with ids first, first + 1, …, by customers in turn, slots counted down from a high number."""
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(first, first + count)
    batch["kind"] = Kind.PAYMENT
    batch["amount_minor"] = 1
    batch["payer"] = batch["id"] * 7 % 100
    batch["payee"] = (batch["payer"] + 1 + batch["id"] % 5) % 100
    batch["slot"] = 3_000_000_000 - batch["id"] + slot
    return batch


def answers(backend: Backend, count: int, room: int = 1_000) -> NDArray[Any]:
    """The next `count` answers in the order in which they come; fewer only if they do not come at last."""
    found = np.zeros(count, OUTCOME)
    buffer = np.zeros(room, OUTCOME)
    have = 0
    deadline = time.monotonic() + AT_LAST_S
    while have < count and time.monotonic() < deadline:
        most = min(room, count - have)
        got = backend.poll(buffer[:most])
        assert got <= most
        found[have : have + got] = buffer[:got]
        have += got
        if not got:
            backend.wait(AT_LAST_S)
    return found[:have]


def through(backend: Backend, batch: NDArray[Any], room: int = 1_000) -> NDArray[Any]:
    """Offers a batch to the nodes in turn, again and again what was not taken; returns all answers in order."""
    found: list[NDArray[Any]] = []
    sent = turn = 0
    while sent < len(batch):
        taken = backend.offer(turn % backend.nodes, batch[sent : sent + 100])
        turn += 1
        sent += taken
        found.append(answers(backend, taken, room))
        if len(found[-1]) < taken:
            break
    return np.concatenate(found)


def idle(backend: Backend) -> bool:
    """Whether a backend that owes nothing has nothing to say."""
    outcomes = np.zeros(8, OUTCOME)
    outcomes["id"] = 77
    return backend.poll(outcomes) == 0 and bool((outcomes["id"] == 77).all())


class BackendContract:
    """The promises of `simulator.backend.backend.Backend`."""

    def test_each_accepted_transaction_is_answered_once_with_its_id_and_slot(self, backend: Backend) -> None:
        batch = payments(1, 3_000)
        found = through(backend, batch)
        found = found[np.argsort(found["id"], kind="stable")]
        assert np.array_equal(found["id"], batch["id"])
        assert np.array_equal(found["slot"], batch["slot"])
        assert np.array_equal(found["shard"], batch["payer"] % len(backend.owners()))
        assert (found["status"] == Status.OK).all()
        assert (found["reason"] == 0).all()
        assert idle(backend)

    def test_answers_are_handed_out_in_whatever_portions_are_asked_for(self, backend: Backend) -> None:
        found = through(backend, payments(1, 250), room=3)
        assert sorted(found["id"].tolist()) == list(range(1, 251))
        assert idle(backend)

    def test_an_overfull_offer_takes_a_prefix_and_the_rest_is_never_answered(self, backend: Backend) -> None:
        batch = payments(1, 4 * QUEUE)
        taken = backend.offer(0, batch)
        assert 0 < taken < len(batch)
        found = answers(backend, taken)
        assert sorted(found["id"].tolist()) == list(range(1, taken + 1))
        # Had the rest got in, it would stand before these in the queues to each shard.
        behind = payments(10_001, 100)
        assert backend.offer(0, behind) == len(behind)
        assert sorted(answers(backend, len(behind))["id"].tolist()) == behind["id"].tolist()
        assert idle(backend)

    def test_an_offer_that_nobody_takes_up_fills_at_last_and_loses_nothing(self, backend: Backend) -> None:
        # Nothing is polled, so no room can come free for ever; whatever was taken up to then is still answered.
        taken: list[int] = []
        deadline = time.monotonic() + AT_LAST_S
        refused = 0
        while refused < 3 and time.monotonic() < deadline:
            rest = payments(len(taken) + 1, 300)
            got = backend.offer(0, rest)
            taken.extend(rest["id"][:got].tolist())
            refused = refused + 1 if got == 0 else 0
        assert refused == 3
        assert sorted(answers(backend, len(taken))["id"].tolist()) == taken
        assert idle(backend)

    def test_an_offer_of_nothing_takes_nothing(self, backend: Backend) -> None:
        assert backend.offer(0, payments(1, 0)) == 0
        assert idle(backend)

    def test_a_batch_is_the_callers_again_once_offered(self, backend: Backend) -> None:
        batch = payments(1, 100)
        before = batch.copy()
        assert backend.offer(0, batch) == 100
        assert np.array_equal(batch, before)
        batch["id"] = batch["slot"] = 9_999
        found = np.sort(answers(backend, 100), order="id")
        assert np.array_equal(found["id"], before["id"])
        assert np.array_equal(found["slot"], before["slot"])

    def test_polling_an_idle_backend_gives_nothing(self, backend: Backend) -> None:
        assert idle(backend)
        through(backend, payments(1, 10))
        assert idle(backend)
        assert backend.poll(np.zeros(0, OUTCOME)) == 0

    def test_a_backend_that_nothing_happened_to_has_no_nodes_that_came_back(self, backend: Backend) -> None:
        through(backend, payments(1, 200))
        assert backend.returned() == []

    def test_waiting_for_nothing_ends_when_the_time_is_over(self, backend: Backend) -> None:
        backend.wait(0.0)
        backend.wait(0.001)
        assert idle(backend)

    def test_log_positions_climb_strictly_in_each_shard_in_the_order_of_the_answers(self, backend: Backend) -> None:
        found = through(backend, payments(1, 2_000))
        shards = np.unique(found["shard"])
        assert len(shards) == len(backend.owners())
        for shard in shards:
            lsn = found["lsn"][found["shard"] == shard].astype(np.int64)
            assert lsn[0] > 0
            assert (np.diff(lsn) > 0).all()

    def test_every_shard_has_an_owner_among_the_nodes(self, backend: Backend) -> None:
        owners = backend.owners()
        assert owners.dtype == np.int64
        assert len(owners) >= 2
        assert set(owners.tolist()) <= set(range(backend.nodes))
