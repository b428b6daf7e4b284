from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from simulator.scenario.http import Http

HERE = "http://127.0.0.1:8080"


def http(**keys: Any) -> Http:  # noqa: ANN401  whatever a scenario may say
    return Http.model_validate({"targets": [HERE], **keys})


def complaint(**keys: Any) -> str:  # noqa: ANN401  as above
    with pytest.raises(ValidationError) as caught:
        http(**keys)
    return str(caught.value)


@pytest.mark.parametrize(
    "target", [HERE, "https://pay.example:8443", "http://[::1]:80", "http://pay.example", "http://unix:/run/pay.sock"]
)
def test_a_target_is_scheme_host_and_port_or_a_socket(target: str) -> None:
    assert http(targets=[target]).targets == (target,)


@pytest.mark.parametrize("target", ["127.0.0.1:80", "ftp://a", "http://", "http://a:99999", "http://a b", "http://a:0"])
def test_what_is_no_target_is_refused_with_an_example(target: str) -> None:
    assert "write for example http://127.0.0.1:8080" in complaint(targets=[target])


def test_a_target_with_a_path_or_a_password_is_refused() -> None:
    assert "the path stands in `path`" in complaint(targets=[f"{HERE}/v1"])
    assert "would end up in every result" in complaint(targets=["http://me:secret@a:80"])


@pytest.mark.parametrize(
    "keys",
    [
        {"path": "/{ammount}"},
        {"headers": {"X": "{ammount}"}},
        {"body": {"a": {"b": ["{ammount}"]}}},
        {"requests": {"refund": {"body": {"a": "{ammount}"}}}},
    ],
)
def test_a_template_with_an_unknown_field_is_told_the_nearest(keys: dict[str, Any]) -> None:
    assert "{ammount} is no field of a transaction; did you mean amount?" in complaint(**keys)


@pytest.mark.parametrize("name", ["Content-Length", "host", "Transfer-Encoding", "Connection"])
def test_headers_that_frame_a_request_are_ours(name: str) -> None:
    assert "is written by the simulator itself" in complaint(headers={name: "5"})


def test_a_header_is_one_line_with_a_proper_name() -> None:
    assert "is no name of a header" in complaint(headers={"a b": "c"})
    assert "a header is one line" in complaint(headers={"A": "c\r\nB: d"})


def test_secrets_are_named_and_stand_in_headers_only() -> None:
    made = http(headers={"Authorization": "Bearer ${TOKEN}"}, requests={"refund": {"headers": {"X-Key": "${KEY}"}}})
    assert made.secrets == {"TOKEN", "KEY"}
    assert "secrets stand in headers only" in complaint(body={"a": "${TOKEN}"})


def test_a_kind_may_have_a_request_of_its_own_and_unknown_kinds_are_named() -> None:
    made = http(requests={"refund": {"path": "/back", "body": {"of": "{related}"}, "headers": {"X": "1"}}})
    assert made.request_of("refund") == ("POST", "/back", {"Idempotency-Key": "{key}", "X": "1"}, {"of": "{related}"})
    assert made.request_of("payment")[1] == "/v1/payments"
    assert "did you mean refund?" in complaint(requests={"refnud": {}})


def test_without_a_word_requests_are_those_of_the_reference_gateway() -> None:
    assert [http().request_of(kind)[:2] for kind in ("refund", "authorize", "post", "void", "lookup")] == [
        ("POST", "/v1/refunds"),
        ("POST", "/v1/holds"),
        ("POST", "/v1/holds/{related_key}/post"),
        ("POST", "/v1/holds/{related_key}/void"),
        ("GET", "/v1/transactions/{related_key}"),
    ]
    assert http().request_of("lookup")[2:] == ({}, None)


def test_a_status_outranks_its_class_and_is_said_once() -> None:
    answers = http(response={"failed": ["5xx"], "rejected": ["503"]}).response
    assert answers.by_status[500] == "failed"
    assert answers.by_status[503] == "rejected"
    assert "402 already means ok" in complaint(response={"ok": ["402"], "rejected": ["402"]})
    assert "is no status" in complaint(response={"ok": ["2x"]})


def test_a_field_and_its_values_come_together() -> None:
    assert "belong to a field" in complaint(response={"values": {"a": "ok"}})
    assert "says nothing without values" in complaint(response={"field": "a.b"})


def test_every_target_and_generator_has_a_connection() -> None:
    assert "write at least 6" in complaint(
        targets=[HERE, f"{HERE[:-1]}1", f"{HERE[:-1]}2"], generators=2, connections=5
    )
