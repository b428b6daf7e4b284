"""The commonest answer, recognised at a glance: a whole response with a length, in one read, on a connection that stays.

What is not certainly that is nothing here: the parser, llhttp, looks at it from its first byte. So this says yes to less than
HTTP allows, and whatever it says yes to llhttp would call one whole message that keeps the connection, with the same status; a
test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.kernel import inlined, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTH_DIGITS_MAX = 7


def _bytes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, np.uint8)


_VERSION = _bytes(b"HTTP/1.1 ")
_CONTENT_LENGTH = _bytes(b"content-length")
_CONNECTION = _bytes(b"connection")
_KEEP_ALIVE = _bytes(b"keep-alive")
# What else llhttp reads something into: any of these is left to it.
_TRANSFER_ENCODING, _UPGRADE, _PROXY = _bytes(b"transfer-encoding"), _bytes(b"upgrade"), _bytes(b"proxy-connection")
_CR, _LF, _SPACE, _COLON, _DELETE, _NINE, _DASH, _SCORE = 13, 10, 32, ord(":"), 127, ord("9"), ord("-"), ord("_")
_ZERO, _A, _Z, _LOWER = ord("0"), ord("a"), ord("z"), 0x20
_NO_CONTENT, _NOT_MODIFIED = 204, 304  # these have no body, whatever their length says


@inlined
def _same(data: NDArray[np.uint8], at: int, word: NDArray[np.uint8]) -> bool:
    """Whether letters are those of a lower-case word, in whatever case. `|` makes few other bytes letters; none is a name's."""
    same = True
    for i in range(word.shape[0]):
        same = same and (data[at + i] | _LOWER) == word[i]
    return same


@inlined
def _is_name(byte: int) -> bool:
    letter = byte | _LOWER
    return (_A <= letter <= _Z) or (_ZERO <= byte <= _NINE) or byte in (_DASH, _SCORE)


@kernel
def whole_response(data: NDArray[np.uint8], count: int) -> int:  # noqa: C901, PLR0911, PLR0912  one pass, straight
    """The status of the response that data[:count] is, no more and no less; 0: let the parser look."""
    if count < 17:  # noqa: PLR2004  a status line, no reason, and a blank line
        return 0
    for i in range(_VERSION.shape[0]):
        if data[i] != _VERSION[i]:
            return 0
    status = 0
    for i in range(9, 12):
        if data[i] < _ZERO or data[i] > _NINE:
            return 0
        status = status * 10 + (data[i] - _ZERO)
    if status < 200 or status > 599 or status in (_NO_CONTENT, _NOT_MODIFIED) or data[12] != _SPACE:  # noqa: PLR2004  HTTP's classes
        return 0
    at = 13
    while at < count and _SPACE <= data[at] < _DELETE:
        at += 1
    length = -1
    while True:
        if at + 4 > count or data[at] != _CR or data[at + 1] != _LF:
            return 0
        at += 2
        if data[at] == _CR:
            if data[at + 1] != _LF:
                return 0
            at += 2
            break
        name = at
        while at < count and _is_name(data[at]):
            at += 1
        size = at - name
        if size == 0 or at == count or data[at] != _COLON:
            return 0
        at += 1
        while at < count and data[at] == _SPACE:
            at += 1
        value = at
        while at < count and _SPACE <= data[at] < _DELETE:
            at += 1
        if size == 14 and _same(data, name, _CONTENT_LENGTH):  # noqa: PLR2004  its letters
            if length >= 0 or at == value or at - value > LENGTH_DIGITS_MAX:
                return 0
            length = 0
            for i in range(value, at):
                if data[i] < _ZERO or data[i] > _NINE:
                    return 0
                length = length * 10 + (data[i] - _ZERO)
        elif size == 10 and _same(data, name, _CONNECTION):  # noqa: PLR2004  its letters
            if at - value != 10 or not _same(data, value, _KEEP_ALIVE):  # noqa: PLR2004  as above
                return 0
        elif (
            (size == 17 and _same(data, name, _TRANSFER_ENCODING))  # noqa: PLR2004  as above
            or (size == 7 and _same(data, name, _UPGRADE))  # noqa: PLR2004  as above
            or (size == 16 and _same(data, name, _PROXY))  # noqa: PLR2004  as above
        ):
            return 0
    return status if length >= 0 and at + length == count else 0
