from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.backend.http.template import Terms, compile_template
from simulator.scenario.http import FIELDS
from simulator.transaction import TRANSACTION, Kind

TERMS = Terms(prefix="run-7f3a-", currency="CNY", decimals=2)
JSON_TEXT = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda t: "{" not in t and "}" not in t)


def batch(*rows: dict[str, int]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    made = np.zeros(len(rows), TRANSACTION)
    for row, fields in zip(made, rows, strict=True):
        for name, value in fields.items():
            row[name] = value
    return made


def split(request: bytes) -> tuple[list[str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), body


def test_each_request_has_its_own_fields_and_its_own_length() -> None:
    template = compile_template(
        Kind.PAYMENT, "POST", "/v1/payments", {"Idempotency-Key": "{key}"},
        {"id": "{id}", "amount": "{amount}", "from": "{payer}", "note": "100% {kind}"}, TERMS, "127.0.0.1:8080",
    )  # fmt: skip
    first, second = template.render(
        batch({"id": 1, "amount_minor": 5, "payer": 9}, {"id": 12_345, "amount_minor": 1_234_567, "payer": 2})
    )
    head, body = split(first)
    assert head[0] == "POST /v1/payments HTTP/1.1"
    assert head[1:] == ["Host: 127.0.0.1:8080", "Idempotency-Key: run-7f3a-1", f"Content-Length: {len(body)}"]
    assert json.loads(body) == {"id": 1, "amount": "0.05", "from": 9, "note": "100% payment"}
    head, body = split(second)
    assert f"Content-Length: {len(body)}" in head
    assert json.loads(body) == {"id": 12_345, "amount": "12345.67", "from": 2, "note": "100% payment"}


def test_a_path_may_name_what_it_follows_up_and_needs_no_body() -> None:
    template = compile_template(Kind.POST, "POST", "/v1/holds/{related_key}/{kind}", {}, None, TERMS, "h")
    (request,) = template.render(batch({"id": 8, "related": 3}))
    assert request == b"POST /v1/holds/run-7f3a-3/post HTTP/1.1\r\nHost: h\r\n\r\n"


@given(
    st.dictionaries(
        JSON_TEXT, st.one_of(JSON_TEXT, st.integers(), st.none(), st.lists(JSON_TEXT, max_size=3)), max_size=5
    )
)
def test_what_has_no_placeholder_arrives_as_it_was_written(body: dict[str, object]) -> None:
    template = compile_template(Kind.PAYMENT, "POST", "/", {}, body, TERMS, "h")
    (request,) = template.render(batch({"id": 1}))
    head, sent = split(request)
    assert json.loads(sent) == body
    assert f"Content-Length: {len(sent)}" in head


@given(st.integers(0, 2**62), st.integers(0, 4))
def test_an_amount_in_whole_units_is_exact(minor: int, decimals: int) -> None:
    terms = Terms("k", "CNY", decimals)
    template = compile_template(Kind.PAYMENT, "POST", "/", {}, {"amount": "{amount}"}, terms, "h")
    (request,) = template.render(batch({"id": 1, "amount_minor": minor}))
    text = json.loads(split(request)[1])["amount"]
    whole, _, fraction = text.partition(".")
    assert int(whole) * 10**decimals + int(fraction or 0) == minor
    assert len(fraction) == decimals


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_stand_anywhere(field: str) -> None:
    where = f"{{{field}}}"
    template = compile_template(
        Kind.REFUND, "PUT", f"/{where}", {"X": where}, {"a": where, "b": [f"x{where}y"]}, TERMS, "h"
    )
    (request,) = template.render(batch({"id": 4, "related": 2, "amount_minor": 150}))
    head, body = split(request)
    assert "{" not in head[0]
    assert json.loads(body)["b"][0].startswith("x")


def test_a_header_cannot_smuggle_another_one() -> None:
    with pytest.raises(ValueError, match="control character"):
        compile_template(Kind.PAYMENT, "POST", "/", {"X": "a\r\nEvil: 1"}, None, TERMS, "h")


INT64, UINT64, UINT32 = st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)


@given(UINT64, UINT64, UINT32, UINT32, INT64, INT64, st.integers(0, 4))
def test_every_number_is_printed_as_python_prints_it(
    key: int, related: int, payer: int, payee: int, minor: int, intended: int, decimals: int
) -> None:
    terms = Terms("k%d-", "CNY", decimals)
    body = {"a": "{id}", "b": "{amount}", "c": ["{payer}", "x{payee}", {"d": "{amount_minor}"}], "%": "{intended_ns}"}
    template = compile_template(Kind.REFUND, "POST", "/{related_key}", {"X": "{id} {amount}"}, body, terms, "h")
    row = {
        "id": key,
        "related": related,
        "payer": payer,
        "payee": payee,
        "amount_minor": minor,
        "intended_ns": intended,
    }
    (request,) = template.render(batch(row))
    unit = 10**decimals
    amount = f"{minor // unit}.{minor % unit:0{decimals}d}" if decimals else str(minor)
    written = f'{{"a":{key},"b":"{amount}","c":[{payer},"x{payee}",{{"d":{minor}}}],"%":{intended}}}'
    head = f"POST /k%d-{related} HTTP/1.1\r\nHost: h\r\nX: {key} {amount}\r\nContent-Length: {len(written)}\r\n\r\n"
    assert request.decode() == head + written
