from __future__ import annotations

import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
import sim_process
import yaml
from gateway_process import Gateway, Got
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.gateway.keys import id_of, is_key, referred, written
from simulator.gateway.problems import PROBLEMS
from simulator.transaction import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENING = 100_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), "--node", "north", "--nodes", "2") as running:
        yield running


# ---- each route ----


def test_a_payment_moves_money_once_and_says_where_it_stands(gateway: Gateway) -> None:
    before = gateway.balance(10), gateway.balance(1_001)
    got = gateway.pay("pay-1", 10, 1_001, 250)
    assert got.status == 201
    assert got.headers["x-node"] == "north"
    assert set(got.json) == {"id", "status", "shard", "lsn"}
    assert (got.json["id"], got.json["status"], got.json["shard"]) == (written(id_of("pay-1")), "ok", 10 % 4)
    assert got.json["lsn"] > 0
    assert gateway.balance(10) == (before[0][0] - 250, 0)
    assert gateway.balance(1_001) == (before[1][0] + 250, 0)


def test_a_hold_reserves_and_is_posted_in_part_and_the_rest_is_voided(gateway: Gateway) -> None:
    transfer = {"payer": 11, "payee": 1_002, "amount_minor": 900, "currency": "CNY"}
    assert gateway.call("POST", "/v1/holds", transfer, key="hold-1").status == 201
    assert gateway.balance(11) == (OPENING - 900, 900)
    assert gateway.call("POST", "/v1/holds/hold-1/post", {"amount_minor": 400}, key="post-1").status == 201
    assert gateway.balance(11) == (OPENING - 900, 500)
    voided = gateway.call("POST", "/v1/holds/hold-1/void", {}, key="void-1")
    assert voided.status == 201
    assert gateway.balance(11) == (OPENING - 400, 0)
    # What is left is nothing by now; the repetition still asks for what it asked for the first time.
    assert gateway.call("POST", "/v1/holds/hold-1/void", {}, key="void-1") == voided._replace(
        headers=gateway.call("POST", "/v1/holds/hold-1/void", key="void-1").headers
    )
    assert gateway.call("POST", "/v1/holds/hold-1/void", {}, key="void-2").problem == "state"
    hold = gateway.call("GET", "/v1/transactions/hold-1").json
    assert (hold["kind"], hold["status"], hold["remaining_minor"]) == ("authorize", "ok", 0)


def test_a_refund_names_its_payment_by_key_or_by_id(gateway: Gateway) -> None:
    paid = gateway.pay("pay-2", 12, 1_003, 600).json
    by_key = gateway.call("POST", "/v1/refunds", {"payment": "pay-2", "amount_minor": 200}, key="refund-1")
    by_id = gateway.call("POST", "/v1/refunds", {"payment": paid["id"], "amount_minor": 400}, key="refund-2")
    assert (by_key.status, by_id.status) == (201, 201)
    assert gateway.balance(12) == (OPENING, 0)
    more = gateway.call("POST", "/v1/refunds", {"payment": "pay-2", "amount_minor": 1}, key="refund-3")
    assert (more.status, more.problem) == (422, "exceeds")
    told = gateway.call("GET", "/v1/transactions/refund-1").json
    assert (told["payer"], told["payee"], told["related"]) == (1_003, 12, paid["id"])


def test_a_transaction_is_found_by_key_and_by_id_and_a_refusal_is_remembered(gateway: Gateway) -> None:
    refused = gateway.pay("poor", 13, 1_001, OPENING + 1)
    assert (refused.status, refused.problem, refused.json["outcome"]) == (402, "funds", "rejected")
    assert refused.json["lsn"] > 0
    for name in ("poor", refused.json["id"]):
        told = gateway.call("GET", f"/v1/transactions/{name}").json
        assert (told["status"], told["reason"], told["payer"], told["amount_minor"]) == (
            "rejected", "funds", 13, OPENING + 1,
        )  # fmt: skip
    assert gateway.call("GET", "/v1/transactions/never-seen").problem == "not_found"


def test_health_metrics_and_description_are_served(gateway: Gateway) -> None:
    gateway.pay("pay-3")
    assert gateway.call("GET", "/healthz").json == {"status": "ok", "node": "north"}
    told = gateway.call("GET", "/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = told.body.decode()
    count = re.search(r'gateway_requests_total\{node="north",route="/v1/payments",status="201"\} (\d+)\n', text)
    assert count is not None
    assert int(count.group(1)) >= 1
    assert f'_count{{node="north",route="/v1/payments"}} {count.group(1)}' in text or "402" in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \S+ .+|[a-z_]+\{[^{}]*(\{id\}[^{}]*)*\} \S+", line), line
    described = yaml.safe_load(gateway.call("GET", "/openapi.yaml").body)
    assert described == yaml.safe_load(files("simulator.gateway").joinpath("openapi.yaml").read_text("utf-8"))


def test_the_description_has_every_route_and_every_status(gateway: Gateway) -> None:
    described = yaml.safe_load(files("simulator.gateway").joinpath("openapi.yaml").read_text("utf-8"))
    for path, methods in described["paths"].items():
        for method in ("GET", "POST", "DELETE"):
            got = gateway.call(method, path.replace("{id}", "nobody"))
            assert (got.problem == "method") == (method.lower() not in methods), (method, path)
            assert got.problem != "no-such-path"
    booking = described["paths"]["/v1/payments"]["post"]["responses"]
    served = {str(problem.status) for name, problem in PROBLEMS.items() if name not in ("no-such-path", "method")}
    assert set(booking) == {"201", *served}


def test_every_reason_of_the_ledger_that_a_client_may_meet_is_a_problem() -> None:
    met = {
        Reason.FUNDS, Reason.DUPLICATE, Reason.OVERFLOW, Reason.NOT_FOUND, Reason.EXCEEDS, Reason.STATE, Reason.ACCOUNT,
        Reason.AMOUNT, Reason.LIMIT, Reason.POISON,
    }  # fmt: skip
    assert {reason.name.lower() for reason in met} <= PROBLEMS.keys()


# ---- idempotency ----


def test_the_same_key_and_body_is_booked_once_and_answered_alike(gateway: Gateway) -> None:
    before = gateway.balance(20)
    answers = {gateway.pay("again", 20, 1_004, 70).body for _ in range(3)}
    with ThreadPoolExecutor(8) as pool:
        answers |= {got.body for got in pool.map(lambda _: gateway.pay("again", 20, 1_004, 70), range(16))}
    assert len(answers) == 1
    assert gateway.balance(20) == (before[0] - 70, 0)


@pytest.mark.parametrize(
    "other",
    [{"amount_minor": 71}, {"payee": 1_005}, {"payer": 25}, {"payer": 22}],
    ids=["amount", "payee", "shard", "payer"],
)
def test_the_same_key_for_something_else_is_refused(gateway: Gateway, other: dict[str, int]) -> None:
    said = {"payer": 21, "payee": 1_004, "amount_minor": 70}
    gateway.call("POST", "/v1/payments", said, key="mine")
    got = gateway.call("POST", "/v1/payments", {**said, **other}, key="mine")
    assert (got.status, got.problem) == (409, "duplicate")
    assert gateway.call("POST", "/v1/holds", said, key="mine").problem == "duplicate"


def test_a_refusal_stays_a_refusal_under_its_key(gateway: Gateway) -> None:
    first = gateway.pay("stays", 23, 1_001, OPENING * 2)
    assert gateway.pay("stays", 23, 1_001, OPENING * 2).body == first.body


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255))
def test_a_key_has_one_id_of_63_bits(key: str) -> None:
    number = id_of(key)
    assert 0 < number < 1 << 63
    assert referred(written(number)) == number
    if is_key(key):
        assert referred(key) == number


@settings(max_examples=20)
@given(st.text(max_size=5).filter(lambda text: any(not "!" <= c <= "~" for c in text)))
def test_what_is_no_visible_ascii_is_no_key(text: str) -> None:
    assert not is_key(text)
    assert referred(text) is None


def test_the_id_of_a_key_never_changes() -> None:
    # Written down: journals that exist name their transactions so.
    assert id_of("a1") == 0x1F6566910330ED1B


# ---- bad input ----

PAYMENT = b'{"payer":1,"payee":2,"amount_minor":3}'
BAD = {
    "no JSON": (b"{", 400, "malformed"),
    "no object": (b"[1]", 400, "malformed"),
    "nothing": (b"", 400, "malformed"),
    "nested": (b"[" * 9_000, 400, "malformed"),
    "not UTF-8": (b'{"payer":"\xff"}', 400, "malformed"),
    "a field missing": (b'{"payer":1,"payee":2}', 400, "malformed"),
    "a field too many": (PAYMENT[:-1] + b',"fee":1}', 400, "malformed"),
    "a field twice": (PAYMENT[:-1] + b',"amount_minor":4}', 400, "malformed"),
    "a float": (b'{"payer":1,"payee":2,"amount_minor":3.5}', 400, "malformed"),
    "a float that is whole": (b'{"payer":1,"payee":2,"amount_minor":3.0}', 400, "malformed"),
    "a text": (b'{"payer":"1","payee":2,"amount_minor":3}', 400, "malformed"),
    "a bool": (b'{"payer":true,"payee":2,"amount_minor":3}', 400, "malformed"),
    "null": (b'{"payer":null,"payee":2,"amount_minor":3}', 400, "malformed"),
    "not a number": (b'{"payer":1,"payee":2,"amount_minor":NaN}', 400, "malformed"),
    "nothing to pay": (b'{"payer":1,"payee":2,"amount_minor":0}', 400, "malformed"),
    "less than nothing": (b'{"payer":1,"payee":2,"amount_minor":-1}', 400, "malformed"),
    "beyond 64 bits": (b'{"payer":1,"payee":2,"amount_minor":9223372036854775808}', 400, "malformed"),
    "beyond all bounds": (b'{"payer":1,"payee":2,"amount_minor":' + b"9" * 6_000 + b"}", 400, "malformed"),
    "beyond 32 bits": (b'{"payer":4294967296,"payee":2,"amount_minor":3}', 400, "malformed"),
    "a negative account": (b'{"payer":-1,"payee":2,"amount_minor":3}', 400, "malformed"),
    "another currency": (PAYMENT[:-1] + b',"currency":"EUR"}', 422, "currency"),
    "no such payer": (b'{"payer":5000,"payee":2,"amount_minor":3}', 422, "account"),
    "no such payee": (b'{"payer":1,"payee":5000,"amount_minor":3}', 422, "account"),
    "to oneself": (b'{"payer":1,"payee":1,"amount_minor":3}', 422, "account"),
    "too large": (b" " * 20_000 + PAYMENT, 413, "too-large"),
}


@pytest.mark.parametrize(("body", "status", "problem"), BAD.values(), ids=BAD)
def test_a_bad_body_is_refused_with_a_problem(gateway: Gateway, body: bytes, status: int, problem: str) -> None:
    before = gateway.balance(1)
    got = gateway.call("POST", "/v1/payments", body, key=f"bad-{hash(body)}")
    assert (got.status, got.problem) == (status, problem)
    assert got.json["title"] == PROBLEMS[problem].title
    assert got.headers["x-node"] == "north"
    assert gateway.balance(1) == before


@pytest.mark.parametrize("key", [None, "", "with space", "é", "k" * 256, "tx_0123456789abcdef"])
def test_a_bad_key_is_refused(gateway: Gateway, key: str | None) -> None:
    got = gateway.call("POST", "/v1/payments", PAYMENT, key=key)
    assert (got.status, got.problem) == (400, "idempotency-key")


def test_what_is_not_json_by_its_type_is_refused(gateway: Gateway) -> None:
    got = gateway.call("POST", "/v1/payments", PAYMENT, key="form", Content_Type="application/x-www-form-urlencoded")
    assert (got.status, got.problem) == (415, "media-type")


@pytest.mark.parametrize("account", ["1010", "-1", "1e3", "99999999999999999999", "x", "%00", "%D9%A1"])
def test_what_is_no_account_is_not_found(gateway: Gateway, account: str) -> None:
    assert gateway.call("GET", f"/v1/accounts/{account}").problem == "not_found"


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        got = b""
        while more := peer.recv(65_536):
            got += more
    return got


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/payments HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    ],
)  # fmt: skip
def test_garbage_gets_no_traceback_and_harms_nobody(gateway: Gateway, request_: bytes) -> None:
    got = raw(gateway.ports[0], request_)
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")) or not got
    assert b"Traceback" not in got
    assert b"/simulator/" not in got
    assert gateway.call("GET", "/healthz").status == 200
    assert "Traceback" not in gateway.err.read_text("utf-8")


# ---- limits ----


def test_beyond_the_rate_requests_are_told_so_and_book_nothing(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--rate", "20") as gateway:
        answers = [gateway.pay(f"r{number}") for number in range(60)]
        refused = [got for got in answers if got.status == 429]
        assert refused
        assert {got.problem for got in refused} == {"rate-limit"}
        assert {got.headers["retry-after"] for got in refused} == {"1"}
        assert {got.status for got in answers} == {201, 429}
        assert gateway.call("GET", "/healthz").status == 200  # whoever looks after it is never limited


# ---- life and death ----


def test_a_node_of_the_ledger_that_is_killed_loses_nothing_of_what_was_answered(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--nodes", "2") as gateway:
        node = min(sim_process.children(gateway.process.pid))  # nodes are forked before gateways
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(gateway.pay, f"k{number}", number % 100, 1_001, 1) for number in range(200)]
            os.kill(node, signal.SIGKILL)
            answers = [one.result() for one in asked]
        assert {got.status for got in answers} <= {201, 503, 504}
        paid = sum(got.status == 201 for got in answers)
        assert paid > 0
        for number, got in enumerate(answers):
            if got.status == 201:
                assert gateway.pay(f"k{number}", number % 100, 1_001, 1).body == got.body
        assert gateway.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_it_has_and_closes_the_books(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "books"
    with Gateway(tmp_path, "--folder", str(folder), "--nodes", "2") as gateway:
        stopped = False

        def pay(at: int) -> Got | OSError:
            try:
                return gateway.pay(f"s{at}", at % 500, 1_001, 1)
            except OSError as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(pay, at) for at in range(200)]
            asked[40].result()
            gateway.process.send_signal(number)
            ended = [one.result() for one in asked]
            stopped = gateway.process.wait(sim_process.PATIENCE_S) == 0
        assert stopped, gateway.err.read_text("utf-8")
        answers = [one for one in ended if isinstance(one, Got)]
        assert {got.status for got in answers} <= {201, 503}
        assert "the books are closed" in gateway.out.read_text("utf-8")
        assert len(list(folder.glob("node-*.closing.json"))) == 2
        paid = sum(got.status == 201 for got in answers)
    with Gateway(tmp_path, "--folder", str(folder), "--nodes", "2") as again:
        # Everything that was answered is there; what was cut off before it had an answer may be as well.
        assert paid <= again.balance(1_001)[0] <= len(ended)
    other = sim_process.call("serve", "--folder", str(folder), "--nodes", "2", "--shards", "4", "--port", "0")
    assert other.code == 2
    assert "was written with --accounts 1000, not 100000" in other.err


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--nodes", "2", "--gateways", "2") as gateway:
        session = gateway.process.pid
        assert len(sim_process.members(session)) == 5
        before = sim_process.shared_memory()
        gateway.process.kill()
        gateway.process.wait()
        sim_process.until(lambda: not sim_process.members(session), "children to die with their parent")
        assert sim_process.shared_memory() <= before


def test_a_gateway_that_is_killed_comes_back_at_its_port_and_the_others_go_on(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--gateways", "3", "--node", "g") as gateway:
        first = gateway.pay("x", port=1)
        assert first.headers["x-node"] == "g-1"
        victim = sorted(sim_process.children(gateway.process.pid))[-2]
        os.kill(victim, signal.SIGKILL)
        sim_process.until(lambda: "gateway ready" in gateway.err.read_text("utf-8"), "the gateway's return")
        assert {gateway.pay("x", port=port).body for port in range(3)} == {first.body}
        assert gateway.stop() == 0


# ---- the command line ----


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--host", "0.0.0.0"], "add --expose"),  # noqa: S104  refused
        (["--host", "nowhere"], "is no address"),
        (["--balance", "lots"], "--balance"),
        (["--shards", "2", "--nodes", "4"], "write at least 4"),
        (["--remember", "5000"], "not a power of two"),
        (["--port", "65535", "--gateways", "2"], "past port 65535"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(flags: list[str], says: str) -> None:
    ended = sim_process.call("serve", *flags)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = sim_process.call("serve", "--port", str(taken.getsockname()[1]), cwd=tmp_path)
    assert ended.code == 1
    assert re.fullmatch(r"sim: 127\.0\.0\.1:\d+ cannot be listened on: Address already in use\n", ended.err)
