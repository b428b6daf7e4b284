"""Which shard is moved when and to where, and whole runs in which shards move, also while nodes are killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process
from hypothesis import given
from hypothesis import strategies as st
from plant import Books
from pydantic import ValidationError

from simulator.audit.auditor import audit_run
from simulator.report.html import render
from simulator.scenario.model import Scenario
from simulator.scenario.plan import plan, render_plan
from simulator.shard.layout import Board, Custody, Shape
from simulator.shard.rebalance import RESTS, ByLoad, Order, Rebalancer, choose
from simulator.shard.worker import Wiring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sim_process import Ended

SHAPE = Shape(nodes=2, shards=6, customers=100, merchants=10, opening_minor=1_000, remember=64)


def chosen(
    work: list[int], owners: list[int], nodes: int = 2, imbalance: float = 1.2, resting: list[bool] | None = None
) -> tuple[int, int] | None:
    rests = np.zeros(len(work), np.bool_) if resting is None else np.array(resting)
    return choose(np.array(work, np.int64), np.array(owners, np.int64), nodes, imbalance, rests)


# The decision.


def test_an_even_load_moves_nothing() -> None:
    assert chosen([1_000] * 6, [0, 1, 0, 1, 0, 1]) is None


def test_the_shard_that_evens_the_load_best_goes_from_the_busiest_to_the_idlest() -> None:
    assert chosen([9_000, 1_000, 3_000, 1_000, 1_000, 1_000], [0, 1, 0, 1, 0, 1]) == (2, 1)
    assert chosen([4_000, 500, 4_000, 4_000, 100, 4_000], [0, 2, 0, 1, 2, 1], nodes=3) == (0, 2)


def test_what_is_below_the_threshold_stays_though_a_move_would_even_it() -> None:
    work, owners = [3_000, 2_000, 3_000, 2_000], [0, 1, 0, 1]
    assert chosen(work, owners, imbalance=1.25) is None
    assert chosen(work, owners, imbalance=1.15) is None  # nor would one: the shards are too big
    assert chosen([3_000, 2_000, 1_000, 3_000, 2_500, 500], [0, 1, 0, 0, 1, 1], imbalance=1.15) == (2, 1)


def test_one_hot_shard_alone_on_its_node_is_not_sent_round_in_circles() -> None:
    assert chosen([9_000, 1_000, 0, 1_000], [0, 1, 0, 1]) is None
    assert chosen([9_000, 1_000, 1_000, 1_000], [0, 1, 0, 1]) == (2, 1)  # but its neighbours leave it


def test_a_difference_that_chance_could_have_made_moves_nothing() -> None:
    assert chosen([8, 2, 6, 2], [0, 1, 0, 1]) is None
    assert chosen([8_000, 2_000, 6_000, 2_000], [0, 1, 0, 1]) is not None


def test_a_shard_that_rests_is_passed_over() -> None:
    work, owners = [5_000, 1_000, 4_000, 1_000], [0, 1, 0, 1]
    first = chosen(work, owners)
    assert first is not None
    resting = [shard == first[0] for shard in range(4)]
    assert chosen(work, owners, resting=resting) not in (None, first)
    assert chosen(work, owners, resting=[True] * 4) is None


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 3)), min_size=1, max_size=40), st.floats(1.01, 3))
def test_a_move_always_lowers_the_busiest_node_and_moves_come_to_an_end(
    shards: list[tuple[int, int]], imbalance: float
) -> None:
    work, owners = (np.array(column, np.int64) for column in zip(*shards, strict=True))
    resting = np.zeros(len(work), np.bool_)
    for _ in range(4 * len(work)):
        before = np.bincount(owners, weights=work, minlength=4)
        found = choose(work, owners, 4, imbalance, resting)
        if found is None:
            return
        shard, to = found
        assert owners[shard] == before.argmax()
        assert to == before.argmin()
        owners[shard] = to
        after = np.bincount(owners, weights=work, minlength=4)
        assert max(after[int(before.argmax())], after[to]) < before.max()
    raise AssertionError("it flaps")


# When.


@pytest.fixture
def board() -> Iterator[tuple[Board, Wiring]]:
    wiring = Wiring(SHAPE.nodes, 64)
    yield Board(SHAPE), wiring
    wiring.close()


def carry_out(board: Board) -> None:
    """What nodes do about a move, in no time."""
    number, shard, _, to = (int(board.move[w]) for w in range(1, 5))
    board.owners[shard] = to
    board.switched[:] = number
    board.move[0] = 3


def test_moves_are_asked_for_when_they_are_due_and_one_after_the_other(board: tuple[Board, Wiring]) -> None:
    words, wiring = board
    rebalancer = Rebalancer(words, wiring, [Order(30, 4, 1), Order(10, 0, 1), Order(10, 2, 1)])
    assert rebalancer.next_ns() == 10
    assert rebalancer.act(9, may_begin=True) == []
    assert rebalancer.act(10, may_begin=False) == []  # a node is not back yet
    assert [e["shard"] for e in rebalancer.act(10, may_begin=True)] == [0]
    assert rebalancer.act(50, may_begin=True) == []
    carry_out(words)
    events = rebalancer.act(60, may_begin=True)
    assert [(e["event"], e["shard"]) for e in events] == [
        ("move_frozen", 0), ("move_taken", 0), ("move_switched", 0), ("move_requested", 2),
    ]  # fmt: skip
    rebalancer.halt()
    carry_out(words)
    assert rebalancer.act(70, may_begin=True)[-1]["event"] == "move_switched"
    assert rebalancer.act(80, may_begin=True) == []
    assert rebalancer.next_ns() is None
    assert [m["shard"] for m in rebalancer.summary()["moves"]] == [0, 2]
    assert rebalancer.summary()["planned"] == 3


def test_by_load_moves_are_bounded_and_a_moved_shard_rests(board: tuple[Board, Wiring]) -> None:
    words, wiring = board
    rebalancer = Rebalancer(words, wiring, ByLoad(every_ns=100, imbalance=1.2, moves=2))
    now, moved = 0, []
    for window in range(40):
        words.applied += np.array([9_000, 1_000, 4_000, 1_000, 2_000, 1_000]) * (window + 1)
        now += 101
        for event in rebalancer.act(now, may_begin=True):
            if event["event"] == "move_requested":
                moved.append((event["shard"], window))
                carry_out(words)
    assert len(moved) == len(rebalancer.done) == 2
    assert moved[0][0] != moved[1][0] or moved[1][1] - moved[0][1] > RESTS


# What a scenario may ask for.


def scenario(rebalance: object, **embedded: object) -> Scenario:
    platform = {"nodes": 2, "shards": 4, "rebalance": rebalance, **embedded}
    load = {"rate": "100/s", "accounts": 100, "merchants": {"count": 10}}
    return Scenario.from_data({"name": "moves", "duration": "10s", "load": load, "backend": {"embedded": platform}})


def move(at: str, shard: int, to: str) -> dict[str, object]:
    return {"at": at, "shard": shard, "to": to}


@pytest.mark.parametrize(
    "rebalance",
    ["auto", {"auto": {}}, {"auto": {"every": "1s", "imbalance": 1.5, "moves": 2}}, [move("1s", 0, "node[1]")],
     [move("2s", 0, "node[0]"), move("1s", 0, "node[1]")]],
)  # fmt: skip
def test_every_form_of_rebalance_is_read_and_written_alike(rebalance: object) -> None:
    read = scenario(rebalance)
    assert Scenario.from_data(read.to_data()) == read


@pytest.mark.parametrize(
    ("rebalance", "wrong"),
    [
        ([move("1s", 4, "node[1]")], "there is no shard 4; the last of 4 is 3"),
        ([move("1s", 0, "node[2]")], r"there is no node\[2\]; the last of 2 is node\[1\]"),
        ([move("1s", 0, "node[0]")], r"shard 0 is on node\[0\] then already"),
        ([move("1s", 0, "node[1]"), move("2s", 0, "node[1]")], r"shard 0 is on node\[1\] then already"),
        ([move("10s", 0, "node[1]")], "10s is past the end, the run lasts 10s"),
        ([move("1s", 0, "1")], "'1' is not a node; write for example"),
        ({"auto": {"every": "10s"}}, "10s is past the end, the run lasts 10s"),
        ({"auto": {"imbalance": 1.0}}, "greater than or equal to 1.01"),
        ([], "at least 1 item"),
    ],
)
def test_a_move_that_cannot_be_made_is_refused_before_the_run(rebalance: object, wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        scenario(rebalance)


def test_one_node_has_nowhere_to_move_to() -> None:
    with pytest.raises(ValidationError, match="there is only one node"):
        scenario("auto", nodes=1)


def test_the_plan_tells_the_moves() -> None:
    def told(rebalance: object) -> list[str]:
        read = scenario(rebalance)
        return [
            line[14:]
            for line in render_plan(read, plan(read), {}).splitlines()
            if " to node " in line or "by load" in line
        ]

    assert told([move("2s", 1, "node[0]"), move("1s", 0, "node[1]")]) == [
        "shard 0 to node 1 at 1s", "shard 1 to node 0 at 2s",
    ]  # fmt: skip
    assert told("auto")[0].startswith(
        "by load, when a node has over 1.25 times the mean; looked at every 5s, at most 4"
    )


def test_moves_are_planned_for_on_disk_and_in_memory() -> None:
    without, with_two = plan(scenario(None)), plan(scenario([move("1s", 0, "node[1]"), move("2s", 1, "node[0]")]))
    assert with_two.disk_bytes - without.disk_bytes == 2 * (with_two.memory_bytes - without.memory_bytes) > 0


# Whole runs.

MOVES = "[{at: 400ms, shard: 0, to: 'node[1]'}, {at: 800ms, shard: 3, to: 'node[0]'}, {at: 1200ms, shard: 0, to: 'node[0]'}]"


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("moved") / "run"
    return sim_process.run(folder, *sim_process.settings(f"backend.embedded.rebalance={MOVES}"))


def events_of(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]


def test_a_run_with_moves_ends_clean_and_says_what_moved(moved: Ended) -> None:
    summary = moved.summary
    assert moved.code == 0, moved.err
    assert sim_process.CLEAN.items() <= summary["audit"].items()
    assert summary["counts"]["unknown"] == summary["counts"]["dropped"] == 0
    assert [(m["shard"], m["from"], m["to"]) for m in summary["rebalance"]["moves"]] == [
        (0, 0, 1),
        (3, 1, 0),
        (0, 1, 0),
    ]
    assert all(0 < m["pause_ms"] <= m["took_ms"] for m in summary["rebalance"]["moves"])
    assert all(m["keys_moved"] == len(range(m["shard"], 2_050, 4)) for m in summary["rebalance"]["moves"])
    assert [s["node"] for s in summary["shards"]] == [0, 1, 0, 0]
    assert "moved       3 of 3 shards, 1,538 accounts, longest pause" in moved.out
    assert not list(moved.folder.glob("journal/*.image*"))
    times = [e["t_s"] for e in events_of(moved)]
    assert times == sorted(times)
    assert [e["event"] for e in events_of(moved) if e["event"].startswith("move")] == [
        "move_requested", "move_frozen", "move_taken", "move_switched",
    ] * 3  # fmt: skip
    report = (moved.folder / "report.html").read_text("utf-8")
    assert "Shards that moved" in report
    assert '"text":"move frozen"' in report
    assert '"text":"move taken"' not in report


def test_the_report_of_a_run_without_moves_does_not_speak_of_them(small_run: Ended) -> None:
    assert "rebalance" not in small_run.summary
    assert "Shards that moved" not in render(small_run.folder).read_text("utf-8")


@pytest.mark.parametrize("durability", ["memory", "os"])
def test_shards_move_whatever_the_durability(tmp_path: Path, durability: str) -> None:
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(f"backend.embedded.rebalance={MOVES}", f"backend.embedded.durability={durability}"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert sim_process.CLEAN.items() <= ended.summary["audit"].items()
    assert len(ended.summary["rebalance"]["moves"]) == 3


def test_kills_and_a_power_loss_among_moves_lose_nothing_and_every_move_is_made(tmp_path: Path) -> None:
    # Each of four shards goes over and back, over and back.
    moves = ", ".join(
        f"{{at: {300 + 300 * n}ms, shard: {n % 4}, to: 'node[{(n + n // 4 + 1) % 2}]'}}" for n in range(16)
    )
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "duration=6s", "load.rate=10000/s", "load.accounts=20000", "backend.embedded.remember=131072",
            "backend.embedded.nodes=2", f"backend.embedded.rebalance=[{moves}]",
            'faults=[{at: 300ms, fault: kill, target: "node[*]", every: 600ms, times: 8, spread: random}, '
            "{at: 4s, fault: power_loss}]",
        ),
    )  # fmt: skip
    summary = ended.summary
    assert sim_process.CLEAN.items() <= summary["audit"].items(), ended.err
    assert summary["counts"]["unknown"] == summary["counts"]["failed"] == summary["counts"]["dropped"] == 0
    assert len([e for e in events_of(ended) if e["event"] == "node_died"]) >= 6
    made = summary["rebalance"]["moves"]
    assert len(made) >= 2  # each waits for the one before and for nodes that come back
    owners = [0, 1, 0, 1]
    for move in made:
        assert owners[move["shard"]] == move["from"]
        owners[move["shard"]] = move["to"]
    assert [s["node"] for s in summary["shards"]] == owners


def test_by_load_an_uneven_platform_evens_itself(tmp_path: Path) -> None:
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "duration=3s", "load.merchants.zipf=3", "load.mix={payment: 1}", "backend.embedded.shards=8",
            "backend.embedded.rebalance.auto={every: 500ms, imbalance: 1.1, moves: 3}",
        ),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    summary = ended.summary
    assert summary["audit"]["verdict"] == "clean"
    hot = max(summary["shards"], key=lambda s: s["applied"])["shard"]
    made = summary["rebalance"]["moves"]
    assert 1 <= len(made) <= 3
    assert {m["from"] for m in made} == {hot % 2}  # its neighbours leave the node of the hot shard
    assert hot not in {m["shard"] for m in made}


# The audit of shards that moved.


@pytest.fixture
def books(moved: Ended, tmp_path: Path) -> Books:
    return Books.copy(moved.folder, tmp_path / "planted")


def found_in(books: Books) -> dict[str, Any]:
    books.save()
    return audit_run(books.folder).to_dict()


def custody(books: Books, leg: Custody) -> list[tuple[int, int]]:
    """(node, position) of every record of that kind, by the number of its move."""
    found = [
        (int(r[at]["id"]), n, int(at)) for n, r in enumerate(books.records) for at in np.flatnonzero(r["leg"] == leg)
    ]
    return [(n, at) for _, n, at in sorted(found)]


def test_untouched_books_of_a_run_with_moves_are_clean(books: Books) -> None:
    assert len(custody(books, Custody.MOVE_OUT)) == len(custody(books, Custody.MOVE_IN)) == 3
    found = found_in(books)
    assert (found["verdict"], found["anomalies"], found["reasons"]) == ("clean", {}, [])


def test_a_record_that_the_old_owner_books_after_the_move_is_two_writers(books: Books) -> None:
    node, at = custody(books, Custody.MOVE_OUT)[0]
    mine = books.records[node][:at]
    last = mine[mine["shard"] == 0][-1:].copy()
    books.records[node] = np.insert(books.records[node], at + 1, last)
    found = found_in(books)
    assert found["anomalies"]["two_writers"] == 1
    assert found["examples"]["two_writers"] == [int(last["id"][0])]
    assert found["anomalies"]["log_repeat"] == 1


def test_a_record_that_the_new_owner_books_before_the_move_is_two_writers(books: Books) -> None:
    node, at = custody(books, Custody.MOVE_IN)[0]
    records = books.records[node]
    first = at + 1 + int(np.flatnonzero(records[at + 1 :]["shard"] == 0)[0])
    books.records[node] = np.insert(np.delete(records, first), at, records[first])
    assert found_in(books)["examples"]["two_writers"] == [int(records[first]["id"])]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("leg", Custody)
def test_a_move_of_which_one_side_is_missing_is_found_and_the_rest_still_audited(
    books: Books, leg: Custody, number: int
) -> None:
    books.drop(*custody(books, leg)[number])
    found = found_in(books)
    assert found["anomalies"]["two_writers"] >= 1
    assert found["checked"]["records"] == sum(int((r["leg"] < Custody.MOVE_OUT).sum()) for r in books.records)


def test_the_last_record_before_a_move_is_missed(books: Books) -> None:
    node, at = custody(books, Custody.MOVE_OUT)[0]
    mine = np.flatnonzero(books.records[node][:at]["shard"] == 0)
    books.drop(node, int(mine[-1]))
    found = found_in(books)
    assert found["anomalies"]["log_gap"] == 1
    assert [reason for reason in found["reasons"] if "as it left node 0" in reason]


def test_the_journal_of_a_node_that_owns_nothing_more_is_missed_all_the_same(books: Books) -> None:
    books.save()
    books.journal(1).unlink()
    assert audit_run(books.folder).verdict == "unknown"


def test_a_shard_that_two_nodes_close_or_the_wrong_one_is_two_writers(books: Books) -> None:
    sheets = [json.loads(books.sheet(n).read_text("utf-8")) for n in range(2)]
    sheets[1]["shards"].append(next(s for s in sheets[0]["shards"] if s["shard"] == 0))
    books.sheet(1).write_text(json.dumps(sheets[1]), "utf-8")
    found = found_in(books)
    assert found["anomalies"]["two_writers"] == 1
    assert [
        r for r in found["reasons"] if r.startswith("node 1 closed the books of shard 0, but another node does too")
    ]
