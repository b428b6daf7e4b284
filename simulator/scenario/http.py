"""A payment gateway elsewhere, over HTTP: where it listens, how a transaction becomes a request, what an answer means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from simulator.scenario.base import LONGEST_NS, Model, PositiveNs, Problem, between, refuse
from simulator.scenario.gateway_fleet import GatewayFleet  # noqa: TC001  pydantic reads the annotation
from simulator.scenario.http_safety import Connections, Trip, TripOrOff
from simulator.scenario.spelling import known_words
from simulator.scenario.units import NS_PER_S, DurationNs, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

FIELDS = (
    "id", "payer", "payee", "related", "amount_minor", "amount", "intended_ns", "kind", "currency", "key", "related_key",
)  # fmt: skip
"""What a template may name, as `{id}`. `amount` is in whole units with its decimals (12.34); `key` and `related_key` are the
idempotency keys of the transaction and of the one it refunds, posts, voids or looks up."""

KINDS = ("payment", "refund", "authorize", "post", "void", "lookup")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
SECRET = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110's token
_OURS = frozenset({"host", "content-length", "connection", "transfer-encoding", "expect", "upgrade"})
_METHODS = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MOST_GENERATORS = 16  # one that were late with all it sends would still show in the p99 of all

Path = Annotated[str, Field(pattern=r"^/[^\s#]*$", max_length=1_000)]
Text = Annotated[str, Field(max_length=4_000)]


def unknown_fields(text: str) -> Iterator[str]:
    """What is wrong with the placeholders of a template."""
    for found in PLACEHOLDER.finditer(SECRET.sub("", text)):
        name = found.group(1)
        if name not in FIELDS:
            yield f"{{{name}}} is no field of a transaction; {known_words(name, FIELDS)}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _template_problems(request: RequestTemplate) -> Iterable[Problem]:
    if request.path is not None:
        yield from ((("path",), message) for message in unknown_fields(request.path))
    for name, value in (request.headers or {}).items():
        place = ("headers", name)
        if not _NAME.fullmatch(name):
            yield place, f"{quoted(name)} is no name of a header"
        elif name.lower() in _OURS:
            yield place, "is written by the simulator itself; leave it out"
        elif _CONTROL.search(value):
            yield place, "has a control character in it; a header is one line"
        yield from ((place, message) for message in unknown_fields(value))
    for text in _texts(request.body):
        yield from ((("body",), message) for message in unknown_fields(text))
        if SECRET.search(text):
            yield ("body",), "secrets stand in headers only, for example Authorization: 'Bearer ${TOKEN}'"


class RequestTemplate(Model):
    """How a transaction becomes a request. Texts may have `{field}` in them; headers also `${VARIABLE}` of the environment."""

    method: _METHODS | None = Field(default=None, description="POST where nothing is said, GET for a lookup.")
    path: Path | None = Field(default=None, description="For example /v1/payments or /v1/holds/{related_key}/post.")
    headers: dict[str, Text] | None = Field(
        default=None, description="Beside the common ones; a text with ${VARIABLE} takes it from the environment only."
    )
    body: dict[str, JsonValue] | None = Field(
        default=None, description="JSON; a text that is one numeric {field} and nothing else becomes a number."
    )

    @model_validator(mode="after")
    def _names_known_fields(self) -> Self:
        refuse(_template_problems(self))
        return self


def _target(url: str) -> str:
    wrong = (
        f"{quoted(url)} is not an HTTP address; write for example http://127.0.0.1:8080 or http://unix:/run/pay.sock"
    )
    if any(c.isspace() for c in url):
        raise ValueError(wrong)
    if url.startswith("http://unix:/"):
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(wrong)
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with a password in it would end up in every result; use a header with ${VARIABLE}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{quoted(url)} has a path; a target is scheme, host and port, and the path stands in `path`")
    return url.rstrip("/")


class Answers(Model):
    """What an answer means: by its status, or by a field of its JSON body."""

    ok: tuple[str, ...] = Field(strict=False, default=(), max_length=100, description="Statuses that mean done.")
    rejected: tuple[str, ...] = Field(
        strict=False, default=(), max_length=100, description="… that the platform said no."
    )
    failed: tuple[str, ...] = Field(strict=False, default=(), max_length=100, description="… that it did not happen.")
    unknown: tuple[str, ...] = Field(strict=False, default=(), max_length=100, description="… that nobody knows.")
    field: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="A field of the JSON body that says it instead, for example result.status."
    )
    values: dict[str, Literal["ok", "rejected", "failed", "unknown"]] = Field(
        default={}, description="What that field's values mean, for example {settled: ok, declined: rejected}."
    )

    meanings: ClassVar[tuple[str, ...]] = ("ok", "rejected", "failed", "unknown")

    @model_validator(mode="after")
    def _are_statuses_said_once(self) -> Self:
        said: dict[int, str] = {}
        problems: list[Problem] = []
        for meaning in self.meanings:
            for index, text in enumerate(getattr(self, meaning)):
                numbers = statuses_of(text)
                place = (meaning, index)
                if numbers is None:
                    problems.append((place, f"{quoted(text)} is no status; write for example 402 or 4xx in quotes"))
                    continue
                twice = sorted(number for number in numbers if number in said and len(numbers) == 1)
                problems += [(place, f"{number} already means {said[number]}") for number in twice]
                said.update(dict.fromkeys(numbers, meaning) if len(numbers) == 1 else {})
        if self.values and self.field is None:
            problems.append((("values",), "belong to a field; write for example field: status"))
        if self.field is not None and not self.values:
            problems.append((("field",), "says nothing without values; write for example values: {settled: ok}"))
        refuse(problems)
        return self

    @property
    def by_status(self) -> Mapping[int, str]:
        """Status → meaning; a single status outranks its class."""
        found: dict[int, str] = {}
        for single in (False, True):
            for meaning in self.meanings:
                for text in getattr(self, meaning):
                    numbers = statuses_of(text) or ()
                    if (len(numbers) == 1) is single:
                        found.update(dict.fromkeys(numbers, meaning))
        return found


def statuses_of(text: str) -> tuple[int, ...] | None:
    """The statuses of `402` or `4xx`; None: it is neither."""
    if re.fullmatch(r"[2-5][0-9][0-9]", text):
        return (int(text),)
    if re.fullmatch(r"[2-5]xx", text):
        return tuple(range(int(text[0]) * 100, int(text[0]) * 100 + 100))
    return None


class Tls(Model):
    """How a server's certificate is judged."""

    verify: bool = Field(default=True, description="Whether it must be valid and for this name.")
    ca: Annotated[str, Field(min_length=1, max_length=4_096)] | None = Field(
        default=None, description="A file of authorities of your own (PEM), instead of the system's."
    )


class Identify(Model):
    """How to know which node behind a balancer answered."""

    header: Annotated[str, Field(pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$", max_length=100)] = Field(
        description="The response header that names it, for example X-Node."
    )


class Http(Model):
    """A payment gateway elsewhere, over HTTP/1.1."""

    targets: tuple[Annotated[str, Field(max_length=1_000), AfterValidator(_target)], ...] = Field(
        strict=False, max_length=1_024, default=(),
        description="Where the gateways listen; the balancer picks one. Or a fleet.",
    )  # fmt: skip
    fleet: GatewayFleet | None = Field(
        default=None, description="Reference gateways of the run's own, instead of targets, for example {nodes: 3}."
    )
    path: Path = Field(default="/v1/payments", description="What a payment is sent to.")
    method: _METHODS = Field(default="POST", description="How.")
    headers: dict[str, Text] = Field(
        default={"Idempotency-Key": "{key}"},
        description="Of every request; ${VARIABLE} comes from the environment only.",
    )
    body: dict[str, JsonValue] = Field(
        default={"payer": "{payer}", "payee": "{payee}", "amount_minor": "{amount_minor}", "currency": "{currency}"},
        description="Of a payment, as JSON; texts may have {field} in them.",
    )
    requests: dict[str, RequestTemplate] = Field(
        default={}, description="What is different for refund, authorize, post, void or lookup."
    )
    response: Answers = Field(default=Answers(), description="What an answer means, where its status does not say it.")
    connections: Connections = Field(
        default=128, description="Connections kept open, over all targets; each carries one request at a time."
    )
    keep_alive: bool = Field(default=True, description="Whether a connection is used again.")
    timeout: Annotated[DurationNs, between(1_000_000, LONGEST_NS)] = Field(
        default=5 * NS_PER_S,
        description="An answer later than this is in doubt; client.timeout, where written, outranks it.",
    )
    connect_timeout: PositiveNs = Field(default=2 * NS_PER_S, description="How long opening a connection may take.")
    tls: Tls = Field(default=Tls(), description="How certificates are judged.")
    identify: Identify | None = Field(default=None, description="How to know which node answered.")
    trip: TripOrOff = Field(default=Trip(), description="Stops the load when too much of it fails; off: never.")
    generators: Annotated[int, Field(ge=1, le=MOST_GENERATORS)] = Field(
        default=1, description="Processes that send; each has its part of the transactions and of the connections."
    )

    @field_validator("requests")
    @classmethod
    def _are_kinds(cls, requests: dict[str, RequestTemplate]) -> dict[str, RequestTemplate]:
        refuse(
            ((kind,), f"{quoted(kind)} is no kind of transaction; {known_words(kind, KINDS[1:])}")
            for kind in requests
            if kind not in KINDS[1:]
        )
        return requests

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        common = RequestTemplate.model_construct(
            path=self.path, headers=self.headers, body=self.body, method=self.method
        )
        problems = list(_template_problems(common))
        if bool(self.targets) == (self.fleet is not None):
            said = (
                "and a fleet are both named; write one of them" if self.targets else "are missing; name one or a fleet"
            )
            problems.append((("targets",), f"{said}, for example ['http://127.0.0.1:8080'] or fleet: {{nodes: 3}}"))
        if self.connections < self.target_count * self.generators:
            least = self.target_count * self.generators
            problems.append(
                (
                    ("connections",),
                    f"{self.connections} leave some target or generator without one; write at least {least}",
                )
            )
        refuse(problems)
        return self

    def request_of(self, kind: str) -> tuple[str, str, Mapping[str, str], Mapping[str, JsonValue] | None]:
        """(method, path, headers, body) of a kind: what the scenario says of it, else what the reference gateway expects."""
        own = self.requests.get(kind, RequestTemplate())
        method, path, body = _REFERENCE.get(kind, (self.method, self.path, self.body))
        headers = {**self.headers, **(own.headers or {})}
        if kind == "lookup" and own.headers is None:
            headers = {name: value for name, value in headers.items() if name.lower() != "idempotency-key"}
        return own.method or method, own.path or path, headers, own.body if own.body is not None else body

    @property
    def target_count(self) -> int:
        """How many targets there are to pick from."""
        if self.fleet is None:
            return len(self.targets)
        return 1 if self.fleet.proxy is not None else self.fleet.nodes

    @property
    def identify_header(self) -> str | None:
        """The header that tells who answered; behind a proxy of our own fleet always that of the gateways."""
        if self.identify is not None:
            return self.identify.header
        return "X-Node" if self.fleet is not None and self.fleet.proxy is not None else None

    @property
    def secrets(self) -> frozenset[str]:
        """The environment variables that headers name."""
        every = [self.headers, *(request.headers or {} for request in self.requests.values())]
        return frozenset(name for headers in every for text in headers.values() for name in SECRET.findall(text))


_REFERENCE: Mapping[str, tuple[str, str, Mapping[str, JsonValue] | None]] = {
    "refund": ("POST", "/v1/refunds", {"payment": "{related_key}", "amount_minor": "{amount_minor}"}),
    "authorize": (
        "POST", "/v1/holds",
        {"payer": "{payer}", "payee": "{payee}", "amount_minor": "{amount_minor}", "currency": "{currency}"},
    ),
    "post": ("POST", "/v1/holds/{related_key}/post", {"amount_minor": "{amount_minor}"}),
    "void": ("POST", "/v1/holds/{related_key}/void", {}),
    "lookup": ("GET", "/v1/transactions/{related_key}", None),
}  # fmt: skip
