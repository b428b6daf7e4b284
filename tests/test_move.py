"""A shard that moves takes everything with it, whoever is killed at whatever step, and nothing overtakes anything."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.backend.embedded import EmbeddedBackend
from simulator.ledger import books as ledger_books
from simulator.ledger.books import Books, rows_of
from simulator.ledger.output import JOURNAL
from simulator.shard import worker
from simulator.shard.image import ImageError, image_path
from simulator.shard.journal import JournalReader, journal_path
from simulator.shard.layout import Board, Custody, Durability, Leg, MovePhase, MoveWord, NodeState, Shape
from simulator.shard.move import PARKED_MAX, Mover
from simulator.shard.rebalance import Order, Rebalancer
from simulator.shard.worker import Node, Wiring
from simulator.transaction import OUTCOME, TRANSACTION, Reason, Status
from simulator.workload.generator import Parties, Workload
from simulator.workload.life_cycle import Mix
from simulator.workload.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = Shape(nodes=3, shards=6, customers=200, merchants=20, opening_minor=60_000, remember=2_048)
QUEUE = 16_384


class Killed(Exception):  # noqa: N818  what happens to a node, not what is wrong
    """A node's process is gone."""


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


@pytest.fixture(autouse=True)
def _small_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_OUTBOX", 1 << 11)  # the nodes of these tests are made by the hundred


class Platform:
    """Three nodes in this process, turned by hand, and what a dispatcher and a pool do for them."""

    def __init__(self, folder: Path, durability: Durability = Durability.GROUP) -> None:
        self.folder = folder
        self.durability = durability
        self.board = Board(SHAPE)
        self.wiring = Wiring(SHAPE.nodes, QUEUE)
        self.backend = EmbeddedBackend(SHAPE, self.wiring, self.board)
        self.nodes = [self.start(n) for n in range(SHAPE.nodes)]
        self.rebalancer = Rebalancer(self.board, self.wiring, [])
        self.asked: dict[int, tuple[int, Any]] = {}  # by id: where it entered, what it was
        self.again: set[int] = set()  # ids that were asked about a second time
        self.answers: dict[int, tuple[int, int, int]] = {}
        self.events: list[dict[str, Any]] = []

    def start(self, number: int) -> Node:
        node = Node(
            number, SHAPE, self.wiring, self.board, folder=self.folder, durability=self.durability, interval_ns=0, run=1,
            movable=True, snapshot_records=10**9,
        )  # fmt: skip
        node.interval_ns = 0  # `os` too syncs each turn, or these tests would wait for its far legs
        self.board.nodes["state"][number] = NodeState.READY
        return node

    def offer(self, entry: int, batch: NDArray[np.void]) -> None:
        assert self.backend.offer(entry, batch) == len(batch)
        self.asked.update({int(m["id"]): (entry, m) for m in batch.copy()})

    def order(self, *moves: tuple[int, int]) -> None:
        """Asks for these moves, one after the other."""
        self.rebalancer.orders += [Order(0, shard, to) for shard, to in moves]

    def mover(self, number: int) -> Mover:
        mover = self.nodes[number].mover
        assert mover is not None
        return mover

    def turn(self, number: int) -> bool:
        return self.nodes[number].turn()

    def look(self) -> None:
        self.events += self.rebalancer.act(self.nodes[0].now_ns(), may_begin=True)
        outcomes = np.zeros(1_024, OUTCOME)
        while count := self.backend.poll(outcomes):
            for o in outcomes[:count]:
                self.answers.setdefault(int(o["id"]), (int(o["status"]), int(o["reason"]), int(o["lsn"])))

    def settle(self) -> None:
        """Turns until nobody owes anything and every move is made."""
        for _ in range(2_000):
            moved = [self.turn(n) for n in range(SHAPE.nodes)]
            self.look()
            idle = not self.rebalancer.busy and not self.rebalancer.orders
            if idle and not any(moved) and not any(node.owes() for node in self.nodes):
                return
        raise AssertionError("it does not come to rest")

    def kill(self, number: int, *, second_reading: bool = False) -> None:
        """What the pool and the dispatcher do when a node was killed: its memory is gone, rings, board and journals stay."""
        self.board.nodes["incarnation"][number] += 1
        if second_reading:
            # As if its peers were coming back too: what they know stands on the board only after it has read its journal.
            self.board.nodes["state"] = NodeState.RECOVERED
        self.end(number)
        self.nodes[number] = self.start(number)
        self.board.nodes["state"] = NodeState.READY
        self.ask_again()

    def end(self, number: int) -> None:
        """What the kernel does for a process that was killed: its journal is closed as it stands, unsynced."""
        os.close(self.nodes[number].journal.fileno())
        self.nodes[number].guard.close()

    def lose_power(self) -> None:
        """Every node is killed, and what was not synced is gone. All come back together, so all read their journals twice."""
        for number in range(SHAPE.nodes):
            path = journal_path(self.folder, number)
            synced = int(self.board.nodes["synced_bytes"][number])
            path.write_bytes(path.read_bytes()[:synced])
        self.board.nodes["incarnation"] += 1
        for number in range(SHAPE.nodes):
            self.board.nodes["state"] = NodeState.RECOVERED
            self.end(number)
            self.nodes[number] = self.start(number)
        self.board.nodes["state"] = NodeState.READY
        self.ask_again()

    def ask_again(self) -> None:
        """As the dispatcher does: what entered at the node, is decided there, or was asked about before."""
        self.look()
        for number in self.backend.returned():
            for key, (entry, m) in self.asked.items():
                owner = int(self.board.owners[int(m["payer"]) % SHAPE.shards])
                if key not in self.answers and (number in (entry, owner) or key in self.again):
                    self.again.add(key)
                    assert self.backend.offer(owner, m.reshape(1)) == 1
        assert self.backend.returned() == []

    def close(self) -> None:
        """In order, with closing sheets."""
        for node in self.nodes:
            node.close()
        self.wiring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """As if every process of it were killed: nothing stays open."""
        for number in range(SHAPE.nodes):
            self.end(number)
        self.wiring.close()

    # What must hold.

    def records(self, number: int) -> NDArray[np.void]:
        return np.concatenate([r for _, r in JournalReader(journal_path(self.folder, number))])

    def check(self) -> None:
        """Each shard has one owner, money is all there, every transaction was answered and its legs booked once."""
        owners = np.array([[node.books.place[s] >= 0 for s in range(SHAPE.shards)] for node in self.nodes])
        assert (owners.sum(axis=0) == 1).all()
        assert (owners.argmax(axis=0) == self.board.owners).all()
        held = 0
        sent, arrived = np.zeros((2, SHAPE.shards, SHAPE.shards), np.int64)
        for s in range(SHAPE.shards):
            books = self.nodes[int(self.board.owners[s])].books
            held += int(books.accounts[rows_of(books, s)].sum())
            sent[s], arrived[s] = books.transit_out[s], books.transit_in[s]
            assert (books.accounts[rows_of(books, s)] >= 0).all()
        assert (sent == arrived.T).all()
        assert sent.any()
        assert held == SHAPE.customers * SHAPE.opening_minor
        assert self.answers.keys() == self.asked.keys()
        if self.durability == Durability.MEMORY:
            return
        records = np.concatenate([self.records(n) for n in range(SHAPE.nodes)])
        records = records[records["leg"] < Custody.MOVE_OUT]
        legs = Counter(zip(records["id"].tolist(), records["leg"].tolist(), strict=True))
        assert set(legs.values()) == {1}
        for s in range(SHAPE.shards):
            lsns = np.sort(records["lsn"][records["shard"] == s])
            assert (lsns == np.arange(1, len(lsns) + 1)).all()
        for key, (status, _, _) in self.answers.items():
            found = sorted(leg for leg in Leg if (key, leg) in legs and leg != Leg.EXPIRE)
            lawful = [[Leg.TRANSFER], [Leg.DEBIT, Leg.CREDIT], [Leg.RESERVE], [Leg.RELEASE]]
            assert found in (lawful if status == Status.OK else [[], [Leg.NONE]])

    def check_order(self) -> None:
        """For each key and entry node, positions rise in the order of entry."""
        last: dict[tuple[int, int], int] = {}
        for key, (entry, m) in self.asked.items():
            lsn = self.answers[key][2]
            if lsn:
                at = (entry, int(m["payer"]))
                assert last.get(at, 0) < lsn, key
                last[at] = lsn


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path) as made:
        yield made


def transactions(count: int, seed: int = 3) -> NDArray[np.void]:
    """A mix of every kind; many of them without the money for it."""
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(1, count + 1)
    batch["intended_ns"] = np.arange(count)
    mix = Mix(payment=4.0, refund=1.0, authorize=3.0, after_ns=5, void_share=0.4)
    Workload(Parties(SHAPE.customers, SHAPE.merchants, 1.0), Ticket(10_000, 1.0), mix, seed).fill(batch)
    return batch


def scatter(platform: Platform, batch: NDArray[np.void]) -> None:
    """Every third of a batch enters at another node."""
    for entry, part in enumerate(np.array_split(batch, SHAPE.nodes)):
        platform.offer(entry, part)


def books_of(node: Node) -> dict[str, Any]:
    """What a restart must restore of the owned shards: all but the terms of holds, which start anew."""
    found: dict[str, Any] = {}
    for s in np.flatnonzero(node.books.place >= 0).tolist():
        place = int(node.books.place[s])
        found[f"accounts {s}"] = node.books.accounts[rows_of(node.books, s)].copy()
        for name in ("lsn", "holds", "transit_out", "transit_in", "sequence_out", "sequence_in"):
            found[f"{name} {s}"] = getattr(node.books, name)[s].copy()
        for name in ("slots", "used", "current", "carried"):
            found[f"{name} {s}"] = getattr(node.books, name)[place].copy()
        for g in range(2):
            found[f"entries {s} {g}"] = node.books.entries[place, g, : node.books.used[place, g]].copy()
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] == value).all(), name


# Moves without trouble.


@pytest.mark.parametrize("durability", Durability)
def test_a_shard_moves_under_load_and_everything_is_there_and_in_order(tmp_path: Path, durability: Durability) -> None:
    platform = Platform(tmp_path, durability)
    batch = transactions(6_000)
    platform.order((0, 1), (3, 1), (1, 2), (0, 2), (0, 0), (5, 0))
    for part in np.array_split(batch, 60):
        scatter(platform, part)
        for n in range(SHAPE.nodes):
            platform.turn(n)
        platform.look()
    platform.settle()
    platform.check()
    platform.check_order()
    assert platform.board.owners.tolist() == [0, 2, 2, 1, 1, 0]
    assert len({reason for _, reason, _ in platform.answers.values()}) >= 3  # not everything was ok
    platform.close()


def test_the_owner_that_lost_a_shard_keeps_no_books_of_it(platform: Platform) -> None:
    scatter(platform, transactions(600))
    platform.settle()
    platform.order((0, 1))
    platform.settle()
    books = platform.nodes[0].books
    assert not books.accounts[rows_of(books, 0)].any()
    assert not books.entries[0].view(np.uint8).any()
    assert not books.slots[0].any()
    assert platform.nodes[1].books.accounts[rows_of(books, 0)].any()


def test_a_repeated_id_gets_its_first_answer_from_the_new_owner(platform: Platform) -> None:
    batch = transactions(600)
    scatter(platform, batch)
    platform.settle()
    told = dict(platform.answers)
    platform.order((0, 1), (3, 2))
    platform.settle()
    platform.answers.clear()
    scatter(platform, batch)
    platform.settle()
    assert platform.answers == told


def test_books_that_were_handed_over_are_the_same_field_by_field(platform: Platform) -> None:
    scatter(platform, transactions(3_000))
    platform.settle()
    before = books_of(platform.nodes[0])
    platform.order((0, 1))
    platform.settle()
    after = books_of(platform.nodes[1])
    assert_same(
        {k: v for k, v in after.items() if k.split()[1] == "0"},
        {k: v for k, v in before.items() if k.split()[1] == "0"},
    )


def test_a_move_is_reported_with_its_pause_its_keys_and_its_size(platform: Platform) -> None:
    scatter(platform, transactions(300))
    platform.order((4, 0))
    platform.settle()
    (move,) = platform.rebalancer.summary()["moves"]
    assert (move["shard"], move["from"], move["to"]) == (4, 1, 0)
    assert move["keys_moved"] == SHAPE.rows(4)
    assert move["bytes"] == image_path(platform.folder, 1).stat().st_size
    assert 0 < move["pause_ms"] <= move["took_ms"]
    assert [e["event"] for e in platform.events] == ["move_requested", "move_frozen", "move_taken", "move_switched"]
    assert sorted(e["t_s"] for e in platform.events) == [e["t_s"] for e in platform.events]


def test_what_is_parked_beyond_the_bound_is_refused_and_the_rest_comes_in_order(platform: Platform) -> None:
    # All for shard 0, all entering at node 2, while the old owner stands still.
    batch = np.zeros(PARKED_MAX + 1_000, TRANSACTION)
    batch["id"] = np.arange(1, len(batch) + 1)
    batch["kind"], batch["amount_minor"] = 1, 1
    batch["payer"], batch["payee"] = np.arange(len(batch)) % 30 * SHAPE.shards, 1
    platform.order((0, 1))
    platform.look()
    platform.turn(2)
    platform.offer(2, batch)
    for _ in range(6):
        platform.turn(2)
    assert int(platform.nodes[2].handed_on_count[SHAPE.nodes]) == PARKED_MAX
    platform.settle()
    platform.check_order()
    refused = [key for key, (_, reason, _) in platform.answers.items() if reason == Reason.OVERFLOW]
    assert refused == batch["id"][PARKED_MAX:].tolist()
    (move,) = platform.rebalancer.done
    assert (move["parked"], move["refused"]) == (PARKED_MAX, 1_000)


def test_the_old_owner_waits_for_what_was_handed_on_before_the_fence(platform: Platform) -> None:
    batch = transactions(300)
    platform.offer(2, batch)
    platform.turn(2)  # what is for others is in their rings now
    platform.order((0, 1))
    platform.look()
    platform.turn(1)
    assert not platform.mover(0).step()  # node 2 has set no fence yet
    platform.turn(2)
    assert not platform.mover(0).step()  # it has, but what lies before it was not taken
    platform.turn(0)
    assert platform.mover(0).step()
    platform.settle()
    platform.check()


def payments(first: int, count: int, near: int, far: int) -> NDArray[np.void]:
    """Payments of 1 fen from accounts of one shard to accounts of another."""
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(first, first + count)
    batch["kind"], batch["amount_minor"] = 1, 1
    batch["payer"], batch["payee"] = near + SHAPE.shards * (np.arange(count) % 20), far
    return batch


def test_a_credit_that_reaches_the_old_owner_too_late_is_passed_over_there_and_booked_by_the_new_one(
    platform: Platform,
) -> None:
    sender, old = platform.nodes[2], platform.nodes[0]
    sender.durability, sender.interval_ns = Durability.OS, 10**15
    platform.offer(2, payments(1, 10, near=2, far=0))
    platform.turn(2)  # booked, but nothing may leave before it is synced
    platform.order((0, 1))
    platform.look()
    platform.turn(1)
    platform.turn(2)
    platform.turn(0)
    assert platform.board.move[MoveWord.PHASE] == MovePhase.FROZEN
    sender.interval_ns = 0
    platform.turn(2)
    assert len(platform.wiring.peers[2][0] or []) == 10
    before = int(old.marks[JOURNAL]), int(old.books.accounts.sum())
    old.take()
    assert (int(old.marks[JOURNAL]), int(old.books.accounts.sum())) == before
    platform.settle()
    platform.check()


def test_an_old_owner_that_was_restarted_waits_until_it_was_asked_again_for_what_it_had_lost(
    platform: Platform,
) -> None:
    platform.offer(2, payments(1, 50, near=0, far=2))
    platform.turn(2)
    platform.order((0, 1))
    platform.look()
    platform.turn(1)
    platform.turn(2)
    platform.nodes[0].take()  # what node 2 handed on is booked in memory only, and its ring is empty
    platform.board.nodes["incarnation"][0] += 1
    platform.end(0)
    platform.nodes[0] = platform.start(0)
    platform.turn(0)
    assert platform.board.move[MoveWord.PHASE] == MovePhase.REQUESTED
    platform.ask_again()
    platform.settle()
    assert platform.board.owners[0] == 1
    platform.check()


def owed(node: Node, near: int, far: int) -> list[int]:
    """The numbers of what a node is still to deliver from one shard to another, in the outbox to its present owner."""
    row = int(node.books.owner[far])
    at = np.arange(node.outbox_forgotten[row], node.outbox_head[row]) & (node.outbox.shape[1] - 1)
    found = node.outbox[row, at]
    mine = (found["payer"] % SHAPE.shards == near) & (found["payee"] % SHAPE.shards == far)
    return [int(number) for number in found["sequence"][mine]]


@pytest.mark.parametrize("second_reading", [False, True])
def test_what_the_shard_itself_still_owed_goes_with_it_and_outlives_its_new_owner(
    platform: Platform, *, second_reading: bool
) -> None:
    platform.order((0, 1))
    platform.look()
    platform.turn(2)
    platform.offer(0, payments(1, 30, near=0, far=2))
    platform.turn(0)  # not every fence is set: it still books, and its far legs lie in node 2's ring
    platform.turn(1)
    platform.turn(0)
    platform.turn(1)
    assert platform.board.move[MoveWord.PHASE] == MovePhase.TAKEN
    assert owed(platform.nodes[1], 0, 2) == list(range(1, 31))
    platform.kill(1, second_reading=second_reading)
    assert owed(platform.nodes[1], 0, 2) == list(range(1, 31))
    platform.settle()
    assert owed(platform.nodes[1], 0, 2) == []
    platform.check()


@pytest.mark.parametrize("then", ["killed", "killed, peers too", "power loss"])
def test_an_owner_whose_shard_came_back_sends_nothing_again_that_arrived_before_it_left(
    platform: Platform, then: str
) -> None:
    platform.offer(0, payments(1, 30, near=0, far=2))
    platform.settle()
    platform.order((0, 1), (0, 0))
    platform.settle()
    platform.offer(0, payments(31, 5, near=0, far=2))
    platform.turn(0)  # durable and answered; node 2 has not taken them
    if then == "power loss":
        platform.lose_power()
    else:
        platform.kill(0, second_reading=then != "killed")
    assert owed(platform.nodes[0], 0, 2) == list(range(31, 36))
    platform.settle()
    platform.check()


def test_what_others_owe_to_a_shard_follows_it(platform: Platform) -> None:
    platform.offer(2, payments(1, 30, near=2, far=0))
    platform.turn(2)
    platform.order((0, 1))
    platform.look()
    platform.turn(1)
    platform.turn(2)
    platform.nodes[0].take()  # in memory only: not acknowledged
    platform.offer(2, payments(31, 30, near=2, far=0))
    platform.turn(2)
    assert owed(platform.nodes[2], 2, 0) == list(range(31, 61))  # parked
    platform.kill(0)
    platform.turn(0)
    assert platform.board.move[MoveWord.PHASE] == MovePhase.FROZEN
    platform.turn(1)
    platform.mover(2).step()
    assert owed(platform.nodes[2], 2, 0) == list(range(1, 61))
    platform.settle()
    platform.check()


def test_what_was_set_aside_is_booked_or_buried_before_its_shard_leaves(platform: Platform) -> None:
    # A far leg whose payee is no account: nothing about it will ever be right, and what comes behind it waits.
    bad = payments(1, 3, near=2, far=0)
    bad["payee"][1] = SHAPE.shards * 10**6
    scatter(platform, transactions(300))
    platform.settle()
    bad["message"], bad["sequence"] = 1, int(platform.nodes[0].books.sequence_in[0, 2]) + np.arange(1, 4)
    ring = platform.wiring.peers[2][0]
    assert ring is not None
    assert ring.push(bad) == 3
    platform.turn(0)
    assert len(platform.nodes[0].guard.aside) == 2
    platform.order((0, 1))
    platform.settle()
    assert platform.board.owners[0] == 1
    records = platform.records(0)
    assert [int(r["leg"]) for r in records if r["leg"] in (Leg.DEAD, Custody.MOVE_OUT)] == [Leg.DEAD, Custody.MOVE_OUT]
    assert int(platform.nodes[1].books.sequence_in[0, 2]) == int(bad["sequence"][2])


def test_a_damaged_image_is_never_taken_over(platform: Platform) -> None:
    scatter(platform, transactions(300))
    platform.settle()
    platform.order((0, 1))
    platform.look()
    for n in (2, 1, 0, 0):
        platform.turn(n)
    assert platform.board.move[MoveWord.PHASE] == MovePhase.FROZEN
    path = image_path(platform.folder, 1)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ImageError, match=r"move-1\.image: damaged"):
        platform.turn(1)


# Whoever is killed.

STEPS = {
    "_write_image": "source", "_log_out": "source", "_leave": "source", "_say_frozen": "source",
    "_log_in": "target", "_claim_what_is_owed": "target", "_settle_between_own": "target", "_say_taken": "target",
    "_park": "bystander", "_switch": "bystander", "_send_on_what_we_owe": "bystander",
}  # fmt: skip
ROLES = {"source": 0, "target": 1, "bystander": 2}


def killed_at(step: str, when: str) -> Callable[..., Any]:
    """A step that ends its process right before it, or right after."""

    def run(original: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401  whatever the step takes
        if when == "after":
            original(*args, **options)
        raise Killed(step)

    return run


@pytest.mark.parametrize("then", ["killed", "killed, peers too", "power loss"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_node_that_is_killed_at_a_step_of_a_move_loses_nothing(
    platform: Platform, step: str, when: str, then: str
) -> None:
    victim = ROLES[STEPS[step]]
    batch = transactions(1_200)
    parts = iter(np.array_split(batch, 12))
    for _ in range(4):
        scatter(platform, next(parts))
        for n in range(SHAPE.nodes):
            platform.turn(n)
    platform.order((0, 1))
    mover = platform.mover(victim)
    original = getattr(mover, step)
    setattr(mover, step, lambda *a, **o: killed_at(step, when)(original, *a, **o))
    struck = False
    for part in parts:
        scatter(platform, part)
        for n in (2, 0, 1):
            try:
                platform.turn(n)
            except Killed:
                assert (n, struck) == (victim, False)
                struck = True
                if then == "power loss":
                    platform.lose_power()
                else:
                    platform.kill(victim, second_reading=then != "killed")
        platform.look()
    platform.settle()
    assert struck
    platform.check()
    assert platform.board.owners[0] == 1
    before = [books_of(node) for node in platform.nodes]
    for n in range(SHAPE.nodes):  # and the journals alone tell the same, images and all
        platform.kill(n)
        assert_same(books_of(platform.nodes[n]), before[n])
    platform.settle()
    platform.check()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_course_of_turns_and_moves_keeps_the_order_of_each_key(
    folders: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with Platform(folders.mktemp("run"), Durability.OS) as platform:
        batch = transactions(900, seed=data.draw(st.integers(0, 1_000)))
        parts = np.array_split(batch, 45)
        moves = data.draw(st.lists(st.tuples(st.integers(0, SHAPE.shards - 1), st.integers(1, 2)), max_size=6))
        owners = SHAPE.owners()
        for shard, step in moves:
            owners[shard] = (owners[shard] + step) % SHAPE.nodes
            platform.order((shard, int(owners[shard])))
        for part in parts:
            for action in data.draw(st.lists(st.sampled_from(["turn 0", "turn 1", "turn 2", "look"]), max_size=5)):
                platform.look() if action == "look" else platform.turn(int(action[-1]))
            platform.offer(data.draw(st.integers(0, 2)), part)
        platform.settle()
        platform.check()
        platform.check_order()
        assert (platform.board.owners == owners).all()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_course_of_turns_moves_and_kills_books_everything_once(
    folders: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with Platform(folders.mktemp("run"), Durability.GROUP) as platform:
        batch = transactions(900, seed=data.draw(st.integers(0, 1_000)))
        owners = SHAPE.owners()
        moves = []
        for shard, step in data.draw(
            st.lists(
                st.tuples(st.integers(0, 2), st.integers(1, 2)), min_size=2, max_size=6
            )  # few, so that some come back
        ):
            owners[shard] = (owners[shard] + step) % SHAPE.nodes
            moves.append((shard, int(owners[shard])))
        actions = st.lists(
            st.sampled_from(
                [
                    "turn 0",
                    "turn 1",
                    "turn 2",
                    "look",
                    "take 0",
                    "take 1",
                    "take 2",
                    "kill 0",
                    "kill 1",
                    "kill 2",
                    "power",
                    "move",
                    "rest",
                ]
            ),
            max_size=6,
        )
        for part in np.array_split(batch, 30):
            for action in data.draw(actions):
                match action.split():
                    case ["turn", n]:
                        platform.turn(int(n))
                    case ["take", n]:
                        platform.nodes[int(n)].take()  # booked in memory only
                    case ["kill", n]:
                        platform.kill(int(n), second_reading=data.draw(st.booleans()))
                    case ["power"]:
                        platform.lose_power()
                    case ["move"]:
                        platform.order(*moves[:1])
                        del moves[:1]
                    case ["rest"]:
                        platform.settle()
                    case _:
                        platform.look()
            platform.offer(data.draw(st.integers(0, 2)), part)
        platform.order(*moves)
        platform.settle()
        platform.check()
        assert (platform.board.owners == owners).all()


def wait_for_snapshots(platform: Platform) -> None:
    for node in platform.nodes:
        node.snapshot_records = 10**9
        if node.snapshot_pid:
            assert os.waitpid(node.snapshot_pid, 0)[1] == 0
            node.snapshot_pid = 0


def test_a_snapshot_from_before_a_move_and_one_from_after_it_both_serve(platform: Platform) -> None:
    parts = np.array_split(transactions(3_000), 30)
    for number, part in enumerate(parts):
        scatter(platform, part)
        if number == 10:
            platform.order((0, 1), (1, 2))
        if number in (5, 20):
            for node in platform.nodes:
                node.snapshot_records, node.since_snapshot = 1, max(node.since_snapshot, 1)
        for n in range(SHAPE.nodes):
            platform.turn(n)
        platform.look()
        wait_for_snapshots(platform)
        for n in range(SHAPE.nodes) if number in (8, 15, 25) else ():
            platform.kill(n, second_reading=number == 15)
    platform.settle()
    platform.check()
    before = [books_of(node) for node in platform.nodes]
    for n in range(SHAPE.nodes):
        platform.kill(n)
        assert_same(books_of(platform.nodes[n]), before[n])


def test_every_field_of_the_books_is_either_handed_over_or_the_nodes_own() -> None:
    by = ledger_books
    named = [*by.BY_ACCOUNT, *by.BY_SHARD, *by.BY_PLACE, *by.OF_THE_NODE]
    assert sorted(named) == sorted(Books._fields)
