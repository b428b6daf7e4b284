"""Durations, money and rates as people write them, exact, and the model types that read and write them.

Inside, a duration is an integer of nanoseconds, money an integer of minor units (fen) and a rate a float per second.
A scenario file writes `1m30s`, `100 CNY` and `50000/s`; a bare number is refused, because nobody can tell its unit.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

# At run time: pydantic reads the validators' and serialisers' signatures.
from pydantic import PlainSerializer, PlainValidator, SerializationInfo, ValidationInfo, WithJsonSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
INT64_MAX = 2**63 - 1
DEFAULT_CURRENCY = "CNY"

# Largest first: the order in which a duration is written.
_NS_PER_UNIT = {
    "h": 3_600 * NS_PER_S,
    "m": 60 * NS_PER_S,
    "s": NS_PER_S,
    "ms": NS_PER_MS,
    "us": 1_000,
    "ns": 1,
}
_S_PER_UNIT = {"s": 1, "min": 60, "h": 3_600}
_UNSIGNED = r"[0-9](?:_?[0-9])*(?:\.[0-9]+)?"
_DURATION_PATTERN = "^(?=[0-9])" + "".join(f"(?:({_UNSIGNED}){unit})?" for unit in _NS_PER_UNIT) + "$"
_MONEY_PATTERN = f"^({_UNSIGNED}) ([A-Z]{{3}})$"
_RATE_PATTERN = f"^({_UNSIGNED})/({'|'.join(_S_PER_UNIT)})$"
_SHARE_PATTERN = f"^({_UNSIGNED})%$"
_CURRENCY_PATTERN = "^[A-Z]{3}$"
_PERCENT = 100
_LONGEST_TEXT = 64  # no unit of ours needs more, and it bounds what a hostile number costs to convert

# Minor digits where they are not 2 (ISO 4217).
_MINOR_DIGITS = dict.fromkeys(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(),  # noqa: SIM905  reads as a table
    0,
) | dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


def quoted(value: object) -> str:
    """A value as an error message shows it: one line, never long; text in quotes, YAML's words for the rest."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 2]}…{text[-1]}"


def _match(pattern: str, text: object) -> re.Match[str] | None:
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return None
    return re.fullmatch(pattern, text)


def parse_duration(text: object) -> int:
    """Nanoseconds of a duration such as `10s`, `1m30s`, `250ms` or `1.5h`.

    Raises:
        ValueError: not a duration, finer than a nanosecond, or beyond 64 bits.
    """
    match = _match(_DURATION_PATTERN, text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a duration; write for example 10s, 1m30s or 250ms")
    total = sum(
        (
            Fraction(number) * ns
            for number, ns in zip(match.groups(), _NS_PER_UNIT.values(), strict=True)
            if number is not None
        ),
        start=Fraction(0),
    )
    if total.denominator != 1:
        raise ValueError(f"{quoted(text)} is finer than a nanosecond, the smallest step there is")
    if total > INT64_MAX:
        raise ValueError(f"{quoted(text)} is too long; a duration fits 64 bits of nanoseconds, about 292 years")
    return int(total)


def format_duration(duration_ns: int) -> str:
    """The shortest exact way to write nanoseconds (0 or more): `1m30s`; `parse_duration` reads it back unchanged."""
    if duration_ns == 0:
        return "0s"
    parts = []
    for unit, unit_ns in _NS_PER_UNIT.items():
        count, duration_ns = divmod(duration_ns, unit_ns)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def check_currency(code: str) -> str:
    """The code itself.

    Raises:
        ValueError: not three capital letters (ISO 4217).
    """
    if _match(_CURRENCY_PATTERN, code) is None:
        raise ValueError(f"{quoted(code)} is not a currency code; write three capital letters such as CNY (ISO 4217)")
    return code


def minor_digits(currency: str) -> int:
    """How many decimals the currency has (ISO 4217): 2 for CNY."""
    return _MINOR_DIGITS.get(currency, 2)


def parse_money(text: object, currency: str) -> int:
    """Minor units (fen) of an amount such as `100 CNY` or `0.50 CNY`, exactly.

    Raises:
        ValueError: not an amount, in another currency, finer than its minor unit, or beyond 64 bits.
    """
    match = _match(_MONEY_PATTERN, text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not an amount of money; write for example 100 {currency}")
    number, written = match.groups()
    if written != currency:
        raise ValueError(
            f"{quoted(text)} is in {written}, but this scenario's currency is {currency}; "
            f"write for example {number} {currency}"
        )
    digits = minor_digits(currency)
    minor = Fraction(number) * 10**digits
    if minor.denominator != 1:
        raise ValueError(f"{quoted(text)} is finer than {currency} goes; it has {digits} decimals")
    if minor > INT64_MAX:
        raise ValueError(f"{quoted(text)} is too much; an amount fits 64 bits of minor units")
    return int(minor)


def format_money(minor: int, currency: str) -> str:
    """An amount as a scenario writes it: `100 CNY`, `0.50 CNY`; `parse_money` reads it back unchanged."""
    digits = minor_digits(currency)
    scale = 10**digits
    sign, (whole, fraction) = "-" if minor < 0 else "", divmod(abs(minor), scale)
    decimals = f".{fraction:0{digits}d}" if fraction else ""
    return f"{sign}{whole}{decimals} {currency}"


def parse_rate(text: object) -> float:
    """Transactions per second of a rate such as `50000/s`, `3000/min` or `1_000_000/h`.

    Raises:
        ValueError: not a rate.
    """
    match = _match(_RATE_PATTERN, text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a rate; write for example 50000/s, 3000/min or 100000/h")
    number, unit = match.groups()
    return float(number) / _S_PER_UNIT[unit]


def format_rate(per_s: float) -> str:
    """A rate as a scenario writes it, per second; `parse_rate` reads the identical float back."""
    # repr is the shortest text that reads back as the same float; 'f' spells out its exponent.
    text = format(Decimal(repr(float(per_s))), "f")
    return f"{text.removesuffix('.0')}/s"


def parse_share(text: object) -> float:
    """The fraction that a percentage such as `50%` or `0.5%` is, 0 … 1.

    Raises:
        ValueError: not a percentage, or above 100%.
    """
    match = _match(_SHARE_PATTERN, text)
    if match is None or float(match.group(1)) > _PERCENT:
        raise ValueError(f"{quoted(text)} is not a share; write for example 50% or 0.5%, at most 100%")
    return float(Fraction(match.group(1).replace("_", "")) / _PERCENT)


def format_share(share: float) -> str:
    """A share as a scenario writes it; `parse_share` reads the identical float back."""
    text = format(Decimal(repr(float(share))) * _PERCENT, "f")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def _currency_of(context: object) -> str:
    return str(context.get("currency", DEFAULT_CURRENCY)) if isinstance(context, dict) else DEFAULT_CURRENCY


def _money_in(text: object, info: ValidationInfo) -> int:
    return parse_money(text, _currency_of(info.context))


def _money_out(minor: int, info: SerializationInfo) -> str | int:
    # Without a context nobody said which currency: the integer stays as it is rather than be passed off as another.
    return minor if info.context is None else format_money(minor, _currency_of(info.context))


DurationNs = Annotated[
    int,
    PlainValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["10s", "1m30s", "250ms"]}),
]
"""Nanoseconds; written `1m30s`."""

MoneyMinor = Annotated[
    int,
    PlainValidator(_money_in, json_schema_input_type=str),
    PlainSerializer(_money_out),
    WithJsonSchema({"type": "string", "pattern": _MONEY_PATTERN, "examples": ["100 CNY", "0.50 CNY"]}),
]
"""Minor units; written `100 CNY`. The currency is `context["currency"]` of the validation or serialisation."""

RatePerS = Annotated[
    float,
    PlainValidator(parse_rate, json_schema_input_type=str),
    PlainSerializer(format_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _RATE_PATTERN, "examples": ["50000/s", "3000/min"]}),
]
"""Per second; written `50000/s`."""

ShareText = Annotated[
    float,
    PlainValidator(parse_share, json_schema_input_type=str),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _SHARE_PATTERN, "examples": ["50%", "0.5%"]}),
]
"""A fraction, 0 … 1; written `50%`."""

WRITTEN: Mapping[str, Callable[[Any], str]] = {
    _DURATION_PATTERN: format_duration,
    _MONEY_PATTERN: lambda minor: format_money(minor, DEFAULT_CURRENCY),
    _RATE_PATTERN: format_rate,
    _SHARE_PATTERN: format_share,
}
"""The pattern of a type's JSON Schema → how its values are written."""


def format_bytes(count: float) -> str:
    """A size in decimal units, as disks and cloud machines are sold: `1.5 GB`. For people: nothing reads it back."""
    for unit in ("B", "kB", "MB"):
        if count < 1_000:  # noqa: PLR2004  the step between decimal units
            return f"{count:.0f} {unit}"
        count /= 1_000
    return f"{count:,.1f} GB"
