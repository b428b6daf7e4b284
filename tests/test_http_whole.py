from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from backend_contract import AT_LAST_S, payments
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.backend.http.backend import HttpBackend, Options, Target
from simulator.backend.http.judge import Judge
from simulator.backend.http.template import Terms, compile_template
from simulator.backend.http.whole import whole_response
from simulator.bench.sink import ANSWER
from simulator.transaction import OUTCOME, Kind, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = [
    "Content-Length", "content-length", "Connection", "Transfer-Encoding", "Keep-Alive", "Upgrade", "Proxy-Connection",
    "Server", "Date", "X-Node", "Set-Cookie", "Content-Type",
]  # fmt: skip
VALUES = [
    "keep-alive", "Keep-Alive", "close", "chunked", "identity", "h2c", "keep-alive, x", "text/plain; a=b", "", "5", "0",
    "nginx/1.22.1",
]  # fmt: skip
LINES = st.tuples(st.sampled_from(NAMES), st.sampled_from([":", ": ", ":  "]), st.sampled_from(VALUES))


HARMLESS = [
    ("Server", ": ", "nginx/1.22.1"),
    ("X-Node", ":", ""),
    ("connection", ":  ", "Keep-Alive"),
    ("Date", ": ", "now"),
]


@st.composite
def usual(draw: st.DrawFn) -> bytes:
    """Whole ones with a length, on a connection that stays."""
    body = draw(st.binary(max_size=12))
    lines = [f"{name}{colon}{value}" for name, colon, value in draw(st.lists(st.sampled_from(HARMLESS), max_size=3))]
    lines.insert(draw(st.integers(0, len(lines))), f"{draw(st.sampled_from(NAMES[:2]))}: {len(body)}")
    status = draw(st.sampled_from([200, 201, 299, 302, 402, 429, 500, 599]))
    return (
        "\r\n".join([f"HTTP/1.1 {status} {draw(st.sampled_from(['OK', 'Not at all', '']))}", *lines, "", ""]).encode()
        + body
    )


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Such as are nearly whole: other versions and statuses, headers that mean much, a byte changed or too many."""
    version = draw(st.sampled_from(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2.0", "http/1.1"]))
    status = draw(
        st.sampled_from([200] * 8 + [100, 101, 199, 201, 204, 299, 304, 402, 404, 409, 429, 500, 503, 599, 600])
    )
    reason = draw(st.sampled_from([" OK", " Not at all", " ", ""]))
    body = draw(st.binary(max_size=12))
    lines = [f"{name}{colon}{value}" for name, colon, value in draw(st.lists(LINES, max_size=3))]
    told = len(body) + draw(st.sampled_from([0] * 6 + [-1, 1]))
    lines.insert(draw(st.integers(0, len(lines))), f"{draw(st.sampled_from(NAMES[:2]))}: {max(told, 0)}")
    text = "\r\n".join([f"{version} {status}{reason}", *lines, "", ""]).encode() + body
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + bytes([draw(st.integers(0, 255))]) + text[at + 1 :]
    return text


def at_a_glance(text: bytes) -> int:
    data = np.zeros(1 << 12, np.uint8)
    data[: len(text)] = np.frombuffer(text, np.uint8)
    return int(whole_response(data, len(text)))


class Heard:
    """What llhttp makes of bytes."""

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.whole: list[tuple[int, bool]] = []  # status, and whether the connection stays
        self.broken = False

    def feed(self, data: bytes) -> Heard:
        try:
            self.parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.broken = True
        return self

    def on_message_complete(self) -> None:
        self.whole.append((self.parser.get_status_code(), self.parser.should_keep_alive()))


@settings(max_examples=1_500, deadline=None)  # a kernel may be compiled first
@given(st.one_of(usual(), responses()))
def test_what_is_whole_at_a_glance_is_one_message_to_the_parser_and_keeps_the_connection(text: bytes) -> None:
    status = at_a_glance(text)
    if not status:
        return  # the parser decides
    heard = Heard().feed(text)
    assert (heard.whole, heard.broken) == ([(status, True)], False)
    assert heard.feed(ANSWER).whole[1:] == [(200, True)]  # and the parser that saw it is where one that did not is


@settings(deadline=None)
@given(usual(), st.data())
def test_a_part_of_a_response_and_one_with_more_behind_it_are_left_to_the_parser(
    text: bytes, data: st.DataObject
) -> None:
    assert at_a_glance(text) == int(text[9:12])
    assert at_a_glance(text[: data.draw(st.integers(0, len(text) - 1))]) == 0
    assert at_a_glance(text + data.draw(st.binary(min_size=1, max_size=8))) == 0


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 3\r\nServer: aiohttp\r\n\r\n{}\n",
    ],
)
def test_what_servers_commonly_say_is_recognised(text: bytes) -> None:
    assert at_a_glance(text) == int(text[9:12])


class Served:
    """A backend with one connection to a Unix socket of this thread."""

    def __init__(self, path: Path, **changes: Any) -> None:  # noqa: ANN401  any option
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        templates = {
            kind: compile_template(kind, "POST", "/", {}, {"id": "{id}"}, Terms("t-", "CNY", 2), "h") for kind in Kind
        }
        options = Options(
            connections=1, keep_alive=True, connect_ns=10**9, timeout_ns=60 * 10**9, judge=Judge(), identify=b""
        )._replace(**changes)
        self.backend = HttpBackend([Target("it", "h", str(path), 0, None, None, templates)], options, time.monotonic_ns)
        self.backend.open()
        self.peer, _ = listener.accept()
        listener.close()

    def told(self, chunks: Sequence[bytes]) -> tuple[int, int, int]:
        """What becomes of a request that is answered with these chunks, and then the server leaves."""
        outcomes = np.zeros(8, OUTCOME)
        try:
            assert self.backend.offer(0, payments(1, 1)) == 1
            with self.peer as peer:
                assert peer.recv(1_000).startswith(b"POST / HTTP/1.1\r\n")
                for chunk in chunks:
                    try:
                        peer.sendall(chunk)
                    except BrokenPipeError:
                        break  # what came before was answer enough
                    self.backend.wait(0.000_5)
            deadline = time.monotonic() + AT_LAST_S
            while not (found := self.backend.poll(outcomes)) and time.monotonic() < deadline:
                self.backend.wait(0.05)
            return found, int(outcomes["status"][0]), int(outcomes["reason"][0])
        finally:
            self.backend.close()


@settings(max_examples=120, deadline=None)
@given(st.one_of(usual(), responses()), st.data())
def test_however_an_answer_is_cut_it_means_what_the_parser_alone_makes_of_it(text: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=3)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    with tempfile.TemporaryDirectory() as name:
        found = Served(Path(name) / "a").told(chunks)
        parsed = Served(Path(name) / "b", identify=b"x-nobody").told(
            chunks
        )  # a header is wanted: no answer at a glance
    assert found == parsed
    assert found[0] == 1
    assert found[1] != Status.PENDING
