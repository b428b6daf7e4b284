"""Runs whose books are not here: what their scenario says of it, what can be audited all the same, and what they never claim."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import fake_run
import numpy as np
import pytest
import sim_process
from pydantic import ValidationError
from socket_server import OK, Server

from simulator.audit.auditor import audit_run
from simulator.audit.findings import BY_CLIENTS, Books
from simulator.cli import main
from simulator.errors import Exit
from simulator.measure.recorder import HISTORY, REORDERED, SECOND
from simulator.report import render, wording
from simulator.report.junit import junit
from simulator.report.markdown import markdown
from simulator.report.summary import exit_code, verdict_of
from simulator.report.terminal import print_summary
from simulator.scenario.model import Scenario
from simulator.scenario.plan import plan, render_plan
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from sim_process import Ended

NOT_AUDITED = "money not audited: the target keeps its own books"
HTTP: dict[str, Any] = {"http": {"targets": ["http://127.0.0.1:9"]}}


# ---- in the scenario ----


def scenario(**keys: Any) -> Scenario:  # noqa: ANN401  any part of a scenario
    return Scenario.from_data({"name": "x", "duration": "5s", "load": {"rate": "10/s"}, "backend": HTTP, **keys})


def complaint(**keys: Any) -> str:  # noqa: ANN401  as above
    with pytest.raises(ValidationError) as caught:
        scenario(**keys)
    return str(caught.value)


def test_books_elsewhere_is_written_as_it_was_read() -> None:
    said = scenario(books="elsewhere")
    assert said.books == "elsewhere"
    assert said.to_data()["books"] == "elsewhere"
    assert Scenario.from_data(said.to_data()) == said
    assert "books" not in scenario().to_data()


@pytest.mark.parametrize("backend", [{"embedded": {}}, {"http": {"fleet": {"nodes": 2}}}], ids=["embedded", "fleet"])
def test_a_run_that_keeps_its_own_books_cannot_disown_them(backend: dict[str, Any]) -> None:
    assert "this run keeps its own books" in complaint(books="elsewhere", backend=backend)


def test_noop_has_no_books_anywhere() -> None:
    assert "noop books nothing" in complaint(books="elsewhere", backend={"noop": {}})


def test_a_threshold_on_the_audit_contradicts_books_that_nobody_audits() -> None:
    said = complaint(books="elsewhere", thresholds={"audit": ["anomalies == 0"]})
    assert "nothing audits books that are kept elsewhere" in said


def test_only_elsewhere_can_be_said_of_books() -> None:
    assert "elsewhere" in complaint(books="nowhere")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"books": "elsewhere"}, "elsewhere: money is not audited"),
        ({}, "it ends with 120, unless the scenario says books: elsewhere"),
        ({"backend": {"noop": {}}}, ""),
        ({"backend": {"embedded": {}}}, ""),
    ],
    ids=["said", "not said", "noop", "embedded"],
)
def test_a_plan_tells_before_the_run_who_audits_the_money(keys: dict[str, Any], told: str) -> None:
    made = scenario(**keys)
    lines = [line for line in render_plan(made, plan(made), {}).splitlines() if line.startswith("books")]
    assert [told in line for line in lines] == ([True] if told else [])


# ---- what clients were told, against itself ----


def told(count: int) -> np.ndarray[Any, Any]:
    """The history of so many payments that ended ok; answers say no position."""
    rows = np.zeros(count, HISTORY)
    rows["id"] = np.arange(1, count + 1)
    rows["status"], rows["kind_reason"] = Status.OK, Kind.PAYMENT
    return rows


def again(key: int, status: Status, reason: Reason = Reason.NONE) -> np.ndarray[Any, Any]:
    """A second answer."""
    row = np.zeros(1, HISTORY)
    row["id"], row["flags"], row["status"], row["kind_reason"] = key, SECOND, status, reason << 3
    return row


def found_in(folder: Path, *rows: np.ndarray[Any, Any], books: Books = Books.ELSEWHERE) -> dict[str, Any]:
    np.concatenate(rows).tofile(folder / "history.bin")
    return audit_run(folder, books=books).to_dict()


def named(found: dict[str, Any]) -> dict[str, list[int]]:
    return dict(found["examples"])


def test_one_end_for_each_leaves_nothing_open_and_proves_no_money(tmp_path: Path) -> None:
    found = found_in(tmp_path, told(100))
    assert (found["verdict"], found["books"], found["doubts"], found["anomalies"]) == ("unknown", "elsewhere", 0, {})
    assert found["conservation_minor"] is None
    assert found["checked"]["transactions"] == 100
    assert set(found["looked_for"]) == set(BY_CLIENTS)


@pytest.mark.parametrize("rows", [[5, 5], [5], [7, 7, 9]], ids=["one twice", "one not at all", "one for another"])
def test_a_history_that_does_not_have_each_transaction_once_is_a_doubt(tmp_path: Path, rows: list[int]) -> None:
    kept = told(10)
    broken = np.concatenate([kept[~np.isin(kept["id"], (5, 6))], *(kept[row - 1 : row] for row in rows)])
    found = found_in(tmp_path, broken)
    assert (found["verdict"], found["doubts"]) == ("unknown", 1)


def test_a_second_answer_that_says_the_same_is_lawful(tmp_path: Path) -> None:
    assert found_in(tmp_path, told(10), again(4, Status.OK))["anomalies"] == {}


def test_two_acknowledgements_of_one_id_that_differ_are_an_anomaly(tmp_path: Path) -> None:
    found = found_in(tmp_path, told(10), again(4, Status.REJECTED, Reason.FUNDS))
    assert (found["verdict"], named(found)) == ("anomalies", {"idempotency": [4]})


def test_an_answer_to_what_nobody_sent_is_an_anomaly(tmp_path: Path) -> None:
    assert named(found_in(tmp_path, told(10), again(77, Status.OK))) == {"unasked": [77]}


def test_an_ok_before_what_had_been_acknowledged_is_an_anomaly(tmp_path: Path) -> None:
    rows = told(10)
    rows["flags"][2] = REORDERED
    assert named(found_in(tmp_path, rows)) == {"reordered": [3]}


def test_a_run_without_a_history_is_a_doubt(tmp_path: Path) -> None:
    found = audit_run(tmp_path, books=Books.ELSEWHERE).to_dict()
    assert (found["verdict"], found["doubts"]) == ("unknown", 1)


# ---- the verdict ----


def test_only_books_that_are_said_to_be_elsewhere_let_a_run_pass_unaudited() -> None:
    ended: dict[str, Any] = {"failure": None, "interrupted": False, "validity": {"verdict": "valid"}, "thresholds": []}
    for books, doubts, verdict, code in (
        ("elsewhere", 0, "pass", Exit.OK),
        ("none", 0, "pass", Exit.OK),
        ("elsewhere", 1, "fail", Exit.ERROR),
        ("undeclared", 0, "invalid", Exit.INVALID_RUN),
        ("here", 0, "fail", Exit.ERROR),
    ):
        audit = {"verdict": "unknown", "books": books, "doubts": doubts}
        assert exit_code({**ended, "audit": audit}) == code, books
        assert verdict_of(audit, "valid", None, passed=True) == verdict, books
        assert exit_code({**ended, "audit": {**audit, "verdict": "anomalies"}}) == Exit.ANOMALIES


# ---- in words ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that passed and whose target keeps its own books."""
    run = fake_run.write(tmp_path / "run")
    found = audit_run(run, books=Books.ELSEWHERE).to_dict() | {"doubts": 0, "reasons": []}
    fake_run.write_json(run / "audit.json", found)
    summary = fake_run.summary(run)
    summary["audit"] = {key: found[key] for key in ("verdict", "books", "doubts", "anomalies", "conservation_minor")}
    fake_run.write_json(run / "summary.json", summary)
    return run


CLAIMS = ("accounted for", "every transaction is in the books", "books balance", "created or lost</dt><dd>0", "lost: 0")


def test_everything_that_a_run_is_told_in_says_that_money_was_not_audited(folder: Path) -> None:
    summary = fake_run.summary(folder)
    sentence = wording.sentence(summary)
    assert sentence.startswith("PASS: ")
    assert NOT_AUDITED in sentence
    said = str(fake_terminal(summary, folder))
    assert NOT_AUDITED in said
    assert "by the answers" in said
    render(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert NOT_AUDITED.capitalize() in page
    paper = markdown([("run", summary)])
    assert "money not audited" in paper
    for text in (sentence, said, page, paper):
        assert not [claim for claim in CLAIMS if claim in text]


def fake_terminal(summary: dict[str, Any], folder: Path) -> str:
    from io import StringIO  # noqa: PLC0415  only here

    from rich.console import Console  # noqa: PLC0415  likewise

    out = StringIO()
    print_summary(Console(file=out, width=80), summary, folder)
    return " ".join(out.getvalue().split())


def test_junit_skips_what_was_not_audited_and_fails_what_nobody_answers_for(folder: Path) -> None:
    summary = fake_run.summary(folder)
    case = ET.fromstring(junit([("run", summary)])).find("testsuite/testcase[@name='audit']/skipped")  # noqa: S314  our own
    assert case is not None
    assert case.get("message") == NOT_AUDITED
    summary["audit"]["books"] = "undeclared"
    error = ET.fromstring(junit([("run", summary)])).find("testsuite/testcase[@name='audit']/error")  # noqa: S314  our own
    assert error is not None
    assert "books: elsewhere" in str(error.get("message"))


def test_a_run_that_did_not_pass_says_it_too(folder: Path) -> None:
    summary = fake_run.summary(folder) | {"verdict": "fail"}
    summary["thresholds"][0]["passed"] = False
    assert wording.sentence(summary).count(NOT_AUDITED) == 1
    summary["audit"] |= {"verdict": "anomalies", "anomalies": {"idempotency": 1}}
    assert "audit found 1 anomaly (idempotency 1)" in wording.sentence(summary)
    assert NOT_AUDITED in wording.sentence(summary)


# ---- whole runs ----


def says_ok(peer: socket.socket, request: bytes) -> None:
    peer.sendall(OK)


def ended_of(folder: Path, *settings: str, answer: Callable[[socket.socket, bytes], bool | None] = says_ok) -> Ended:
    with Server(answer) as server:
        target = f'backend={{http: {{targets: ["http://127.0.0.1:{server.port}"], connections: 8}}}}'
        return sim_process.run(
            folder, "--quiet", *sim_process.settings("duration=500ms", "load.rate=300/s", target, *settings)
        )


def test_a_run_against_a_users_own_target_can_pass_and_is_audited_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = ended_of(tmp_path / "run", "books=elsewhere", 'thresholds={failed: "count == 0"}')
    assert (ended.code, ended.summary["verdict"]) == (0, "pass"), ended.out
    assert ended.summary["validity"] == {"verdict": "valid", "reasons": []}
    assert NOT_AUDITED in ended.out
    assert json.loads((ended.folder / "audit.json").read_text("utf-8"))["books"] == "elsewhere"
    assert main(["audit", str(ended.folder)]) == 0
    assert NOT_AUDITED in capsys.readouterr().out


def test_a_threshold_that_is_crossed_fails_it_with_99(tmp_path: Path) -> None:
    ended = ended_of(tmp_path / "run", "books=elsewhere", 'thresholds={ok: "count < 1"}')
    assert (ended.code, ended.summary["verdict"]) == (99, "fail")
    assert NOT_AUDITED in ended.out


def test_a_run_that_says_nothing_of_books_proves_nothing_and_names_the_key(tmp_path: Path) -> None:
    ended = ended_of(tmp_path / "run", "thresholds={}")
    assert (ended.code, ended.summary["verdict"]) == (120, "invalid")
    assert ended.summary["validity"]["verdict"] == "valid"
    assert "books: elsewhere" in ended.out
    assert ended.out.count("\n") == 1


def twice(second: bytes) -> Callable[[socket.socket, bytes], bool | None]:
    """Answers ok, and one request in ten once more."""
    seen: list[int] = []

    def answer(peer: socket.socket, request: bytes) -> None:
        seen.append(1)
        peer.sendall(OK + (second if request.startswith(b"POST") and not len(seen) % 10 else b""))

    return answer


def test_a_target_that_answers_one_request_twice_and_differently_is_caught(tmp_path: Path) -> None:
    no = b"HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\n\r\n"
    ended = ended_of(tmp_path / "run", "books=elsewhere", "thresholds={}", answer=twice(no))
    assert ended.code == 122, ended.out
    assert set(ended.summary["audit"]["anomalies"]) == {"idempotency"}
    assert NOT_AUDITED in ended.out


@pytest.mark.parametrize(
    "second",
    [
        OK,
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"no http at all",
    ],
    ids=["the same", "idle too long", "undecided", "garbage"],
)
def test_what_else_comes_unasked_contradicts_nothing(tmp_path: Path, second: bytes) -> None:
    ended = ended_of(tmp_path / "run", "books=elsewhere", 'thresholds={ok: "count > 50"}', answer=twice(second))
    assert (ended.code, ended.summary["audit"]["anomalies"]) == (0, {}), ended.out
