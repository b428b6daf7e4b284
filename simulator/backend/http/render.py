"""Requests written by a kernel: templates as a program over a transaction's fields, one request into one buffer.

A program is a list of operations: copy a piece of text, print a field. The body is written first, behind the room that the head
can need at most, because the head tells its length; then the head, and the body is moved up to it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.kernel import fused, inlined, int64, kernel
from simulator.transaction import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class Op(IntEnum):
    """What one operation writes."""

    TEXT = 0  # a piece of text
    ID = 1
    PAYER = 2
    PAYEE = 3
    RELATED = 4
    AMOUNT_MINOR = 5
    INTENDED_NS = 6
    UNITS = 7  # the amount in whole units of its currency; the operand is how many of the smallest make one
    REST = 8  # what is left of it, as many digits as the currency has, zeros in front
    LENGTH = 9  # of the body, in bytes


class Field(NamedTuple):
    """A placeholder; operands as `Op` says."""

    op: Op
    per_unit: int = 1
    digits: int = 0


Piece = bytes | Field
NUMBER_BYTES_MAX = 20  # the longest 64-bit integer, sign and all

_TEXT, _ID, _PAYER, _PAYEE = int(Op.TEXT), int(Op.ID), int(Op.PAYER), int(Op.PAYEE)
_RELATED, _AMOUNT_MINOR, _INTENDED_NS = int(Op.RELATED), int(Op.AMOUNT_MINOR), int(Op.INTENDED_NS)
_UNITS, _REST = int(Op.UNITS), int(Op.REST)
_TEN, _ZERO, _MINUS = np.uint64(10), np.uint64(ord("0")), ord("-")


class Program(NamedTuple):
    """The requests of all kinds of transaction to one target."""

    text: NDArray[np.uint8]  # every piece of text
    code: NDArray[np.int64]  # (operations, 3): an Op; of a text its place and length, else the operands
    spans: NDArray[np.int64]  # (kinds + 1, 4): head and body of each kind, from and to; a body from -1: there is none
    head_bytes_max: int
    body_bytes_max: int

    @property
    def bytes_max(self) -> int:
        """What `write` needs of room."""
        return self.head_bytes_max + self.body_bytes_max


def program_of(requests: Mapping[Kind, tuple[Sequence[Piece], Sequence[Piece] | None]]) -> Program:
    """Joins the pieces of (head, body) of each kind; no body: None."""
    text = bytearray()
    code: list[tuple[int, int, int]] = []
    spans = np.zeros((max(Kind) + 1, 4), np.int64)

    def add(pieces: Sequence[Piece]) -> tuple[int, int, int]:
        begin, most = len(code), 0
        for piece in pieces:
            if isinstance(piece, Field):
                code.append((int(piece.op), piece.per_unit, piece.digits))
                most += max(NUMBER_BYTES_MAX, piece.digits)
            elif piece:
                code.append((_TEXT, len(text), len(piece)))
                text.extend(piece)
                most += len(piece)
        return begin, len(code), most

    heads = bodies = 0
    for kind, (head, body) in requests.items():
        begin, end, most = add(head)
        heads = max(heads, most)
        spans[kind] = begin, end, -1, -1
        if body is not None:
            body_begin, body_end, most = add(body)
            bodies = max(bodies, most)
            spans[kind, 2:] = body_begin, body_end
    table = np.array(code, np.int64).reshape(-1, 3)
    return Program(np.frombuffer(bytes(text), np.uint8).copy(), table, spans, heads, bodies)


@inlined
def _print_unsigned(value: np.uint64, out: NDArray[np.uint8], at: int) -> int:
    """Writes a number; returns where it ends. Everything here is uint64: mixed with an int64 Numba would make it a float."""
    digits = 1
    rest = value // _TEN
    while rest != 0:
        rest //= _TEN
        digits += 1
    rest = value
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = np.uint8(rest % _TEN + _ZERO)
        rest //= _TEN
    return at + digits


@inlined
def _print_signed(value: int, out: NDArray[np.uint8], at: int) -> int:
    """As above. The lowest int64 is its own negative, and as uint64 that is its size."""
    size = np.uint64(value)
    if value < 0:
        out[at] = _MINUS
        at += 1
        size = np.uint64(-value)
    return _print_unsigned(size, out, at)


@fused
def _run(  # noqa: C901  a branch for each operation
    text: NDArray[np.uint8], code: NDArray[np.int64], begin: int, end: int, m: np.void, length: int, out: NDArray[np.uint8],
    at: int,
) -> int:  # fmt: skip
    """Writes what operations begin … end say of a transaction, from `at` on; returns where it ends."""
    for i in range(begin, end):
        op = code[i, 0]
        if op == _TEXT:
            start = code[i, 1]
            for j in range(code[i, 2]):
                out[at + j] = text[start + j]
            at += code[i, 2]
        elif op == _REST:
            rest = np.uint64(m["amount_minor"] % code[i, 1])  # as Python's: of no amount below 0
            for place in range(at + code[i, 2] - 1, at - 1, -1):
                out[place] = np.uint8(rest % _TEN + _ZERO)
                rest //= _TEN
            at += code[i, 2]
        elif op in (_ID, _RELATED):
            at = _print_unsigned(np.uint64(m["id"] if op == _ID else m["related"]), out, at)
        else:
            value = length
            if op == _PAYER:
                value = int64(m["payer"])
            elif op == _PAYEE:
                value = int64(m["payee"])
            elif op == _AMOUNT_MINOR:
                value = m["amount_minor"]
            elif op == _INTENDED_NS:
                value = m["intended_ns"]
            elif op == _UNITS:
                value = m["amount_minor"] // code[i, 1]
            at = _print_signed(value, out, at)
    return at


@fused
def write(program: Program, kind: int, m: np.void, out: NDArray[np.uint8]) -> int:
    """Writes the request for a transaction to the beginning of `out`, which has room for `bytes_max`; returns its length."""
    spans = program.spans
    if spans[kind, 2] < 0:
        return _run(program.text, program.code, spans[kind, 0], spans[kind, 1], m, 0, out, 0)
    behind = program.head_bytes_max
    length = _run(program.text, program.code, spans[kind, 2], spans[kind, 3], m, 0, out, behind) - behind
    at = _run(program.text, program.code, spans[kind, 0], spans[kind, 1], m, length, out, 0)
    for i in range(length):
        out[at + i] = out[behind + i]
    return at + length


@kernel
def _write_one(program: Program, kind: int, batch: NDArray[np.void], i: int, out: NDArray[np.uint8]) -> int:
    return write(program, kind, batch[i], out)


def requests_of(program: Program, kind: Kind, batch: NDArray[Any]) -> list[bytes]:
    """The request of each transaction (TRANSACTION rows) as one of this kind."""
    out = np.zeros(program.bytes_max, np.uint8)
    return [out[: _write_one(program, int(kind), batch, i, out)].tobytes() for i in range(len(batch))]
