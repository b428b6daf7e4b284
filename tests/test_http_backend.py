from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from backend_contract import AT_LAST_S, payments
from socket_server import OK, Server

from simulator.backend.http.backend import HttpBackend, Options, Target
from simulator.backend.http.judge import Judge
from simulator.backend.http.template import Terms, compile_template
from simulator.errors import BackendError
from simulator.measure.answerers import Answerers
from simulator.transaction import OUTCOME, Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

S = 1_000_000_000
TERMS = Terms("t-", "CNY", 2)


def target(port: int, body: object = None) -> Target:
    host = f"127.0.0.1:{port}"
    body = {"id": "{id}"} if body is None else body
    templates = {kind: compile_template(kind, "POST", "/pay", {}, body, TERMS, host) for kind in Kind}
    return Target(f"http://{host}", host, "127.0.0.1", port, None, None, templates)


def options(**changes: Any) -> Options:  # noqa: ANN401  any field
    made = Options(
        connections=1, keep_alive=True, connect_ns=5 * S, timeout_ns=int(AT_LAST_S) * S, judge=Judge(), identify=b""
    )
    return made._replace(**changes)


@pytest.fixture
def opened() -> Iterator[Callable[..., HttpBackend]]:
    backends: list[HttpBackend] = []

    def make(*ports: int, body: object = None, **changes: Any) -> HttpBackend:  # noqa: ANN401  any field
        counted = changes.pop("answerers", None)
        backend = HttpBackend([target(port, body) for port in ports], options(**changes), time.monotonic_ns, counted)
        backends.append(backend)
        backend.open()
        return backend

    yield make
    for backend in backends:
        backend.close()


def send(backend: HttpBackend, batch: NDArray[Any], node: int = 0) -> NDArray[Any]:
    """Offers a batch until all of it is taken, and returns the answers in the order of ids."""
    found: list[NDArray[Any]] = []
    outcomes = np.zeros(64, OUTCOME)
    sent = have = 0
    deadline = time.monotonic() + AT_LAST_S
    while have < len(batch) and time.monotonic() < deadline:
        sent += backend.offer(node, batch[sent:])
        got = backend.poll(outcomes)
        found.append(outcomes[:got].copy())
        have += got
        if not got:
            backend.wait(0.05)
    return np.sort(np.concatenate(found), order="id")


def at_last(condition: Callable[[], object]) -> None:
    """Until something is so, as often as that takes."""
    deadline = time.monotonic() + AT_LAST_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"


def says(text: bytes) -> Callable[[socket.socket, bytes], bool | None]:
    def answer(peer: socket.socket, request: bytes) -> None:
        peer.sendall(text)

    return answer


def says_and_leaves(text: bytes) -> Callable[[socket.socket, bytes], bool | None]:
    def answer(peer: socket.socket, request: bytes) -> bool:
        peer.sendall(text)
        return False

    return answer


WHOLE = {
    "a length": OK,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an interim answer before": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "old HTTP that stays": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_a_whole_answer_settles_and_the_connection_is_used_again(
    text: bytes, opened: Callable[..., HttpBackend]
) -> None:
    with Server(says(text)) as server:
        found = send(opened(server.port), payments(1, 20))
    assert found["id"].tolist() == list(range(1, 21))
    assert (found["status"] == Status.OK).all()
    assert server.connections == 1


LAST = {
    "Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nok",
    "old HTTP": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("text", LAST.values(), ids=LAST)
def test_an_answer_that_ends_its_connection_settles_and_another_connection_is_opened(
    text: bytes, opened: Callable[..., HttpBackend]
) -> None:
    with Server(says_and_leaves(text)) as server:
        found = send(opened(server.port), payments(1, 5))
    assert (found["status"] == Status.OK).all()
    assert server.connections >= 5


BROKEN = {
    "nothing": (b"", Reason.RESET),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", Reason.RESET),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Reason.RESET),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", Reason.RESET),
    "garbage": (b"220 smtp.example ready\r\n", Reason.GARBAGE),
    "an endless body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (2 << 20), Reason.GARBAGE),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzz", Reason.GARBAGE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_in_doubt_and_the_next_one_gets_a_new_connection(
    text: bytes, reason: Reason, opened: Callable[..., HttpBackend]
) -> None:
    broken = threading.Event()

    def answer(peer: socket.socket, request: bytes) -> bool | None:
        if broken.is_set():
            peer.sendall(OK)
            return None
        broken.set()
        peer.sendall(text)
        return False

    with Server(answer) as server:
        found = send(opened(server.port), payments(1, 3))
    assert found["status"].tolist() == [Status.UNKNOWN, Status.OK, Status.OK]
    assert found["reason"][0] == reason


def test_a_reset_in_the_middle_of_a_body_is_in_doubt(opened: Callable[..., HttpBackend]) -> None:
    def answer(peer: socket.socket, request: bytes) -> bool:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        return False

    with Server(answer) as server:
        found = send(opened(server.port), payments(1, 1))
    assert (found["status"][0], found["reason"][0]) == (Status.UNKNOWN, Reason.RESET)


def test_a_server_that_trickles_for_ever_runs_into_the_time_out(opened: Callable[..., HttpBackend]) -> None:
    stop = threading.Event()

    def answer(peer: socket.socket, request: bytes) -> bool:
        peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not stop.wait(0.01):
            peer.sendall(b"x")
        return False

    with Server(answer) as server:
        found = send(opened(server.port, timeout_ns=S // 5), payments(1, 1))
        stop.set()
    assert (found["status"][0], found["reason"][0]) == (Status.UNKNOWN, Reason.TIMEOUT)


def test_an_answer_before_the_request_was_read_settles_and_ends_its_connection(
    opened: Callable[..., HttpBackend],
) -> None:
    # The body is larger than any socket buffer, and the server answers after its head.
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1_000)
            peer.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
            while peer.recv(1 << 20):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        backend = opened(listener.getsockname()[1], body={"id": "{id}", "fill": "x" * (32 << 20)})
        found = send(backend, payments(1, 1))
        thread.join(AT_LAST_S)
    assert not thread.is_alive()
    assert (found["status"][0], found["reason"][0]) == (Status.REJECTED, Reason.AMOUNT)


def test_bytes_that_nobody_asked_for_end_the_connection_and_no_answer_is_mistaken(
    opened: Callable[..., HttpBackend],
) -> None:
    with Server(says(OK + b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")) as server:
        found = send(opened(server.port), payments(1, 4))
    assert set(found["status"].tolist()) <= {Status.OK, Status.UNKNOWN}
    assert found["status"][0] == Status.OK


def test_one_request_is_in_flight_on_a_connection(opened: Callable[..., HttpBackend]) -> None:
    release = threading.Event()

    def answer(peer: socket.socket, request: bytes) -> None:
        release.wait(AT_LAST_S)
        peer.sendall(OK)

    with Server(answer) as server:
        backend = opened(server.port, connections=3)
        assert backend.offer(0, payments(1, 10)) == 3
        assert backend.offer(0, payments(4, 10)) == 0
        release.set()
        outcomes = np.zeros(8, OUTCOME)
        got = 0
        while got < 3:
            backend.wait(0.05)
            got += backend.poll(outcomes)
        assert backend.offer(0, payments(4, 10)) == 3


@pytest.mark.parametrize(
    ("status", "meant", "reason"),
    [
        (200, Status.OK, Reason.NONE),
        (201, Status.OK, Reason.NONE),
        (402, Status.REJECTED, Reason.FUNDS),
        (409, Status.REJECTED, Reason.DUPLICATE),
        (429, Status.REJECTED, Reason.OVERFLOW),
        (503, Status.REJECTED, Reason.OVERFLOW),
        (418, Status.REJECTED, Reason.HTTP),
        (500, Status.UNKNOWN, Reason.HTTP),
        (302, Status.UNKNOWN, Reason.HTTP),
    ],
)
def test_a_status_means_what_http_says(
    status: int, meant: Status, reason: Reason, opened: Callable[..., HttpBackend]
) -> None:
    with Server(says(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)) as server:
        found = send(opened(server.port), payments(1, 1))
    assert (found["status"][0], found["reason"][0]) == (meant, reason)


def test_a_field_of_the_answer_can_say_what_the_status_does_not(opened: Callable[..., HttpBackend]) -> None:
    bodies = iter([b'{"r":{"state":"done"}}', b'{"r":{"state":"refused"}}', b'{"r":7}', b"no json"])

    def answer(peer: socket.socket, request: bytes) -> None:
        body = next(bodies)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    judge = Judge(path=("r", "state"), values={"done": Status.OK, "refused": Status.REJECTED})
    with Server(answer) as server:
        found = send(opened(server.port, judge=judge), payments(1, 4))
    assert found["status"].tolist() == [Status.OK, Status.REJECTED, Status.OK, Status.OK]


def test_who_answered_is_known_by_a_header(opened: Callable[..., HttpBackend]) -> None:
    names = iter([b"a", b"b", b"a"])

    def answer(peer: socket.socket, request: bytes) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nX-Node: %b\r\nContent-Length: 0\r\n\r\n" % next(names))

    with Server(answer) as server:
        counted = Answerers(1)
        send(opened(server.port, identify=b"x-node", answerers=counted), payments(1, 3))
    assert counted.names == ["a", "b"]
    assert counted.by_window.sum(axis=0).tolist() == [2, 1]
    assert [int(counted.service_of(at).sum()) for at in range(2)] == [2, 1]
    assert counted.nobody.sum() == 0


def test_each_target_has_connections_of_its_own(opened: Callable[..., HttpBackend]) -> None:
    with Server(says(OK)) as first, Server(says(OK)) as second:
        backend = opened(first.port, second.port, connections=2)
        send(backend, payments(1, 4), node=1)
        assert (len(first.requests), len(second.requests)) == (0, 4)
        assert (first.connections, second.connections) == (2, 2)


def test_a_target_that_cannot_be_reached_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    backend = HttpBackend([target(port)], options(), time.monotonic_ns)
    try:
        with pytest.raises(BackendError, match=rf"http://127.0.0.1:{port} cannot be reached: .*refused"):
            backend.open()
    finally:
        backend.close()


def test_a_target_that_goes_away_and_returns_is_used_again(opened: Callable[..., HttpBackend]) -> None:
    with Server(says(OK)) as server:
        backend = opened(server.port, connections=2)
        assert (send(backend, payments(1, 6))["status"] == Status.OK).all()
    gone = send(backend, payments(11, 6))
    # Whoever was sent on a connection that was ending is in doubt; whoever came when nobody listened was never sent.
    assert set(zip(gone["status"].tolist(), gone["reason"].tolist(), strict=True)) <= {
        (Status.UNKNOWN, Reason.RESET), (Status.REJECTED, Reason.NODE_DOWN),
    }  # fmt: skip
    assert gone["status"][-1] == Status.REJECTED
    with Server(says(OK), server.port) as again:
        ids = itertools.count(100)

        def answered() -> bool:
            backend.wait(0.01)  # a refusal is there at once, and nobody would run the loop
            return bool(send(backend, payments(next(ids), 1))["status"][0] == Status.OK)

        at_last(answered)
        assert (send(backend, payments(1_000, 6))["status"] == Status.OK).all()
        assert len(again.requests) >= 7


def test_where_nobody_listens_each_is_told_at_once_and_one_attempt_to_connect_finds_out(
    opened: Callable[..., HttpBackend],
) -> None:
    with Server(says(OK)) as server:
        backend = opened(server.port, connections=8)

    def refused() -> bool:
        backend.wait(0.01)
        return bool(send(backend, payments(1, 1))["status"][0] == Status.REJECTED)

    at_last(refused)
    batch = payments(100, 500)
    assert backend.offer(0, batch) == 500
    outcomes = np.zeros(1_000, OUTCOME)
    assert backend.poll(outcomes) == 500
    assert np.array_equal(outcomes["id"][:500], batch["id"])
    assert np.array_equal(outcomes["slot"][:500], batch["slot"])
    assert (outcomes["lsn"] == 0).all()
    assert len(backend._tasks) <= 1  # noqa: SLF001  a target that refuses is not stormed


def test_a_connection_that_ends_unannounced_leaves_at_most_its_own_request_in_doubt_and_is_replaced(
    opened: Callable[..., HttpBackend],
) -> None:
    # The server answers and closes without saying so. A request that is sent before the end has come to this side (RFC 9112,
    # 9.5) cannot be known to have been read or not: whether one is, is a race that no client can win.
    with Server(says_and_leaves(OK)) as server:
        found = send(opened(server.port, connections=2), payments(1, 40))
    told = set(zip(found["status"].tolist(), found["reason"].tolist(), strict=True))
    assert told <= {(Status.OK, Reason.NONE), (Status.UNKNOWN, Reason.RESET)}
    assert (found["status"] == Status.OK).sum() >= 20  # after one that was reset comes a new connection
    assert len(found) == 40


def test_no_answer_is_waited_for_past_the_deadline_of_its_transaction(opened: Callable[..., HttpBackend]) -> None:
    release = threading.Event()

    def answer(peer: socket.socket, request: bytes) -> None:
        release.wait(AT_LAST_S)
        peer.sendall(OK)

    with Server(answer) as server:
        backend = opened(server.port, connections=2, deadline_ns=S // 5)
        batch = payments(1, 2)
        batch["intended_ns"] = [time.monotonic_ns() - S, time.monotonic_ns()]
        found = send(backend, batch)
        release.set()
    assert (found["status"] == Status.UNKNOWN).all()
    assert (found["reason"] == Reason.TIMEOUT).all()


def test_a_mixed_batch_keeps_its_order_and_each_kind_its_own_request(opened: Callable[..., HttpBackend]) -> None:
    batch = payments(1, 6)
    batch["kind"] = [1, 2, 3, 1, 2, 1]
    with Server(says(OK)) as server:
        backend = opened(server.port, body={"id": "{id}", "kind": "{kind}"}, connections=1)
        send(backend, batch)
        bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    names = ["payment", "refund", "authorize", "payment", "refund", "payment"]
    assert bodies == [f'{{"id":{i + 1},"kind":"{name}"}}'.encode() for i, name in enumerate(names)]


def test_the_loop_takes_turns_until_one_is_the_last(opened: Callable[..., HttpBackend]) -> None:
    outcomes = np.zeros(64, OUTCOME)
    batch, left, answered = payments(1, 6), [3, 2, 1], 0

    def turn() -> float | None:
        nonlocal answered
        answered += backend.poll(outcomes)
        if left:
            assert backend.offer(0, batch[left[-1] * 2 - 2 : left[-1] * 2]) == 2
            left.pop()
            return 5.0  # an answer ends the pause: else this test would take a quarter of a minute
        return None if answered == 6 else 5.0

    with Server(says(OK)) as server:
        backend = opened(server.port, connections=6)
        began = time.monotonic()
        backend.repeat(turn)
        assert time.monotonic() - began < 5.0
    assert answered == 6


def test_what_a_turn_raises_comes_out_and_the_loop_can_go_on(opened: Callable[..., HttpBackend]) -> None:
    def breaks() -> float | None:
        raise OverflowError("the schedule")

    with Server(says(OK)) as server:
        backend = opened(server.port, connections=1)
        with pytest.raises(OverflowError, match="the schedule"):
            backend.repeat(breaks)
        pauses = [0.0, 0.001, None]
        backend.repeat(lambda: pauses.pop(0))
        assert pauses == []
        assert (send(backend, payments(1, 1))["status"] == Status.OK).all()


def test_without_keep_alive_each_request_has_a_connection_of_its_own(opened: Callable[..., HttpBackend]) -> None:
    with Server(says(OK)) as server:
        backend = opened(server.port, keep_alive=False)
        found = send(backend, payments(1, 3))
        assert found["status"].tolist() == [Status.OK] * 3
        assert server.connections >= 3
        assert len(server.requests) == 3


def test_a_request_is_never_written_to_a_socket_that_took_the_number_of_one_that_is_gone(
    opened: Callable[..., HttpBackend],
) -> None:
    # Each connection ends with its first answer, and the next one gets its number; rows and sockets must not be mixed up.
    with Server(says_and_leaves(OK)) as server:
        backend = opened(server.port, connections=4)
        found = np.concatenate([send(backend, payments(first, 8)) for first in range(1, 49, 8)])
        taken = [request.rpartition(b"\r\n\r\n")[2] for request in server.requests]
    assert len(found) == 48
    assert len(set(taken)) == len(taken)  # none was sent twice
    assert {int(key) for key in found["id"][found["status"] == Status.OK]} <= {int(text[6:-1]) for text in taken}
