"""What every part of a scenario is built from: the strict base model, bounded durations, and refusals that name a place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from simulator.scenario.units import NS_PER_S, DurationNs, format_duration, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_NS = 24 * 3_600 * NS_PER_S

Place = tuple[str | int, ...]
Problem = tuple[Place, str]


def refuse(problems: Iterable[Problem]) -> None:
    """Reports problems below the value that is validated; the loader puts the two places together."""
    found = list(problems)
    if found:
        text = "; ".join(message for _, message in found)
        raise PydanticCustomError("scenario", "{text}", {"text": text, "problems": found})


def between(low_ns: int, high_ns: int) -> AfterValidator:
    """Bounds a duration, both ends included."""

    def check(duration_ns: int) -> int:
        if not low_ns <= duration_ns <= high_ns:
            low = "more than 0s" if low_ns == 1 else f"at least {format_duration(low_ns)}"
            raise ValueError(
                f"{format_duration(duration_ns)!r} is out of range; "
                f"this duration is {low} and at most {format_duration(high_ns)}"
            )
        return duration_ns

    return AfterValidator(check)


def not_yet(*words: str, instead: str) -> BeforeValidator:
    """Words of the contract that nothing carries out yet."""

    def check(word: object) -> object:
        if word in words:
            raise ValueError(f"{word!r} is not available yet; use {instead}")
        return word

    return BeforeValidator(check)


def is_mapping(value: object) -> bool:
    """Whether a value is a form with keys, written or validated, and not a plain word."""
    return isinstance(value, dict | BaseModel)


PositiveNs = Annotated[DurationNs, between(1, LONGEST_NS)]
NonNegativeNs = Annotated[DurationNs, between(0, LONGEST_NS)]


def existing_file(path: object, info: ValidationInfo, example: str) -> Path:
    """The full path of a file that is there; a relative one starts from the scenario file's folder."""
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(f"{quoted(path)} is not a file name; write for example {example}")
    folder = Path(info.context.get("folder", "") if info.context else "")
    try:
        full = (folder / path).resolve()
        found = full.is_file()
    except (OSError, ValueError) as error:
        raise ValueError(f"{quoted(str(path))} cannot be read: {error}") from error
    if not found:
        raise ValueError(f"there is no file {quoted(str(path))}; a path starts from the scenario file's folder")
    return full


class Model(BaseModel):
    """A part of a scenario: frozen, with no keys but its own."""

    # Strict: `true` is no number and `1` no text. YAML has types of its own, and a scenario says what it means.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
