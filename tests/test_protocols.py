"""The protocols between shards with real nodes: restarts, snapshots, kills, and what an audit says of each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from plant import Books
from test_recovery import SHAPE, Platform, assert_same, books_of, events_of, transactions

from simulator.audit.auditor import audit_run
from simulator.cli import main
from simulator.ledger.books import State
from simulator.shard.journal import JournalReader, closing_path, journal_path
from simulator.shard.layout import NO_LIMIT, RECORD, Leg, Protocol
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SCENARIOS = Path(__file__).parent.parent / "scenarios"
LIMIT = "backend.embedded.balance_limit=20000 CNY"
TCC = replace(SHAPE, protocol=Protocol.TCC, balance_limit_minor=90_000)
SHAPES = {
    "tcc": TCC,
    "outbox": replace(SHAPE, balance_limit_minor=90_000),
    "unsafe": replace(SHAPE, protocol=Protocol.UNSAFE_DUAL_WRITE),
}


@pytest.fixture
def platform(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Platform]:
    made = Platform(tmp_path, shape=SHAPES[getattr(request, "param", "tcc")])
    yield made
    made.close()


def legs_of(platform: Platform) -> set[int]:
    journals = [JournalReader(journal_path(platform.folder, n)) for n in range(2)]
    return {int(leg) for journal in journals for _, records in journal for leg in records["leg"]}


def home_of(batch: NDArray[np.void]) -> NDArray[np.int64]:
    homes: NDArray[np.int64] = SHAPE.owners()[batch["payer"] % SHAPE.shards]
    return homes


def assert_at_rest(platform: Platform) -> None:
    assert platform.transit_is_level()
    for node in platform.nodes:
        assert not node.books.tries.any()
        assert not node.books.undecided.any()
        assert not node.books.incoming.any()
        for place, generation in np.ndindex(*node.books.used.shape):
            states = node.books.entries["state"][place, generation, : node.books.used[place, generation]]
            assert not np.isin(states, (State.TRYING, State.TRIED, State.POSTING)).any()
    held = sum(int(node.books.accounts.sum()) for node in platform.nodes)
    assert held == SHAPE.customers * SHAPE.opening_minor


# Restarts, by hand


@pytest.mark.parametrize("platform", ["tcc", "outbox"], indirect=True)
def test_restored_books_equal_the_ones_that_were_booked(platform: Platform) -> None:
    for part in np.split(transactions(4_000), 16):
        platform.offer(part)
        platform.settle()
    tcc = platform.shape.protocol == Protocol.TCC
    assert legs_of(platform) >= ({Leg.COMMIT, Leg.ABORT, Leg.CONFIRMED} if tcc else {Leg.SEND_BACK, Leg.TAKE_BACK})
    before = [books_of(node) for node in platform.nodes]
    for number in range(2):
        platform.restart(number)
        assert_same(books_of(platform.nodes[number]), before[number])
    platform.settle()
    assert_at_rest(platform)


@pytest.mark.parametrize("platform", ["tcc", "outbox"], indirect=True)
def test_a_snapshot_in_the_middle_of_transfers_loses_none_of_them(platform: Platform) -> None:
    batch = transactions(800)
    platform.offer(batch)
    for node in platform.nodes:
        node.turn()  # tries and credits are on their way
    for node in platform.nodes:
        node.snapshot_records, node.since_snapshot = 0, 1
        node.turn()
        assert os.waitpid(node.snapshot_pid, 0)[1] == 0
        node.snapshot_pid, node.snapshot_records = 0, 10**9
    for number in range(2):
        platform.nodes[number].take()  # in memory only
        platform.restart(number)
        platform.nodes[number].snapshot_records = 10**9
    platform.settle()
    platform.offer(batch)  # the clients ask again
    platform.settle()
    assert len(platform.answers) == len(batch)
    assert_at_rest(platform)


def test_what_home_had_begun_and_not_decided_is_aborted_and_told_so_to_who_asks_again(platform: Platform) -> None:
    batch = transactions(400)
    batch = batch[batch["kind"] == Kind.PAYMENT]
    platform.offer(batch)
    home, far = platform.nodes
    home.turn()
    begun = int(home.books.undecided[0])
    assert begun > 20
    far.turn()  # has promised, and its votes are on their way
    promised = int(far.books.tries.sum()) - int(far.books.undecided[0])
    assert promised > 20
    platform.restart(0)
    assert platform.nodes[0].books.undecided[0] == 0
    platform.settle()
    platform.answers.clear()
    platform.offer(batch[home_of(batch) == 0])
    platform.settle()
    told = [answer[:2] for answer in platform.answers.values()]
    assert told.count((Status.REJECTED, Reason.NODE_DOWN)) == begun
    assert {Leg.ROLLED_BACK, Leg.PASSED} <= legs_of(platform)
    assert_at_rest(platform)


def test_votes_that_a_dead_node_had_sent_are_sent_again_and_reach_the_client_who_waits(platform: Platform) -> None:
    batch = transactions(400)
    batch = batch[batch["kind"] == Kind.PAYMENT]
    mine = batch[home_of(batch) == 0]
    platform.offer(mine)
    platform.nodes[0].turn()
    platform.nodes[1].turn()
    platform.nodes[0].take()  # the votes, in memory only; and now the voter dies as well
    platform.restart(1)
    platform.settle()
    assert set(platform.answers) == set(mine["id"].tolist())
    assert Status.OK in {status for status, _, _ in platform.answers.values()}
    assert_at_rest(platform)


@pytest.mark.parametrize("platform", ["unsafe"], indirect=True)
def test_an_unsafe_credit_is_gone_with_the_node_that_had_taken_it(platform: Platform) -> None:
    batch = transactions(400)
    platform.offer(batch)
    platform.nodes[0].turn()
    platform.nodes[1].take()
    platform.restart(1)
    platform.settle()
    platform.offer(batch[home_of(batch) == 1])
    platform.settle()
    assert not platform.transit_is_level()


# Whole runs


def run(folder: Path, protocol: str, *values: str) -> sim_process.Ended:
    more = ("load.accounts=20000", "backend.embedded.remember=131072", f"backend.embedded.protocol={protocol}", *values)
    return sim_process.run(folder, *sim_process.settings(*more))


KILLS = 'faults=[{at: 400ms, fault: kill, target: "node[*]", every: 400ms, times: 6, spread: random}]'


def test_tcc_keeps_every_yuan_through_kills_and_answers_everyone(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "tcc", "load.rate=20000/s", "duration=3s", LIMIT, KILLS)
    summary = ended.summary
    assert (summary["audit"]["verdict"], summary["audit"]["conservation_minor"]) == ("clean", 0), summary
    assert (summary["protocol"], summary["returned"]["transactions"]) == ("tcc", 0)
    assert summary["counts"]["unknown"] == summary["counts"]["failed"] == summary["counts"]["dropped"] == 0
    assert summary["reasons"]["rejected"]["limit"] > 0
    assert len(events_of(ended, "fault")) == 6
    assert len(events_of(ended, "node_restarted")) == len(events_of(ended, "node_died")) > 0


def test_the_dual_write_control_is_caught_when_nodes_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = sim_process.call("run", str(SCENARIOS / "dual-write-control.yaml"), "--out", str(folder), "--quiet")
    assert ended.code == 122, ended
    found = audit_run(folder).to_dict()
    assert found["anomalies"]["torn"] > 0
    assert set(found["anomalies"]) == {"torn"}  # nothing else is wrong with it
    named = found["examples"]["torn"]
    books = Books.read(folder)
    assert named
    for key in named:
        legs = [int(books.records[node]["leg"][at]) for node, at in books.places(key)]
        assert legs == [Leg.DEBIT]
        # Who is asked again after a kill may answer again, the same.
        assert set(books.history["status"][books.history["id"] == key].tolist()) == {Status.OK}


def test_without_a_fault_the_dual_write_control_passes(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "unsafe_dual_write", "duration=1s")
    assert (ended.code, ended.summary["audit"]["verdict"]) == (0, "clean"), ended


def test_what_the_outbox_gave_back_is_lawful_counted_and_said(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "outbox", LIMIT, KILLS, "duration=3s")
    summary = ended.summary
    assert summary["audit"]["verdict"] == "clean"
    assert 0 < summary["returned"]["transactions"] < summary["counts"]["ok"]
    assert 0 < summary["returned"]["value_minor"] < summary["value"]["settled_minor"]
    assert "\nreturned " in ended.out
    assert "answered ok, then refused" in " ".join(ended.out.split())  # the terminal may have wrapped it
    assert "answered ok, then refused" in (ended.folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("durability", "protocol"), [("memory", "tcc"), ("memory", "outbox"), ("os", "tcc")])
def test_tcc_and_returns_are_audited_whatever_the_durability(tmp_path: Path, durability: str, protocol: str) -> None:
    ended = run(tmp_path / "run", protocol, LIMIT, "duration=1s", f"backend.embedded.durability={durability}")
    assert ended.summary["audit"]["verdict"] == "clean", ended
    assert (ended.summary["returned"]["transactions"] > 0) == (protocol == "outbox")


def test_the_plan_says_which_protocol_and_which_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sim_process.scenario(tmp_path / "run")
    main(["check", str(path)])
    assert "protocol      outbox\n" in capsys.readouterr().out
    main(["check", str(path), *sim_process.settings("backend.embedded.protocol=tcc", LIMIT)])
    told = capsys.readouterr().out
    assert "protocol      tcc\n" in told
    assert "balance limit 20,000 CNY an account\n" in told


# What an audit finds in such books


@pytest.fixture(scope="module")
def tcc_run(tmp_path_factory: pytest.TempPathFactory) -> sim_process.Ended:
    return run(tmp_path_factory.mktemp("tcc") / "run", "tcc", LIMIT)


@pytest.fixture(scope="module")
def returning_run(tmp_path_factory: pytest.TempPathFactory) -> sim_process.Ended:
    return run(tmp_path_factory.mktemp("returning") / "run", "outbox", LIMIT)


@pytest.fixture
def books(tcc_run: sim_process.Ended, tmp_path: Path) -> Books:
    return Books.copy(tcc_run.folder, tmp_path / "planted")


def audited(books: Books) -> dict[str, Any]:
    books.renumber()
    books.save(sheets=True)
    return audit_run(books.folder).to_dict()


def drop(books: Books, key: int, *legs: Leg) -> None:
    for leg in legs:
        node, at = next((n, at) for n, at in books.places(key) if books.records[n]["leg"][at] == leg)
        books.drop(node, at)


def test_a_sound_run_of_tcc_is_clean_and_its_sheets_are_what_its_journals_add_up_to(books: Books) -> None:
    found = audited(books)
    assert (found["verdict"], found["anomalies"], found["undecided"], found["returned"]) == ("clean", {}, 0, 0)


@pytest.mark.parametrize("leg", [Leg.BEGIN, Leg.TRIED, Leg.COMMIT, Leg.CONFIRMED])
def test_a_committed_transfer_without_one_of_its_records_is_torn(books: Books, leg: Leg) -> None:
    key = books.some(Leg.CONFIRMED)
    drop(books, key, leg)
    assert audited(books)["examples"].get("torn") == [key]


def test_an_aborted_transfer_without_its_abort_is_torn(books: Books) -> None:
    key = books.some(Leg.ABORT, number=20)
    drop(books, key, Leg.ABORT)
    assert audited(books)["examples"] == {"torn": [key]}


def test_a_committed_transfer_of_which_only_the_promises_are_left_is_lost(books: Books) -> None:
    key = books.some(Leg.CONFIRMED)
    drop(books, key, Leg.CONFIRMED, Leg.COMMIT)
    found = audited(books)["examples"]
    assert key in found.get("lost", []) + found.get("phantom", [])


@pytest.mark.parametrize("leg", [Leg.COMMIT, Leg.CONFIRMED])
def test_a_leg_of_tcc_that_is_there_twice_is_a_duplicate(books: Books, leg: Leg) -> None:
    key = books.some(leg)
    node, at = next((n, at) for n, at in books.places(key) if books.records[n]["leg"][at] == leg)
    books.repeat(node, at)
    assert audited(books)["examples"]["duplicated"] == [key]


@pytest.mark.parametrize("leg", [Leg.COMMIT, Leg.CONFIRMED, Leg.TRIED])
def test_a_leg_of_tcc_with_another_amount_is_altered(books: Books, leg: Leg) -> None:
    key = books.some(leg) if leg != Leg.TRIED else books.some(Leg.CONFIRMED)
    node, at = next((n, at) for n, at in books.places(key) if books.records[n]["leg"][at] == leg)
    books.records[node]["amount_minor"][at] += 1
    assert audited(books)["examples"]["altered"] == [key]


def test_money_set_aside_and_not_decided_is_an_anomaly_at_rest(books: Books) -> None:
    key = books.some(Leg.CONFIRMED)
    books.tell(key, Status.UNKNOWN)
    drop(books, key, Leg.CONFIRMED, Leg.COMMIT, Leg.TRIED)
    found = audited(books)
    assert (found["verdict"], found["undecided"], found["unknown_but_applied"]) == ("anomalies", 1, 0)
    assert (found["anomalies"]["undecided"], found["examples"]["undecided"]) == (1, [key])
    assert "lost" not in found["anomalies"]
    assert [reason for reason in found["reasons"] if "begun and not decided" in reason and "at rest" in reason]


def test_money_set_aside_and_not_decided_is_lawful_while_a_node_has_not_closed_its_books(books: Books) -> None:
    key = books.some(Leg.CONFIRMED)
    books.tell(key, Status.UNKNOWN)
    drop(books, key, Leg.CONFIRMED, Leg.COMMIT, Leg.TRIED)
    books.save()
    closing_path(books.folder / "journal", 0).unlink()
    found = audit_run(books.folder).to_dict()
    assert found["undecided"] == 1
    assert "undecided" not in found["anomalies"]  # its node may yet come back and decide


def test_a_commit_that_was_in_doubt_is_lawful_and_counted(books: Books) -> None:
    books.tell(books.some(Leg.CONFIRMED), Status.UNKNOWN)
    found = audited(books)
    assert (found["verdict"], found["unknown_but_applied"]) == ("clean", 1)


def test_an_abort_that_was_told_as_a_success_is_named(books: Books) -> None:
    key = books.some(Leg.ABORT, number=20)
    books.tell(key, Status.OK)
    found = audited(books)["examples"]
    assert key in found.get("lost", []) + found.get("phantom", [])


def test_an_alarm_is_an_anomaly_with_its_id(books: Books) -> None:
    record = books.new_record(Leg.ALARM, Kind.PAYMENT, payer=6, payee=7, amount=1)
    books.append(record)
    found = audited(books)
    assert found["examples"] == {"alarm": [int(record["id"][0])]}
    assert found["anomalies"] == {"alarm": 1}


@pytest.mark.parametrize("leg", [Leg.DEBIT, Leg.SEND_BACK, Leg.TAKE_BACK])
def test_a_return_without_one_of_its_records_is_torn(
    returning_run: sim_process.Ended, tmp_path: Path, leg: Leg
) -> None:
    books = Books.copy(returning_run.folder, tmp_path / "planted")
    whole = audited(books)
    assert (whole["verdict"], whole["returned"]) == ("clean", returning_run.summary["returned"]["transactions"])
    key = books.some(Leg.TAKE_BACK, number=20)
    drop(books, key, leg)
    assert audited(books)["examples"]["torn"] == [key]


def test_a_credit_that_is_booked_and_sent_back_as_well_is_torn(
    returning_run: sim_process.Ended, tmp_path: Path
) -> None:
    books = Books.copy(returning_run.folder, tmp_path / "planted")
    key = books.some(Leg.TAKE_BACK, number=20)
    node, at = next((n, at) for n, at in books.places(key) if books.records[n]["leg"][at] == Leg.SEND_BACK)
    credit = np.zeros(1, RECORD)
    credit[0] = books.records[node][at]
    credit["leg"] = Leg.CREDIT
    books.append(credit)
    assert audited(books)["examples"]["torn"] == [key]


def returned_ids(books: Books) -> set[int]:
    return {int(key) for found in books.records for key in found["id"][found["leg"] == Leg.TAKE_BACK]}


@pytest.mark.parametrize("limit_minor", [NO_LIMIT, 10**15])
def test_money_that_is_sent_back_though_nothing_forbids_its_credit_is_unlawful(
    returning_run: sim_process.Ended, tmp_path: Path, limit_minor: int
) -> None:
    books = Books.copy(returning_run.folder, tmp_path / "planted")
    books.declare(balance_limit_minor=limit_minor)
    found = audited(books)
    steps = (
        2 if limit_minor == NO_LIMIT else 1
    )  # where there is a limit, taking back what was sent back is as it should be
    assert found["anomalies"] == {"unlawful": steps * len(returned_ids(books))}
    assert set(found["examples"]["unlawful"]) <= returned_ids(books)


def test_an_account_that_is_credited_beyond_what_it_may_hold_is_over_its_limit(
    returning_run: sim_process.Ended, tmp_path: Path
) -> None:
    books = Books.copy(returning_run.folder, tmp_path / "planted")
    books.declare(balance_limit_minor=int(books.header["balance_limit_minor"]) - 1)
    every = np.concatenate(books.records)
    book = int(np.flatnonzero((every["leg"] == Leg.CREDIT) & (every["kind"] == Kind.PAYMENT))[-1])
    credit = every[book : book + 1].copy()
    credit["id"], credit["amount_minor"] = books.next_id(), 10**12
    books.append(credit)
    found = audited(books)
    assert found["anomalies"]["over_limit"] >= 1
    assert int(credit["id"][0]) in found["examples"]["over_limit"]


def test_steps_of_a_protocol_that_the_platform_does_not_run_are_unlawful(books: Books) -> None:
    begun = sum(int((found["leg"] == Leg.BEGIN).sum()) for found in books.records)
    assert audited(books)["anomalies"] == {}
    books.declare(protocol=Protocol.OUTBOX)
    assert audited(books)["anomalies"]["unlawful"] > begun > 0


def test_a_journal_of_another_version_leaves_the_verdict_open(books: Books) -> None:
    books.declare(version=int(books.header["version"]) + 1)
    found = audited(books)
    assert (found["verdict"], found["anomalies"]) == ("unknown", {})
    assert "version" in found["reasons"][0]


def test_tries_that_are_poisoned_fail_and_tell_their_clients_and_nothing_is_paid(tmp_path: Path) -> None:
    ended = run(tmp_path / "run", "tcc", "duration=1s", "faults=[{at: 100ms, fault: poison, share: 0.01, leg: far}]")
    summary = ended.summary
    assert (summary["audit"]["verdict"], summary["audit"]["anomalies"]) == ("clean", {}), ended
    assert summary["counts"]["failed"] == summary["reasons"]["failed"]["poison"] > 0
    letters = [path.read_text("utf-8").splitlines() for path in ended.folder.glob("journal/*.dead-letters.jsonl")]
    assert sum(map(len, letters)) == summary["counts"]["failed"]
