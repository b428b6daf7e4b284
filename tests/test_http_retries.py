"""Retries, ejection and the trip over real sockets, and against the real gateway."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import sim_process
from backend_contract import AT_LAST_S
from gateway_process import Gateway
from socket_server import OK, Server, read_request

from simulator.backend.http.backend import HttpBackend, Options, Target
from simulator.backend.http.judge import Judge
from simulator.backend.http.template import Terms, compile_template
from simulator.balancer.fleet import Health
from simulator.dispatcher import Dispatcher, WhenFull
from simulator.measure.grid import seconds_grid
from simulator.measure.recorder import ATTEMPTS_SHIFT, HISTORY, Recorder, open_tallies
from simulator.retries import retry_policy
from simulator.scenario.balancing import Balancer
from simulator.scenario.client import Client
from simulator.transaction import OUTCOME, TRANSACTION, Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim_process import Ended

S = 1_000_000_000
RETRIES = "client.retries={max: 3, backoff: 5ms, longest: 20ms}"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
KEY = re.compile(rb"Idempotency-Key: (\S+)")


def http(*ports: int, **more: str) -> str:
    targets = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    keys = "".join(f", {name}: {value}" for name, value in more.items())
    # The machine may stand still for longer than the usual time-out, which is not what these tests are about.
    return f"backend={{http: {{targets: [{targets}], timeout: 60s{keys}}}}}"


def run(folder: Path, *settings: str) -> Ended:
    return sim_process.run(
        folder,
        "--quiet",
        *sim_process.settings(
            "duration=600ms", "load.rate=300/s", "load.mix={payment: 1}", "dispatcher.patience=60s", *settings
        ),
    )


def history(ended: Ended) -> np.ndarray[Any, Any]:
    return np.fromfile(ended.folder / "history.bin", HISTORY)


class Keys:
    """How often each idempotency key came."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def note(self, request: bytes) -> int:
        """0 for what has none, such as the request before the run."""
        found = KEY.search(request)
        if found is None:
            return 0
        with self._lock:
            self.seen[found.group(1)] += 1
            return self.seen[found.group(1)]


# ---- a run ----


def test_what_was_refused_for_want_of_room_is_sent_again_with_the_same_key_until_it_is_taken(tmp_path: Path) -> None:
    keys = Keys()

    def answer(peer: socket.socket, request: bytes) -> None:
        peer.sendall(BUSY if keys.note(request) in (1, 2) else OK)

    with Server(answer) as server:
        ended = run(tmp_path / "run", RETRIES, http(server.port, connections="16"))
    counts = ended.summary["counts"]
    assert counts["ok"] == counts["sent"] > 100
    assert set(keys.seen.values()) == {3}
    client = ended.summary["client"]
    assert (client["attempts"], client["retries"]) == (3 * counts["sent"], 2 * counts["sent"])
    assert client["amplification"] == ended.summary["balancer"]["amplification"]["client"] == 3.0
    assert client["queue_full"] == 2 * counts["sent"]
    rows = history(ended)
    assert (rows["flags"] >> ATTEMPTS_SHIFT == 2).all()
    node = ended.summary["nodes"][0]
    assert (node["sent"], node["retries"], node["amplification"]) == (client["attempts"], client["retries"], 3.0)
    assert sum(ended.series["attempts"]) == client["attempts"]
    page = (ended.folder / "report.html").read_text("utf-8")
    assert "Amplification: 3.000 attempts for each transaction." in page


def test_what_was_decided_is_not_sent_again(tmp_path: Path) -> None:
    keys = Keys()

    def answer(peer: socket.socket, request: bytes) -> None:
        keys.note(request)
        peer.sendall(b"HTTP/1.1 402 No\r\nContent-Length: 0\r\n\r\n")

    with Server(answer) as server:
        ended = run(tmp_path / "run", RETRIES, http(server.port, connections="16"))
    assert ended.summary["counts"]["rejected"] == ended.summary["counts"]["sent"]
    assert set(keys.seen.values()) == {1}


def test_answers_that_are_late_are_tried_again_and_no_attempt_outlives_the_clients_time_out(tmp_path: Path) -> None:
    keys, over = Keys(), threading.Event()

    def answer(peer: socket.socket, request: bytes) -> None:
        if keys.note(request) == 1:
            over.wait(AT_LAST_S)
        peer.sendall(OK)

    with Server(answer) as server:
        ended = run(
            tmp_path / "run", RETRIES, "client.timeout=100ms", "load.rate=100/s", http(server.port, connections="64")
        )
        over.set()
    counts = ended.summary["counts"]
    assert counts["ok"] == counts["sent"] > 30
    assert ended.summary["client"]["timeouts"] >= counts["sent"]
    assert ended.summary["response_time_ms"]["p50"] >= 100


# ---- the real gateway ----


class LosesAnswers:
    """Passes requests on to a gateway, and each answer back, but for the first to a key: then the connection ends instead."""

    def __init__(self, gateway: int) -> None:
        self._gateway = gateway
        self.keys = Keys()

    def __call__(self, peer: socket.socket, request: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", self._gateway), AT_LAST_S) as onward:
            onward.sendall(request)
            answer = read_request(onward)  # an answer has a head and a length as well
        if self.keys.note(request) == 1:
            return False
        peer.sendall(answer)
        return True


def test_a_payment_whose_answer_was_lost_is_answered_alike_and_booked_once(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        lossy = LosesAnswers(gateway.ports[0])
        with Server(lossy) as server:
            ended = run(
                tmp_path / "run", RETRIES, "load.rate=100/s", "load.accounts=1000", "load.merchants.count=10",
                http(server.port, connections="16"),
            )  # fmt: skip
        counts = ended.summary["counts"]
        assert counts["ok"] == counts["sent"] > 30
        assert set(lossy.keys.seen.values()) == {2}
        assert ended.summary["client"]["connection_reset"] == counts["sent"]
        # What came to the merchants, with their last credits, is what the clients were told is paid: each once.
        settled = ended.summary["value"]["settled_minor"]
        sim_process.until(
            lambda: sum(gateway.balance(account)[0] for account in range(1_000, 1_010)) == settled, "the last credits"
        )
        paid = [1_000 * 100 - gateway.balance(account)[0] for account in range(1_000)]
        assert sum(paid) == settled > 0


def test_gateways_that_are_killed_are_retried_past_and_the_books_are_clean(tmp_path: Path) -> None:
    ledger = "{nodes: 2, shards: 4, remember: 16_384}"
    fleet = f"backend={{http: {{fleet: {{nodes: 2, ledger: {ledger}}}, connections: 24, timeout: 60s, trip: off}}}}"
    ended = sim_process.run(
        tmp_path / "run", "--quiet",
        *sim_process.settings(
            "duration=2s", "load.rate=400/s", "load.follow_up.after=300ms", fleet,
            # However slow the machine is to start a gateway again, somebody asks after that.
            "client.retries={max: 15, backoff: 20ms, longest: 10s}", "dispatcher.patience=60s", "dispatcher.drain=120s",
            "balancer.outlier_ejection={in_a_row: 3, interval: 100ms, base: 200ms, share: 0.5}",
            "faults=[{at: 500ms, for: 300ms, fault: kill, target: 'gateway[0]'},"
            "{at: 1200ms, for: 300ms, fault: kill, target: 'gateway[1]'}]",
        ),
    )  # fmt: skip
    assert ended.summary["audit"]["verdict"] == "clean", (ended.out, ended.err)
    counts = ended.summary["counts"]
    assert (counts["failed"], counts["dropped"]) == (0, 0)
    # What is tried again is answered by the other gateway, alike; only business says no.
    assert counts["unknown"] == 0, ended.summary["reasons"]
    assert "node_down" not in ended.summary["reasons"]["rejected"]
    client, balancer = ended.summary["client"], ended.summary["balancer"]
    assert client["retries"] > 0
    assert [fault["node"] for fault in balancer["faults"]] == [0, 1]
    assert balancer["amplification"]["client"] == client["amplification"] > 1
    assert sum(ended.series["retries"]) == client["retries"] == sum(node["retries"] for node in ended.summary["nodes"])
    extra = history(ended)["flags"] >> ATTEMPTS_SHIFT
    assert int(extra.sum()) == client["retries"]


# ---- several targets ----


class Wired:
    """A dispatcher over HTTP in this process, on the machine's clock."""

    def __init__(self, ports: list[int], balancer: dict[str, Any], client: dict[str, Any]) -> None:
        terms = Terms("t-", "CNY", 2)
        targets = [
            Target(
                f"http://127.0.0.1:{port}", f"127.0.0.1:{port}", "127.0.0.1", port, None, None,
                {kind: compile_template(kind, "POST", "/pay", {}, {"id": "{id}"}, terms, f"127.0.0.1:{port}") for kind in Kind},
            )
            for port in ports
        ]  # fmt: skip
        began = time.monotonic_ns()
        self.now_ns: Callable[[], int] = lambda: time.monotonic_ns() - began
        options = Options(4, True, 5 * S, int(AT_LAST_S) * S, Judge(), b"")  # noqa: FBT003  keep-alive
        self.backend = HttpBackend(targets, options, self.now_ns)
        self.backend.open()
        self.tallies = open_tallies(seconds_grid(120), len(ports), 1, fine=True)
        policy = retry_policy(Client.model_validate(client), 1, receipts=False, requests_max=10**9)
        self.dispatcher = Dispatcher(
            self.backend, Balancer.model_validate(balancer), 1, self.tallies, Recorder(120, len(ports)),
            in_flight=4_096, patience_ns=60 * S, write=lambda _: None, when_full=WhenFull.WAIT, retry=policy,
        )  # fmt: skip
        self._next = 1
        self._outcomes = np.zeros(1_024, OUTCOME)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.backend.close()

    def turn(self, count: int = 1) -> None:
        batch = np.zeros(count, TRANSACTION)
        batch["id"] = np.arange(self._next, self._next + count)
        batch["kind"], batch["intended_ns"] = Kind.PAYMENT, self.now_ns()
        self._next += count
        self.dispatcher.release(batch, self.now_ns())
        self.backend.wait(0.001)
        while got := self.backend.poll(self._outcomes):
            self.dispatcher.settle(self._outcomes[:got], self.now_ns())
        self.dispatcher.push_held(self.now_ns())

    def until(self, condition: Callable[[], object]) -> None:
        """Keeps sending until something is so."""
        deadline = time.monotonic() + AT_LAST_S
        while not condition():
            assert time.monotonic() < deadline, "it never came to be"
            self.turn()

    def drain(self) -> None:
        deadline = time.monotonic() + AT_LAST_S
        while self.dispatcher.in_flight:
            assert time.monotonic() < deadline, "not everything was answered"
            self.turn(0)

    def events(self, node: int) -> list[Health]:
        fleet = self.dispatcher.fleet
        kept = fleet.events[: int(fleet.event_count[0])]
        return [Health(int(what)) for what in kept["what"][kept["node"] == node]]

    def refused(self) -> int:
        ended = self.tallies.attempt_ended if self.tallies.attempt_ended.any() else self.tallies.by_reason
        return int(ended[Status.REJECTED, Reason.NODE_DOWN])


EJECTION = {"in_a_row": 3, "interval": "50ms", "base": "300ms", "share": 0.5}


def says_ok(peer: socket.socket, request: bytes) -> None:
    peer.sendall(OK)


@pytest.mark.parametrize("policy", ["round_robin", "p2c", "jsq"])
def test_a_target_that_dies_is_ejected_and_comes_back_little_by_little(policy: str) -> None:
    balancer = {"policy": policy, "outlier_ejection": EJECTION, "slow_start": {"window": "200ms"}}
    with Server(says_ok) as steady:
        with Server(says_ok) as dying:
            wired = Wired([steady.port, dying.port], balancer, {"retries": {"max": 5, "backoff": "1ms"}})
            wired.until(lambda: len(dying.requests) > 5)
        with wired:
            wired.until(lambda: Health.EJECTED_IN_A_ROW in wired.events(1))
            assert Health.EJECTED_IN_A_ROW not in wired.events(0)
            before = wired.refused(), len(wired.events(1))
            for _ in range(20):  # while it is out nobody is sent to it
                wired.turn()
            if len(wired.events(1)) == before[1]:
                assert wired.refused() == before[0]
            with Server(says_ok, dying.port) as back:
                wired.until(lambda: len(back.requests) > 20)
            story = wired.events(1)
            assert (
                story.index(Health.EJECTED_IN_A_ROW) < story.index(Health.READMITTED) < story.index(Health.FIRST_SENT)
            )
            wired.until(lambda: len(steady.requests) > 100)
            wired.drain()
            # Each was answered once, and whatever fell on the dead target was tried on the other one.
            by_status = wired.tallies.by_kind.sum(axis=0)
            assert by_status[Status.PENDING] == by_status[[Status.OK, Status.UNKNOWN, Status.REJECTED]].sum()
            assert by_status[Status.OK] == by_status[Status.PENDING]
            assert wired.tallies.in_flight.tolist() == [0, 0]


def test_without_ejection_a_dead_target_refuses_at_once_and_retries_find_the_other_one() -> None:
    with Server(says_ok) as steady:
        with Server(says_ok) as dying:
            wired = Wired(
                [steady.port, dying.port], {"policy": "round_robin"}, {"retries": {"max": 5, "backoff": "1ms"}}
            )
            wired.until(lambda: len(dying.requests) > 5)
        with wired:
            wired.until(lambda: wired.refused() > 50)
            wired.drain()
            by_status = wired.tallies.by_kind.sum(axis=0)
            assert by_status[Status.OK] == by_status[Status.PENDING]
            assert wired.events(1) == []


# ---- the trip ----

# The target's books are its own, and how late a busy machine sends is not what these are about: 99 is left.
ELSEWHERE = ("books=elsewhere", "thresholds={}", "dispatcher.lag_limit=60s", "dispatcher.patience=60s")


def broken(peer: socket.socket, request: bytes) -> None:
    peer.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")


def test_retries_neither_hide_a_broken_target_from_the_trip_nor_outlive_the_stop(tmp_path: Path) -> None:
    with Server(broken) as server:
        ended = run(
            tmp_path / "run", "duration=60s", *ELSEWHERE, "client.retries={max: 15, backoff: 10s, longest: 10s}",
            http(server.port, connections="16", trip="{errors: 50%, over: 1s, least: 20}"),
        )  # fmt: skip
    # They would come for minutes yet.
    assert ended.code == 99
    assert ended.summary["counts"]["unknown"] == ended.summary["counts"]["sent"] > 0
    assert ended.summary["client"]["ended_by_the_stop"] > 0
    assert ended.summary["wall_s"] < 30


def test_a_run_whose_target_breaks_is_stopped_and_says_so_everywhere(tmp_path: Path) -> None:
    with Server(broken) as server:
        ended = run(
            tmp_path / "run",
            "duration=60s",
            *ELSEWHERE,
            http(server.port, connections="16", trip="{errors: 50%, over: 1s, least: 20}"),
        )
    assert ended.code == 99, (ended.code, ended.err)
    summary = ended.summary
    assert summary["verdict"] == "fail"
    assert summary["tripped"]["allowed"] == 0.5
    assert summary["tripped"]["share"] == 1.0
    assert 1.0 <= summary["duration_s"] < 30
    assert summary["interrupted"] is False
    assert summary["stop_reason"].startswith("the error-rate trip stopped the load after ")
    assert "backend.http.trip" in ended.out
    events = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text("utf-8").splitlines()]
    (tripped,) = [event for event in events if event["event"] == "tripped"]
    assert tripped["errors"] == tripped["answers"] >= 20
    assert all((ended.folder / name).is_file() for name in sim_process.FILES)
    counts = summary["counts"]
    assert counts["sent"] == counts["unknown"] < 60 * 300


def test_a_trip_of_a_run_that_proves_nothing_leaves_it_invalid(tmp_path: Path) -> None:
    with Server(broken) as server:
        ended = run(
            tmp_path / "run",
            "duration=60s",
            http(server.port, connections="16", trip="{errors: 50%, over: 1s, least: 20}"),
        )
    assert (ended.code, ended.summary["verdict"]) == (120, "invalid")
    assert ended.summary["tripped"] is not None
    # The trip comes first in the sentence: it is what the user has to look at.
    assert ended.out.index("the error-rate trip") < ended.out.index("books: elsewhere")


def test_a_trip_that_is_off_lets_the_run_go_to_its_end(tmp_path: Path) -> None:
    with Server(broken) as server:
        ended = run(tmp_path / "run", "duration=2s", http(server.port, connections="16", trip="off"))
    assert ended.summary["tripped"] is None
    assert ended.summary["duration_s"] == pytest.approx(2.0, abs=0.01)


# ---- several generators ----


def test_several_generators_try_again_and_their_counts_are_one_record(tmp_path: Path) -> None:
    keys = Keys()

    def answer(peer: socket.socket, request: bytes) -> None:
        peer.sendall(BUSY if keys.note(request) == 1 else OK)

    with Server(answer) as server:
        ended = run(tmp_path / "run", RETRIES, http(server.port, connections="16", generators="2"))
    counts, client = ended.summary["counts"], ended.summary["client"]
    assert counts["ok"] == counts["sent"] > 100
    assert set(keys.seen.values()) == {2}
    assert (client["attempts"], client["retries"], client["amplification"]) == (
        2 * counts["sent"], counts["sent"], 2.0,
    )  # fmt: skip
    assert ended.summary["nodes"][0]["retries"] == counts["sent"]


def test_the_trip_stops_all_generators_at_one_transaction(tmp_path: Path) -> None:
    keys = "{errors: 50%, over: 1s, least: 20}"
    with Server(broken) as server:
        ended = run(
            tmp_path / "run", "duration=60s", *ELSEWHERE, "client.retries={max: 3, backoff: 10s, longest: 10s}",
            http(server.port, connections="16", generators="2", trip=keys),
        )  # fmt: skip
    assert ended.code == 99
    assert ended.summary["verdict"] == "fail"
    counts = ended.summary["counts"]
    assert counts["sent"] == counts["unknown"] > 0
    rows = np.concatenate([np.fromfile(path, HISTORY) for path in sorted(ended.folder.glob("history*.bin"))])
    assert sorted(rows["id"].tolist()) == list(range(1, counts["offered"] + 1))
