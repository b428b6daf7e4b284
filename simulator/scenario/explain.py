"""Pydantic's errors in a scenario, one line each: where, what is wrong, and what would be right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from simulator.scenario.model import MODELS, TAGS, Scenario
from simulator.scenario.spelling import known_words, nearest
from simulator.scenario.units import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from simulator.scenario.base import Place
    from simulator.scenario.document import Draft


def explain(draft: Draft, detail: ErrorDetails) -> None:
    """Notes in the draft what one of pydantic's errors means."""
    place, model = _locate(detail["loc"], draft.data)
    context = detail.get("ctx", {})
    if "problems" in context:
        for below, message in context["problems"]:
            draft.complain((*place, *below), message)
        return
    if detail["type"] == "too_short" and len(detail["input"]) >= context["min_length"]:
        return  # pydantic counts only the items that are right; the wrong ones have their own lines
    draft.complain(place, _message(detail, place, model))


def _locate(location: tuple[str | int, ...], data: object) -> tuple[Place, type[BaseModel]]:
    """A location as pydantic gives it, without the tags of union members, and the model that encloses it."""
    place: list[str | int] = []
    models: list[type[BaseModel]] = [Scenario]
    for index, part in enumerate(location):
        present = isinstance(data, dict) and part in data
        if part in TAGS and not present:
            models += [MODELS[str(part)]] if part in MODELS else []
            continue
        place.append(part)
        following = models[-1].model_fields.get(str(part))
        if following is not None and index < len(location) - 1:
            models += list(_models_in(following.annotation))[:1]
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
    return tuple(place), models[-1]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _message(detail: ErrorDetails, place: Place, model: type[BaseModel]) -> str:  # noqa: C901, PLR0911, PLR0912  a table
    """What is wrong and what would be right, for each of pydantic's error types that a scenario can run into."""
    shown = quoted(detail["input"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "rate_form":
            return detail["msg"]
        case "missing":
            asked = model.model_fields.get(str(place[-1]))
            return f"is missing; {asked.description if asked else 'write it'}"
        case "extra_forbidden":
            return f"there is no such key; {known_words(str(place[-1]), _keys(model))}"
        case "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            guess = nearest(detail["input"], words) if isinstance(detail["input"], str) else None
            return f"{shown} is not one of {', '.join(words)}" + (f"; did you mean {guess}?" if guess else "")
        case "greater_than_equal":
            return f"{shown} is too little; the least is {context['ge']}"
        case "greater_than":
            return f"{shown} is too little; write more than {context['gt']}"
        case "less_than_equal":
            return f"{shown} is too much; the most is {context['le']}"
        case "less_than":
            return f"{shown} is too much; write less than {context['lt']}"
        case "int_type" | "int_from_float" | "int_parsing" | "int_parsing_size":
            return f"{shown} is not a whole number; write for example 1000"
        case "float_type" | "finite_number":
            return f"{shown} is not a number; write for example 1.5"
        case "string_type":
            hint = f'; put it in quotes: "{detail["input"]}"' if isinstance(detail["input"], int | float) else ""
            return f"{shown} is not text{hint}"
        case "string_too_short":
            return "is empty; write some text"
        case "string_too_long":
            return f"is too long; at most {context['max_length']} characters"
        case "string_pattern_mismatch":
            return f"{shown} is not of the form {context['pattern']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{shown} is not a mapping; write {_keys_of(place, model)}"
        case "tuple_type":
            return f"{shown} is not a list; write for example [a, b]"
        case "too_short":
            return f"has {context['actual_length']} items; it takes at least {context['min_length']}"
        case "too_long":
            return f"has too many items; it takes at most {context['max_length']}"
        case _:
            return f"{shown}: {detail['msg']}"


def _keys(model: type[BaseModel]) -> list[str]:
    """A part's keys as a scenario writes them: `for`, which no field of Python's can be called."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _keys_of(place: Place, model: type[BaseModel]) -> str:
    inner: type[BaseModel] | None = None
    if place and isinstance(place[-1], int):
        inner = model  # an item of a list: the list's models are the item's
    elif place:
        field_info = model.model_fields.get(str(place[-1]))
        inner = next(_models_in(field_info.annotation), None) if field_info is not None else None
    if inner is None:
        return "keys below it"
    return f"keys below it: {', '.join(_keys(inner))}" if inner.model_fields else "{}"
