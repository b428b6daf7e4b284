"""An operation that cannot be booked is tried so often, then a dead letter; nobody else waits for it."""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import fake_run
import numpy as np
import pytest
import sim_process
from rich.console import Console

from simulator.audit.history import read_history
from simulator.backend.embedded import EmbeddedBackend
from simulator.fault.schedule import Fault, Poisoning, Schedule
from simulator.ledger.books import Books
from simulator.ledger.flaws import is_poisoned, threshold_of
from simulator.report import render
from simulator.report.terminal import summary_text
from simulator.scenario.model import Scenario
from simulator.scenario.plan import describe_fault
from simulator.shard.dead_letters import LOST_LINE, DeadLetters, dead_letters_path, letter
from simulator.shard.journal import JournalReader, journal_path
from simulator.shard.layout import Board, Durability, Leg, Message, NodeState, Shape
from simulator.shard.poison import PoisonRules
from simulator.shard.set_aside import NO_KEY, SetAside, Waiting, keys_of
from simulator.shard.worker import Node, Wiring
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = Shape(nodes=2, shards=4, customers=400, merchants=20, opening_minor=60_000, remember=2_048)
SHARE = 0.05
AT_ONCE = PoisonRules(tries=3, wait_ns=0, dead_letters=1_000)


class Platform:
    """Two nodes in this process, turned by hand."""

    def __init__(self, folder: Path, rules: PoisonRules = AT_ONCE) -> None:
        self.folder = folder
        self.rules = rules
        self.board = Board(SHAPE)
        self.wiring = Wiring(SHAPE.nodes, 1_024)
        self.backend = EmbeddedBackend(SHAPE, self.wiring, self.board)
        self.nodes = [self.start(n) for n in range(SHAPE.nodes)]
        self.answers: dict[int, tuple[int, int, int]] = {}

    def start(self, number: int) -> Node:
        node = Node(
            number, SHAPE, self.wiring, self.board, folder=self.folder, durability=Durability.GROUP, interval_ns=0, run=1,
            poison=self.rules,
        )  # fmt: skip
        self.board.nodes["state"][number] = NodeState.READY
        return node

    def restart(self, number: int) -> None:
        self.nodes[number].guard.close()
        os.close(self.nodes[number].journal.fileno())  # as the kernel does for a process that was killed
        self.board.nodes["incarnation"][number] += 1
        self.nodes[number] = self.start(number)

    def poison(self, near: float = 0.0, far: float = 0.0, heals_after: int = 0) -> None:
        self.board.poison[:] = threshold_of(near), threshold_of(far), heals_after

    def offer(self, batch: NDArray[np.void]) -> None:
        owners = SHAPE.owners()[batch["payer"] % SHAPE.shards]
        for node in range(SHAPE.nodes):
            mine = batch[owners == node]
            assert self.backend.offer(node, mine) == len(mine)

    def turn(self) -> list[bool]:
        moved = [node.turn() for node in self.nodes]
        outcomes = np.zeros(2_048, OUTCOME)
        while count := self.backend.poll(outcomes):
            for o in outcomes[:count]:
                self.answers[int(o["id"])] = (int(o["status"]), int(o["reason"]), int(o["lsn"]))
        return moved

    def settle(self) -> None:
        """Turns until nobody owes anything."""
        for _ in range(2_000):
            if not any(self.turn()) and not any(node.owes() for node in self.nodes):
                return
        raise AssertionError("the platform does not come to rest")

    def counted(self, name: str) -> int:
        return int(self.board.nodes[name].sum())

    def letters(self) -> list[dict[str, Any]]:
        paths = [dead_letters_path(self.folder, node) for node in range(SHAPE.nodes)]
        return [json.loads(line) for path in paths if path.exists() for line in path.read_text("utf-8").splitlines()]

    def money(self) -> int:
        """Balances, and what is or stands on transit."""
        books = [node.books for node in self.nodes]
        return sum(int(b.accounts.sum() + b.transit_out.sum() - b.transit_in.sum()) for b in books)

    def total(self, name: str) -> NDArray[np.int64]:
        """An array of the books, added up over the nodes."""
        added: NDArray[np.int64] = np.sum([getattr(node.books, name) for node in self.nodes], axis=0)
        return added

    def close(self) -> None:
        for node in self.nodes:
            with suppress(OSError):
                node.close()
        self.wiring.close()


OPENING = SHAPE.customers * SHAPE.opening_minor


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    yield made
    made.close()


def payments(count: int, first: int = 1) -> NDArray[np.void]:
    """Small ones of many payers; half of them cross nodes."""
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(first, first + count)
    batch["kind"] = Kind.PAYMENT
    batch["payer"] = np.arange(count) % SHAPE.customers
    batch["payee"] = SHAPE.customers + np.arange(count) // 3 % SHAPE.merchants
    batch["amount_minor"] = 7
    return batch


def bad(batch: NDArray[np.void], share: float = SHARE) -> set[int]:
    return {i for i in batch["id"].tolist() if is_poisoned(i, threshold_of(share))}


def statuses(platform: Platform) -> dict[int, int]:
    return {number: status for number, (status, _, _) in platform.answers.items()}


def test_what_cannot_be_booked_is_tried_so_often_and_then_fails_and_nobody_else_does(platform: Platform) -> None:
    batch = payments(400)
    expected = bad(batch)
    assert 5 < len(expected) < 50
    platform.poison(near=SHARE)
    platform.offer(batch)
    platform.settle()
    assert {i for i, answer in platform.answers.items() if answer[:2] == (Status.FAILED, Reason.POISON)} == expected
    assert {i for i, status in statuses(platform).items() if status == Status.OK} == set(
        batch["id"].tolist()
    ) - expected
    assert platform.counted("set_aside") == platform.counted("dead_requests") == len(expected)
    assert platform.counted("retried") == 2 * len(expected)
    assert platform.money() == OPENING
    letters = platform.letters()
    assert {entry["id"] for entry in letters} == expected
    assert {(entry["tries"], entry["what"], entry["kind"]) for entry in letters} == {(3, "request", "payment")}
    assert all("PoisonError" in entry["reason"] for entry in letters)
    assert {(e["id"], e["lsn"]) for e in letters} == {(i, platform.answers[i][2]) for i in expected}


def test_the_neighbours_are_answered_while_it_is_still_being_tried(tmp_path: Path) -> None:
    platform = Platform(tmp_path, PoisonRules(tries=3, wait_ns=3_600 * 10**9))  # never due in this test
    batch = payments(400)
    platform.poison(near=SHARE)
    platform.offer(batch)
    for _ in range(3):
        platform.turn()
    assert statuses(platform).keys() == set(batch["id"].tolist()) - bad(batch)
    assert platform.counted("retried") == 0
    assert all(node.owes() for node in platform.nodes)
    platform.close()


@pytest.mark.parametrize("heals_after", [1, 2])
def test_what_heals_at_a_later_try_succeeds(platform: Platform, heals_after: int) -> None:
    batch = payments(300)
    platform.poison(near=SHARE, heals_after=heals_after)
    platform.offer(batch)
    platform.settle()
    assert set(statuses(platform).values()) == {Status.OK}
    assert platform.counted("healed") == platform.counted("set_aside") == len(bad(batch))
    assert platform.counted("retried") == heals_after * len(bad(batch))
    assert platform.letters() == []


def test_one_try_means_one_try(tmp_path: Path) -> None:
    platform = Platform(tmp_path, PoisonRules(tries=1, wait_ns=0))
    platform.poison(near=SHARE)
    platform.offer(payments(200))
    platform.settle()
    assert platform.counted("retried") == 0
    assert {entry["tries"] for entry in platform.letters()} == {1}
    platform.close()


def test_later_requests_of_the_same_payer_do_not_overtake_it_and_those_of_others_do(platform: Platform) -> None:
    batch = payments(400)
    batch["payer"] = np.arange(400) % 10 * SHAPE.shards  # ten payers, one shard
    first_bad = min(bad(batch))
    payer = batch["payer"][batch["id"] == first_bad][0]
    platform.poison(near=SHARE, heals_after=2)
    platform.offer(batch)
    platform.settle()
    for mine in (batch[batch["payer"] == p]["id"].tolist() for p in set(batch["payer"].tolist())):
        positions = [platform.answers[i][2] for i in mine]
        assert positions == sorted(positions)
    others = batch[(batch["payer"] != payer) & (batch["id"] > first_bad)]["id"].tolist()
    assert any(platform.answers[i][2] < platform.answers[first_bad][2] for i in others)


def test_an_id_that_failed_never_succeeds_later_nor_after_a_restart(platform: Platform) -> None:
    batch = payments(200)
    platform.poison(near=SHARE)
    platform.offer(batch)
    platform.settle()
    told = dict(platform.answers)
    platform.poison()
    for restart in (False, True):
        platform.answers.clear()
        if restart:
            platform.restart(0)
            platform.restart(1)
        platform.offer(batch)
        platform.settle()
        assert platform.answers == told
    assert platform.money() == OPENING


def test_a_node_that_dies_while_something_waits_comes_back_without_it_and_is_asked_again(tmp_path: Path) -> None:
    platform = Platform(tmp_path, PoisonRules(tries=3, wait_ns=3_600 * 10**9))
    batch = payments(400)
    platform.poison(near=SHARE, far=SHARE)
    platform.offer(batch)
    for _ in range(3):
        platform.turn()
    waiting = [len(node.guard.aside) for node in platform.nodes]
    assert all(waiting)
    platform.poison()
    for node in range(SHAPE.nodes):
        platform.restart(node)
    platform.offer(batch)  # what was booked is answered alike; what had waited is booked now
    platform.settle()
    assert statuses(platform) == dict.fromkeys(batch["id"].tolist(), Status.OK)
    assert [len(node.guard.aside) for node in platform.nodes] == [0, 0]
    assert platform.letters() == []
    assert (platform.total("transit_out") == platform.total("transit_in").T).all()
    assert platform.money() == OPENING
    assert int(sum(node.books.accounts.sum() for node in platform.nodes)) == OPENING
    platform.close()


def test_a_far_leg_that_cannot_be_booked_leaves_its_money_on_transit_and_the_next_ones_arrive(
    platform: Platform,
) -> None:
    batch = payments(800)
    owner = SHAPE.owners()
    crossing = batch[owner[batch["payer"] % SHAPE.shards] != owner[batch["payee"] % SHAPE.shards]]
    expected = bad(crossing)
    assert len(expected) > 5
    platform.poison(far=SHARE)
    platform.offer(batch)
    platform.settle()
    assert set(statuses(platform).values()) == {Status.OK}  # their debits are durable
    assert {entry["id"] for entry in platform.letters()} == expected
    assert {entry["what"] for entry in platform.letters()} == {"far_leg"}
    assert platform.counted("dead_credits") == len(expected)
    assert int((platform.total("transit_out") - platform.total("transit_in").T).sum()) == 7 * len(expected)
    assert platform.counted("sequence_gaps") == 0
    assert (platform.total("sequence_out") == platform.total("sequence_in").T).all()
    assert platform.money() == OPENING


def books_of(node: Node) -> dict[str, Any]:
    present = {"now_ns", "hold_ids", "hold_made_ns", "hold_ends", "entries"}
    return {name: np.copy(getattr(node.books, name)) for name in Books._fields if name not in present}


def test_restored_books_equal_those_with_dead_letters_of_both_kinds(platform: Platform) -> None:
    platform.poison(near=SHARE, far=3 * SHARE)
    platform.offer(payments(600))
    platform.settle()
    assert platform.counted("dead_credits") > 5
    assert platform.counted("dead_requests") > 5
    told = sorted(platform.letters(), key=lambda entry: entry["id"])
    for number in range(SHAPE.nodes):
        before = books_of(platform.nodes[number])
        entries = platform.nodes[number].books.entries.copy()
        platform.restart(number)
        for name, value in books_of(platform.nodes[number]).items():
            assert np.array_equal(value, before[name]), name
        used = before["used"]
        for place, generation in np.ndindex(*used.shape):
            rows = slice(0, int(used[place, generation]))
            restored = platform.nodes[number].books.entries[place, generation, rows]
            assert (restored == entries[place, generation, rows]).all()
    platform.settle()
    assert sorted(platform.letters(), key=lambda entry: entry["id"]) == told  # none is written twice


def test_a_line_that_a_crash_has_prevented_is_written_from_the_journal(platform: Platform) -> None:
    platform.poison(near=SHARE, far=SHARE)
    platform.offer(payments(400))
    platform.settle()
    told = platform.letters()
    for node in range(SHAPE.nodes):
        dead_letters_path(platform.folder, node).unlink()
        platform.restart(node)
    platform.settle()
    found = platform.letters()
    known = ("id", "what", "kind", "payer", "payee", "amount_minor", "shard", "lsn")
    assert sorted([e[k] for k in known] for e in found) == sorted([e[k] for k in known] for e in told)
    assert {(entry["reason"], entry["tries"]) for entry in found} == {(LOST_LINE, None)}


def test_the_file_ends_at_its_bound_and_the_rest_is_counted(tmp_path: Path) -> None:
    platform = Platform(tmp_path, PoisonRules(tries=1, wait_ns=0, dead_letters=3))
    platform.poison(near=1.0)
    platform.offer(payments(100))
    platform.settle()
    assert [len(dead_letters_path(tmp_path, node).read_bytes().splitlines()) for node in range(2)] == [3, 3]
    assert (platform.counted("dead_requests"), platform.counted("dead_unwritten")) == (100, 94)
    for node in range(2):
        platform.restart(node)  # what a full file has left out is not counted again
    platform.settle()
    assert (platform.counted("dead_requests"), platform.counted("dead_unwritten")) == (100, 94)
    platform.close()


def one_letter(number: int) -> dict[str, Any]:
    return letter(payments(1, number)[0], what="request", lsn=number, shard=0, t_ns=0, tries=3, why="x" * 1_000 + "\n")


def test_the_file_is_bounded_in_bytes_too_and_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    written = 0
    for _ in range(2):
        letters = DeadLetters(path, lines_max=10**6, bytes_max=8_000)
        written += sum(letters.write(one_letter(number)) for number in range(1, 20))
        letters.close()
    assert path.stat().st_size <= 8_000
    assert written == len(path.read_text("utf-8").splitlines()) > 10
    assert len(json.loads(path.read_text("utf-8").splitlines()[0])["reason"]) == 200


def test_a_line_that_was_cut_by_a_crash_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    letters = DeadLetters(path, lines_max=10)
    assert letters.write(one_letter(4))
    letters.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    letters = DeadLetters(path, lines_max=10)
    assert letters.knows(0, 4, 4)
    assert not letters.knows(0, 5, 5)
    assert not letters.knows(0, 4, 5)  # another transaction has the position now
    assert letters.write(one_letter(5))
    letters.close()
    assert [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()] == [4, 5]


def test_lines_of_positions_that_a_power_loss_took_are_taken_away_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    letters = DeadLetters(path, lines_max=10)
    assert all(letters.write(one_letter(number)) for number in (3, 4, 5))
    assert letters.write({**one_letter(9), "shard": 1})
    assert letters.write({**one_letter(6), "lsn": 0})
    letters.close()
    letters = DeadLetters(path, lines_max=10)
    letters.drop_beyond({0: 3})  # shard 1 is another node's now
    assert (letters.lines, letters.size) == (3, path.stat().st_size)
    assert letters.write(one_letter(7))
    letters.close()
    assert [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()] == [3, 9, 6, 7]


def test_a_full_disk_costs_the_line_and_not_the_node(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "no such folder" / "letters", lines_max=10)
    assert not letters.write(one_letter(1))
    letters.close()


def test_when_no_more_can_be_set_aside_the_rings_wait_and_nothing_is_lost(platform: Platform) -> None:
    for node in platform.nodes:
        node.guard.aside.room = 3
    batch = payments(400)
    platform.poison(near=0.5, far=0.2)
    platform.offer(batch)
    most = 0
    for _ in range(4_000):
        moved = platform.turn()
        most = max(most, *(len(node.guard.aside) for node in platform.nodes))
        if not any(moved) and not any(node.owes() for node in platform.nodes):
            break
    assert most == 3
    failed = {i for i, status in statuses(platform).items() if status == Status.FAILED}
    assert failed == bad(batch, 0.5)
    assert statuses(platform).keys() == set(batch["id"].tolist())
    assert platform.money() == OPENING


@pytest.mark.parametrize("error", [MemoryError("no memory"), ValueError("two\nlines")])
def test_whatever_the_booking_of_one_operation_raises_its_neighbours_are_booked(
    platform: Platform, error: Exception
) -> None:
    batch = payments(100)
    sick = {17, 18, 60}

    def fails(node: Node) -> None:
        guard = node.guard
        calls = guard._calls  # noqa: SLF001  nothing from outside makes a kernel raise what it does not raise

        def apply(slots: NDArray[Any], start: int, count: int) -> int:
            ids = slots["id"][(start + np.arange(count)) & (len(slots) - 1)]
            ill = np.flatnonzero(np.isin(ids, list(sick)))
            if not len(ill):
                return calls.apply(slots, start, count)
            calls.apply(slots, start, int(ill[0]))
            raise error

        guard._calls = calls._replace(apply=apply)  # noqa: SLF001  as above

    for node in platform.nodes:
        fails(node)
    platform.offer(batch)
    platform.settle()
    assert {i for i, status in statuses(platform).items() if status == Status.FAILED} == sick
    assert {i for i, status in statuses(platform).items() if status == Status.OK} == set(batch["id"].tolist()) - sick
    assert all(entry["reason"].startswith(type(error).__name__) for entry in platform.letters())
    assert platform.money() == OPENING


def test_a_hold_that_cannot_expire_is_told_once_and_left_alone(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    hold = payments(2)
    hold["kind"] = Kind.AUTHORIZE
    hold["payer"] = 0, 4
    platform.offer(hold)
    platform.settle()
    node = platform.nodes[0]
    node.books.accounts[int(node.books.base[0]), 1] = 3  # less than the 7 that are held
    node.hold_term_ns = 0
    for _ in range(3):
        node.expired_ns = -(10**12)
        platform.turn()
    assert [(entry["id"], entry["what"]) for entry in platform.letters()] == [(1, "expiry")]
    assert platform.counted("expired") == 1
    platform.close()


def test_keys_keep_payers_and_pairs_apart() -> None:
    messages = np.zeros(5, TRANSACTION)
    messages["payer"] = 8, 9, 8, 9, 5
    messages["payee"] = 1, 2, 1, 3, 1
    messages["message"] = Message.REQUEST, Message.REQUEST, Message.CREDIT, Message.CREDIT, Message.CREDIT
    here = np.array([True, False, True, False])
    keys = keys_of(messages, here).tolist()
    assert keys[0] == 8
    assert keys[1] == NO_KEY  # to be handed on: it waits behind nobody
    assert len({keys[0], keys[2], keys[3]}) == 3
    assert keys[2] != keys[4]
    assert keys[2] == keys_of(messages[2:3], here)[0]


def test_what_waits_under_one_key_comes_in_order_and_the_next_at_once() -> None:
    aside = SetAside(room=4)
    for number in (1, 2, 3):
        aside.add(7, Waiting(payments(1, number)))
    aside.add(9, Waiting(payments(1, 4), due_ns=50))
    assert aside.full
    assert aside.next_due_ns() == 0
    tried = []
    for key, waiting in aside.due(10):
        number = int(waiting.message["id"][0])
        tried.append(number)
        if number == 2:
            waiting.due_ns = 60  # fails: what is behind it waits
        else:
            aside.drop_first(key)
    assert tried == [1, 2]
    assert len(aside) == 3
    assert [int(w.message["id"][0]) for _, w in aside.due(60)] == [2, 4]
    assert aside.blocked(np.array([7, 8, 9])).tolist() == [True, False, True]


# What a scenario may say.


def scenario_with(fault: dict[str, Any], **embedded: Any) -> Scenario:  # noqa: ANN401  YAML data
    return Scenario.from_data({
        "name": "poisoned", "duration": "10s", "load": {"rate": "10/s"}, "backend": {"embedded": embedded},
        "faults": [{"at": "1s", "fault": "poison", **fault}],
    })  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({}, "say which share"),
        ({"share": 0.0}, "greater than 0"),
        ({"share": 1.5}, "less than or equal to 1"),
        ({"share": 0.1, "heals_after": 3}, "would never heal"),
        ({"fault": "kill", "target": "node[0]", "share": 0.1}, "only poison takes it"),
        ({"fault": "pause", "target": "node[0]", "leg": "far"}, "only poison takes it"),
        ({"share": 0.1, "for": "3s", "every": "2s"}, "would overlap"),
        ({"share": 0.1, "target": "node[2]"}, "there is no node"),
    ],
)
def test_a_poison_that_makes_no_sense_is_refused(fault: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        scenario_with(fault)


def test_a_poison_strikes_every_node_unless_it_names_one_and_lasts_as_long_as_it_says() -> None:
    made = scenario_with({"share": 0.25, "for": "2s", "leg": "far", "heals_after": 1})
    (strike,) = Schedule(made.faults, 3, 10 * 10**9, 1).strikes
    assert (strike.fault, strike.nodes, strike.until_ns) == (Fault.POISON, (0, 1, 2), 3 * 10**9)
    assert strike.poison == Poisoning(0.25, far=True, heals_after=1)
    (one,) = Schedule(scenario_with({"share": 0.25, "target": "node[1]"}).faults, 3, 10 * 10**9, 1).strikes
    assert (one.nodes, one.until_ns, one.poison) == ((1,), 10 * 10**9, Poisoning(0.25, far=False, heals_after=0))
    assert describe_fault(made.faults[0], 10 * 10**9) == "poison 0.25 of the credits on every node for 2s at 1s"
    assert Scenario.from_data(made.to_data()) == made


# What is told of it.


def test_the_report_and_the_terminal_tell_of_dead_letters_where_there_are_any(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run")
    summary = fake_run.summary(run)
    assert "Dead letters" not in render(run).read_text("utf-8")
    summary["dead_letters"] = {
        "count": 3, "requests": 2, "credits": 1, "set_aside": 9, "retried": 17, "healed": 6, "unwritten": 0,
        "files": ["journal/node-1.dead-letters.jsonl"],
    }  # fmt: skip
    fake_run.write_json(run / "summary.json", summary)
    page = render(run).read_text("utf-8")
    assert "Dead letters: what could not be booked" in page
    assert "journal/node-1.dead-letters.jsonl" in page
    console = Console(width=200, file=io.StringIO())
    console.print(summary_text(summary))
    told = str(console.file.getvalue())  # type: ignore[attr-defined]  # a StringIO
    assert "poison      3 dead letters, 6 succeeded at a later try" in told


# Whole runs.


def events_of(ended: sim_process.Ended, name: str) -> list[dict[str, Any]]:
    lines = (ended.folder / "events.jsonl").read_text("utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def letters_of(ended: sim_process.Ended) -> list[dict[str, Any]]:
    files = ended.summary["dead_letters"]["files"]
    return [json.loads(line) for name in files for line in (ended.folder / name).read_text("utf-8").splitlines()]


def booked_ns(ended: sim_process.Ended) -> dict[int, int]:
    """When each transaction was booked for good at its home, by the run's clock."""
    readers = [JournalReader(journal_path(ended.folder / "journal", node)) for node in range(2)]
    return {
        int(record["id"]): committed_ns
        for reader in readers
        for committed_ns, records in reader
        for record in records[records["leg"] != Leg.CREDIT]
    }


def test_a_run_with_poison_and_kills_fails_what_is_poisoned_and_the_audit_is_clean(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "duration=4s", "backend.embedded.remember=131072", "backend.embedded.poison.wait=50ms",
            "dispatcher.patience=60s", "dispatcher.drain=60s",  # a node may take long to come back on a busy machine
            'faults=[{at: 0s, fault: poison, share: 0.01}, '
            '{at: 1s, fault: kill, target: "node[*]", every: 500ms, times: 4, spread: random}]',
        ),
    )  # fmt: skip
    summary, found = ended.summary, letters_of(ended)
    assert sim_process.CLEAN.items() <= summary["audit"].items()
    assert summary["counts"]["unknown"] == summary["counts"]["dropped"] == 0
    rows = np.concatenate(list(read_history(ended.folder)))
    failed = set(rows["id"][rows["status"] == Status.FAILED].tolist())
    assert len(failed) == summary["counts"]["failed"] == summary["reasons"]["failed"]["poison"] > 50
    refused = set(rows["id"][rows["status"] == Status.REJECTED].tolist())
    picked = bad(rows, 0.01) - refused
    assert failed <= picked
    # What was picked and succeeds was booked before the nodes were told of the fault, or after it was over, with the load: what
    # is still being tried then, or waits for a node that comes back, finds nothing wrong any more.
    (begun,) = (event["t_s"] for event in events_of(ended, "fault") if event["fault"] == "poison")
    booked = booked_ns(ended)
    assert all(booked[i] <= begun * 1e9 or booked[i] >= 4e9 for i in picked - failed)
    assert {entry["id"] for entry in found} == failed
    assert len(found) == len(failed)
    assert summary["dead_letters"]["files"] == [
        "journal/node-0.dead-letters.jsonl",
        "journal/node-1.dead-letters.jsonl",
    ]
    told = max(event["count"] for event in events_of(ended, "dead_letters"))
    assert 0 < told <= summary["dead_letters"]["count"]


def test_a_run_whose_credits_are_poisoned_is_named_by_the_audit_and_conserves_the_money(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings("load.mix={payment: 1}", "faults=[{at: 0s, fault: poison, share: 0.02, leg: far}]"),
    )  # fmt: skip
    found = letters_of(ended)
    audit = json.loads((ended.folder / "audit.json").read_text("utf-8"))
    assert ended.code == 122
    assert audit["anomalies"] == {"dead_letter": len(found)}
    assert set(audit["examples"]["dead_letter"]) <= {entry["id"] for entry in found}
    assert len(found) > 20
    assert audit["conservation_minor"] == 0
    held = sum(entry["amount_minor"] for entry in found)
    assert [reason for reason in audit["reasons"] if f"{held} minor units stand on transit" in reason]
    assert ended.summary["counts"]["failed"] == 0
    assert ended.summary["dead_letters"]["credits"] == len(found)
    assert Leg.DEAD not in (Leg.NONE, Leg.CREDIT)
