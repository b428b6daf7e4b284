"""A node that was killed comes back with every book as it was, and a run with kills or power losses ends clean."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process

from simulator.backend.embedded import EmbeddedBackend
from simulator.ledger.books import Books
from simulator.ledger.output import GAPS, REFUSED
from simulator.shard.journal import JournalError, JournalReader, journal_path
from simulator.shard.layout import FILE_HEADER, Board, Durability, NodeState, Shape
from simulator.shard.ring import TAIL
from simulator.shard.snapshot import snapshot_path, synced_bytes
from simulator.shard.worker import Node, Wiring
from simulator.transaction import OUTCOME, TRANSACTION
from simulator.workload.generator import Parties, Workload
from simulator.workload.life_cycle import Mix
from simulator.workload.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = Shape(nodes=2, shards=5, customers=200, merchants=20, opening_minor=60_000, remember=128)
# Not in the journal: the term of a hold starts anew, and the time is the clock's.
OF_THE_PRESENT = {"now_ns", "hold_ids", "hold_made_ns", "hold_ends"}


class Platform:
    """Two nodes in this process, turned by hand."""

    def __init__(self, folder: Path, snapshot_records: int = 10**9, shape: Shape = SHAPE) -> None:
        self.folder = folder
        self.shape = shape
        self.snapshot_records = snapshot_records
        self.board = Board(shape)
        self.wiring = Wiring(SHAPE.nodes, 1_024)
        self.backend = EmbeddedBackend(shape, self.wiring, self.board)
        self.nodes = [self.start(n) for n in range(SHAPE.nodes)]
        self.answers: dict[int, tuple[int, int, int]] = {}

    def start(self, number: int) -> Node:
        node = Node(
            number, self.shape, self.wiring, self.board, folder=self.folder, durability=Durability.OS, interval_ns=0, run=1,
            snapshot_records=self.snapshot_records,
        )  # fmt: skip
        self.board.nodes["state"][number] = NodeState.READY
        return node

    def restart(self, number: int) -> None:
        """What the pool does when a node was killed: its memory is gone, rings and journal stay."""
        self.board.nodes["incarnation"][number] += 1
        self.end(number)
        self.nodes[number] = self.start(number)

    def end(self, number: int) -> None:
        """What the kernel does for a process that was killed: its journal is closed as it stands, unsynced."""
        os.close(self.nodes[number].journal.fileno())

    def offer(self, batch: NDArray[np.void]) -> None:
        owners = SHAPE.owners()[batch["payer"] % SHAPE.shards]
        for node in range(SHAPE.nodes):
            assert self.backend.offer(node, batch[owners == node]) == int((owners == node).sum())

    def settle(self) -> None:
        """Turns until nobody owes anything, and takes the answers."""
        outcomes = np.zeros(1_024, OUTCOME)
        while True:
            moved = [node.turn() for node in self.nodes]
            while count := self.backend.poll(outcomes):
                for o in outcomes[:count]:
                    self.answers[int(o["id"])] = (int(o["status"]), int(o["reason"]), int(o["lsn"]))
            if not any(moved) and not any(node.owes() for node in self.nodes):
                return

    def transit_is_level(self) -> bool:
        sent = np.sum([node.books.transit_out for node in self.nodes], axis=0)
        arrived = np.sum([node.books.transit_in for node in self.nodes], axis=0)
        return bool(sent.any() and (sent == arrived.T).all())

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.wiring.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    yield made
    made.close()


def transactions(count: int, seed: int = 3) -> NDArray[np.void]:
    """A mix of every kind; many of them without the money for it."""
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(1, count + 1)
    batch["intended_ns"] = np.arange(count)
    mix = Mix(payment=4.0, refund=1.0, authorize=3.0, after_ns=5, void_share=0.4)
    Workload(Parties(SHAPE.customers, SHAPE.merchants, 1.0), Ticket(10_000, 1.0), mix, seed).fill(batch)
    return batch


def books_of(node: Node) -> dict[str, Any]:
    return {name: np.copy(getattr(node.books, name)) for name in Books._fields if name not in OF_THE_PRESENT}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if name == "entries":
            continue
        assert (found[name] == value).all(), name
    # What lies beyond the entries in use is whatever was there before.
    for place, generation in np.ndindex(*expected["used"].shape):
        used = int(expected["used"][place, generation])
        rows = (found["entries"][place, generation, :used], expected["entries"][place, generation, :used])
        assert (rows[0] == rows[1]).all(), (place, generation)


def test_restored_books_equal_the_ones_that_were_booked_field_by_field(platform: Platform) -> None:
    batch = transactions(4_000)
    for part in np.split(batch, 16):
        platform.offer(part)
        platform.settle()
    assert len({reason for _, reason, _ in platform.answers.values()}) >= 3  # not everything was ok
    before = [books_of(node) for node in platform.nodes]
    for number in range(SHAPE.nodes):
        platform.restart(number)
        assert_same(books_of(platform.nodes[number]), before[number])
    platform.settle()
    for number in range(SHAPE.nodes):
        assert_same(books_of(platform.nodes[number]), before[number])


def test_who_asks_again_after_a_restart_is_told_the_same(platform: Platform) -> None:
    batch = transactions(600)
    platform.offer(batch)
    platform.settle()
    told = dict(platform.answers)
    recent = batch[-100:]
    platform.answers.clear()
    for number in range(SHAPE.nodes):
        platform.restart(number)
    platform.offer(recent)
    platform.settle()
    assert platform.answers == {key: told[key] for key in recent["id"].tolist()}


def test_what_a_node_had_taken_but_not_committed_is_gone_and_may_be_asked_again(platform: Platform) -> None:
    batch = transactions(200)
    platform.offer(batch)
    taken = platform.nodes[0]
    taken.take()  # booked in memory only; the ring no longer has it
    assert int(platform.wiring.requests[0].cursors[TAIL]) > 0
    platform.restart(0)
    platform.settle()
    owners = SHAPE.owners()[batch["payer"] % SHAPE.shards]
    assert platform.answers.keys() == set(batch["id"][owners == 1].tolist())
    platform.offer(batch[owners == 0])
    platform.settle()
    assert len(platform.answers) == 200
    assert platform.transit_is_level()


def test_far_legs_that_a_dead_peer_had_not_made_durable_are_sent_again_and_booked_once(platform: Platform) -> None:
    batch = transactions(400)
    platform.offer(batch)
    platform.nodes[0].turn()  # its far legs are in node 1's ring now
    platform.nodes[1].take()  # and booked there, in memory only
    platform.restart(1)
    platform.offer(batch[SHAPE.owners()[batch["payer"] % SHAPE.shards] == 1])
    platform.settle()
    assert platform.transit_is_level()
    held = sum(int(node.books.accounts.sum()) for node in platform.nodes)
    assert held == SHAPE.customers * SHAPE.opening_minor


def with_snapshots(platform: Platform) -> None:
    """Both nodes write one in the middle of what they book, and are waited for."""
    for node in platform.nodes:
        node.snapshot_records = 500
    for part in np.split(transactions(4_000), 16):
        platform.offer(part)
        platform.settle()
        for node in platform.nodes:
            if node.snapshot_pid:
                assert os.waitpid(node.snapshot_pid, 0)[1] == 0
                node.snapshot_pid = 0
                node.snapshot_records = 10**9
    for node in platform.nodes:
        assert snapshot_path(platform.folder, node.node).exists()


def test_a_restart_replays_only_what_came_after_the_snapshot_and_knows_everything(platform: Platform) -> None:
    with_snapshots(platform)
    for number, node in enumerate(platform.nodes):
        before = books_of(node)
        booked = int(node.row["records"])
        platform.restart(number)
        assert_same(books_of(platform.nodes[number]), before)
        assert 0 < int(platform.board.nodes["replayed"][number]) < booked
    platform.settle()
    assert platform.transit_is_level()


def test_far_legs_older_than_the_snapshot_are_sent_again_too(platform: Platform) -> None:
    near, far = platform.nodes
    platform.offer(transactions(400))
    near.turn()
    near.snapshot_records = 0
    near.since_snapshot = 1
    near.turn()  # its far legs are not acknowledged: they are in the snapshot
    assert os.waitpid(near.snapshot_pid, 0)[1] == 0
    far.take()
    platform.restart(1)
    platform.restart(0)
    platform.nodes[0].snapshot_records = 10**9
    platform.settle()
    platform.offer(transactions(400))
    platform.settle()
    assert platform.transit_is_level()


@pytest.mark.parametrize("harm", ["damaged", "newer than the journal", "cut short", "another's"])
def test_a_snapshot_that_is_not_whole_or_does_not_fit_is_passed_over(platform: Platform, harm: str) -> None:
    with_snapshots(platform)
    before = books_of(platform.nodes[0])
    path = snapshot_path(platform.folder, 0)
    raw = bytearray(path.read_bytes())
    match harm:
        case "damaged":
            raw[len(raw) // 2] ^= 1
        case "newer than the journal":
            journal = journal_path(platform.folder, 0)
            whole = journal.read_bytes()
            with_fewer = list(JournalReader(journal))[:2]
            size = FILE_HEADER.itemsize + sum(32 + records.nbytes for _, records in with_fewer)
            journal.write_bytes(whole[:size])
            before = {}
        case "cut short":
            raw = raw[: len(raw) // 2]
        case _:
            raw = bytearray(snapshot_path(platform.folder, 1).read_bytes())
    path.write_bytes(raw)
    platform.board.nodes["replayed"] = 0
    platform.restart(0)
    if before:
        assert_same(books_of(platform.nodes[0]), before)
    replayed = sum(len(records) for _, records in JournalReader(journal_path(platform.folder, 0)))
    assert int(platform.board.nodes["replayed"][0]) == replayed


def test_a_snapshot_newer_than_the_journal_is_taken_away_before_the_journal_grows_past_it(platform: Platform) -> None:
    with_snapshots(platform)
    os.truncate(journal_path(platform.folder, 0), FILE_HEADER.itemsize)
    platform.restart(0)
    assert not snapshot_path(platform.folder, 0).exists()


def test_a_snapshot_of_a_course_of_things_that_a_power_loss_took_is_never_built_upon(platform: Platform) -> None:
    with_snapshots(platform)
    paths = [snapshot_path(platform.folder, n) for n in range(2)]
    journals = [journal_path(platform.folder, n) for n in range(2)]
    lost = [(path.read_bytes(), journal.stat().st_size) for path, journal in zip(paths, journals, strict=True)]
    assert all(synced_bytes(path, journal) > 0 for path, journal in zip(paths, journals, strict=True))
    for number, journal in enumerate(journals):
        os.truncate(journal, FILE_HEADER.itemsize)
        platform.restart(number)
    for part in np.split(transactions(6_000, seed=4), 16):
        platform.offer(part)
        platform.settle()
    for number, (raw, size) in enumerate(lost):
        assert journals[number].stat().st_size > size
        paths[number].write_bytes(raw)  # its writer was in the middle of it when the power went
        assert synced_bytes(paths[number], journals[number]) == 0
        before = books_of(platform.nodes[number])
        platform.restart(number)
        assert_same(books_of(platform.nodes[number]), before)
        assert not paths[number].exists()


def test_a_power_loss_leaves_nothing_in_the_rings_of_the_nodes() -> None:
    wiring = Wiring(2, 64, doors=1)
    rings = [*wiring.from_clients, *(ring for row in wiring.peers for ring in row if ring is not None)]
    for ring in rings:
        ring.push(np.zeros(5, TRANSACTION))
    for ring in wiring.replies:
        ring.push(np.zeros(5, OUTCOME))
    wiring.lose()
    assert [len(ring) for ring in (*rings, *wiring.replies)] == [0] * 8
    assert rings[0].push(np.zeros(64, TRANSACTION)) == 64
    wiring.close()


def test_what_a_node_has_counted_on_the_board_stays_when_it_is_started_again(platform: Platform) -> None:
    row = platform.board.nodes[0]
    for number in (3, 4):
        platform.nodes[0].marks[REFUSED] += number
        platform.nodes[0].marks[GAPS] += 1
        platform.nodes[0].publish()
        platform.nodes[0].publish()
        platform.restart(0)
        platform.nodes[0].publish()
    assert (int(row["refused"]), int(row["sequence_gaps"]), int(row["alarms"])) == (7, 2, 0)


def test_a_torn_tail_is_cut_off_and_the_rest_restored(platform: Platform) -> None:
    platform.offer(transactions(300))
    platform.settle()
    before = books_of(platform.nodes[0])
    path = journal_path(platform.folder, 0)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"half a frame, as a crash leaves it")
    platform.restart(0)
    assert path.stat().st_size == size
    assert_same(books_of(platform.nodes[0]), before)


def test_a_journal_damaged_in_the_middle_keeps_its_node_from_starting_and_says_where(platform: Platform) -> None:
    for part in np.split(transactions(400), 4):
        platform.offer(part)
        platform.settle()
    path = journal_path(platform.folder, 0)
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    with pytest.raises(JournalError, match=r"damaged at byte 80, in frame 1"):
        platform.start(0)


def test_a_journal_of_other_shards_is_refused(platform: Platform) -> None:
    platform.offer(transactions(300))
    platform.settle()
    journal_path(platform.folder, 0).write_bytes(journal_path(platform.folder, 1).read_bytes())
    with pytest.raises(JournalError, match="do not follow from those before them"):
        platform.start(0)


def events_of(ended: sim_process.Ended, name: str) -> list[dict[str, Any]]:
    lines = (ended.folder / "events.jsonl").read_text("utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def assert_nothing_is_missing(ended: sim_process.Ended) -> None:
    summary = ended.summary
    assert sim_process.CLEAN.items() <= summary["audit"].items()
    assert summary["counts"]["unknown"] == summary["counts"]["failed"] == summary["counts"]["dropped"] == 0
    assert summary["counts"]["ok"] > 0.9 * summary["counts"]["offered"]


def test_twenty_random_kills_lose_nothing_and_apply_nothing_twice(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run",
        "--quiet",
        *sim_process.settings(
            "duration=11s", "load.rate=20000/s", "load.accounts=20000", "backend.embedded.remember=131072",
            'faults=[{at: 500ms, fault: kill, target: "node[*]", every: 500ms, times: 20, spread: random}]',
        ),
    )  # fmt: skip
    assert_nothing_is_missing(ended)
    kills = [event["pid"] for event in events_of(ended, "fault")]
    died = [event["pid"] for event in events_of(ended, "node_died")]
    assert len(kills) == 20
    # Two kills may fall into one life; whoever was hit died, and for each death a node came back.
    assert set(kills) == set(died)
    assert len(events_of(ended, "node_restarted")) == len(died)
    assert all(event["recovery_s"] > 0 for event in events_of(ended, "node_ready"))


@pytest.mark.parametrize("durability", ["group"])
def test_power_losses_lose_nothing_that_was_acknowledged_as_synced(tmp_path: Path, durability: str) -> None:
    ended = sim_process.run(
        tmp_path / "run",
        "--quiet",
        *sim_process.settings(
            "duration=5s", "load.rate=20000/s", "load.accounts=20000", f"backend.embedded.durability={durability}",
            "backend.embedded.remember=131072", "faults=[{at: 1s, fault: power_loss, every: 1s, times: 3}]",
        ),
    )  # fmt: skip
    assert_nothing_is_missing(ended)
    cuts = events_of(ended, "fault")
    assert len(cuts) == 6
    assert all(cut["synced_bytes"] <= cut["kept_bytes"] <= cut["written_bytes"] for cut in cuts)


def test_a_paused_node_goes_on_and_its_transactions_waited(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run",
        "--quiet",
        *sim_process.settings('faults=[{at: 500ms, fault: pause, target: "node[0]", for: 700ms}]'),
    )
    assert_nothing_is_missing(ended)
    assert ended.summary["response_time_ms"]["max"] > 400


def test_a_dead_node_that_may_not_come_back_ends_the_run_and_is_named(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run",
        "--quiet",
        *sim_process.settings("backend.embedded.restarts=0", 'faults=[{at: 500ms, fault: kill, target: "node[1]"}]'),
    )
    assert ended.code == 1
    assert ended.summary["failure"] == "node 1 stopped: killed by signal 9"
    assert ended.summary["audit"]["anomalies"] == {}
