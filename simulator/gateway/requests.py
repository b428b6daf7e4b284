"""What requests may say: bodies read strictly, unknown and repeated fields refused, every number an integer within its bounds."""

from __future__ import annotations

import json
from typing import NamedTuple

from simulator.gateway.keys import referred
from simulator.gateway.problems import ProblemError
from simulator.scenario.units import INT64_MAX

ACCOUNT_MAX = 2**32 - 1


class Form(NamedTuple):
    """The fields of a body."""

    required: frozenset[str]
    optional: frozenset[str]


TRANSFER = Form(frozenset({"payer", "payee", "amount_minor"}), frozenset({"currency"}))
REFUND = Form(frozenset({"payment", "amount_minor"}), frozenset({"currency"}))
REST = Form(frozenset(), frozenset({"amount_minor", "currency"}))  # of a post or void: no amount is all that is left
_MOST = {"payer": ACCOUNT_MAX, "payee": ACCOUNT_MAX, "amount_minor": INT64_MAX}
_LEAST = {"payer": 0, "payee": 0, "amount_minor": 1}


class Asked(NamedTuple):
    """A body that was read."""

    payer: int
    payee: int
    amount_minor: int  # 0: all that is left
    payment: str


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names are all different: of two amounts nobody knows which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProblemError("malformed", "a field stands twice")
    return found


def read(body: bytes, form: Form, currency: str) -> Asked:
    """A body of this form. Raises ProblemError."""
    try:
        found = json.loads(body, object_pairs_hook=_once) if body or form.required else {}
    except (ValueError, RecursionError):
        raise ProblemError("malformed", "the body is not JSON") from None
    if not isinstance(found, dict):
        raise ProblemError("malformed", "the body is not a JSON object")
    names = found.keys()
    if not names >= form.required:
        raise ProblemError("malformed", f"missing: {', '.join(sorted(form.required - names))}")
    if len(names) > len(form.required):
        unknown = names - form.required - form.optional
        if unknown:
            raise ProblemError("malformed", f"unknown: {', '.join(sorted(ascii(name[:40]) for name in unknown)[:5])}")
    payment = found.get("payment", "")
    if not isinstance(payment, str):
        raise ProblemError("malformed", "payment is no text")
    if found.get("currency", currency) != currency:
        raise ProblemError("currency", f"the books are in {currency}")
    return Asked(_number(found, "payer"), _number(found, "payee"), _number(found, "amount_minor"), payment)


def _number(found: dict[str, object], name: str) -> int:
    value = found.get(name)
    if value is None and name not in found:
        return 0
    if type(value) is not int:  # a bool is no number, and a float no money
        raise ProblemError("malformed", f"{name} is no integer")
    if not _LEAST[name] <= value <= _MOST[name]:
        raise ProblemError("malformed", f"{name} is not within {_LEAST[name]} … {_MOST[name]}")
    return value


def reference(text: str) -> int:
    """The id that a path or a field names a transaction by. Raises ProblemError."""
    found = referred(text)
    if found is None:
        raise ProblemError("not_found", "this is neither an idempotency key nor an id")
    return found
