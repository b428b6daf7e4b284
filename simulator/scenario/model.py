"""The scenario: what one run is asked to do, frozen and validated.

`simulator.scenario.loader` reads it from YAML. Durations are nanoseconds, money minor units of `Scenario.currency`,
rates per second; each is written with its unit (`simulator.scenario.units`).
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError

from simulator.arrivals.curves import CURVES
from simulator.scenario.spelling import known_words, nearest
from simulator.scenario.threshold import METRICS, Threshold, parse_threshold
from simulator.scenario.units import (
    DEFAULT_CURRENCY,
    INT64_MAX,
    NS_PER_S,
    WRITTEN,
    DurationNs,
    MoneyMinor,
    RatePerS,
    check_currency,
    format_duration,
    format_money,
    format_rate,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

LONGEST_NS = 24 * 3_600 * NS_PER_S
HIGHEST_RATE_PER_S = 50_000_000.0
MOST_STRIKES = 1_000  # of one fault: more would be a condition, not a fault
ACCOUNT_NUMBERS = 2**32  # payer and payee are 32 bits wide in TRANSACTION
PLUGIN_GROUP = "simulator.backends"

Place = tuple[str | int, ...]
Problem = tuple[Place, str]


def _refuse(problems: Iterable[Problem]) -> None:
    """Reports problems below the value that is validated; the loader puts the two places together."""
    found = list(problems)
    if found:
        text = "; ".join(message for _, message in found)
        raise PydanticCustomError("scenario", "{text}", {"text": text, "problems": found})


def _between(low_ns: int, high_ns: int) -> AfterValidator:
    def check(duration_ns: int) -> int:
        if not low_ns <= duration_ns <= high_ns:
            low = "more than 0s" if low_ns == 1 else f"at least {format_duration(low_ns)}"
            raise ValueError(
                f"{format_duration(duration_ns)!r} is out of range; "
                f"this duration is {low} and at most {format_duration(high_ns)}"
            )
        return duration_ns

    return AfterValidator(check)


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        below = 1 << (number.bit_length() - 1)
        raise ValueError(f"{number} is not a power of two; the nearest are {below} and {2 * below}")
    return number


def _not_yet(*words: str, instead: str) -> BeforeValidator:
    """Words of the contract that nothing carries out yet."""

    def check(word: object) -> object:
        if word in words:
            raise ValueError(f"{word!r} is not available yet; use {instead}")
        return word

    return BeforeValidator(check)


def _possible_rate(per_s: float) -> float:
    if per_s > HIGHEST_RATE_PER_S:
        raise ValueError(f"{format_rate(per_s)!r} is too high; the highest rate is {format_rate(HIGHEST_RATE_PER_S)}")
    return per_s


def _positive_rate(per_s: float) -> float:
    if per_s <= 0:
        raise ValueError(f"{format_rate(per_s)!r} sends nothing; write a rate above 0/s")
    return _possible_rate(per_s)


def _positive_money(minor: int, info: ValidationInfo) -> int:
    if minor < 1:
        currency = info.context.get("currency", DEFAULT_CURRENCY) if info.context else DEFAULT_CURRENCY
        raise ValueError(f"{format_money(minor, currency)!r} is too little; the least is {format_money(1, currency)}")
    return minor


PositiveNs = Annotated[DurationNs, _between(1, LONGEST_NS)]
NonNegativeNs = Annotated[DurationNs, _between(0, LONGEST_NS)]
PositiveMoney = Annotated[MoneyMinor, AfterValidator(_positive_money)]
Weight = Annotated[float, Field(ge=0, le=1_000_000_000)]


class _Model(BaseModel):
    # Strict: `true` is no number and `1` no text. YAML has types of its own, and a scenario says what it means.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# ---- load: when ----


class Stage(_Model):
    """Part of a staged rate: it ramps linearly from the rate before it to its target; the same target holds."""

    duration: NonNegativeNs = Field(description="How long the stage takes; 0s jumps.")
    target: Annotated[RatePerS, AfterValidator(_possible_rate)] = Field(
        description="The rate at the end of the stage; 0/s is allowed."
    )


class StagedRate(_Model):
    """A rate that ramps from stage to stage, as in k6."""

    start: Annotated[RatePerS, AfterValidator(_possible_rate)] = Field(
        default=0.0, description="The rate the first stage ramps from."
    )
    stages: tuple[Stage, ...] = Field(
        strict=False, min_length=1, max_length=10_000, description="The stages, one after the other."
    )

    @model_validator(mode="after")
    def _sends_something(self) -> Self:
        before = [self.start, *(stage.target for stage in self.stages)]
        if not any(stage.duration * (rate + stage.target) for rate, stage in zip(before, self.stages, strict=False)):
            message = "the stages send nothing; give at least one a target above 0/s and a duration above 0s"
            _refuse([(("stages",), message)])
        return self

    @property
    def length_ns(self) -> int:
        """The sum of the stages' durations."""
        return sum(stage.duration for stage in self.stages)


class Knots(_Model):
    """A load curve of the scenario's own: how much value had been paid up to each instant."""

    knots: tuple[Annotated[tuple[DurationNs, MoneyMinor], Field(strict=False)], ...] = Field(
        strict=False,
        min_length=2,
        max_length=10_000,
        description="[instant, cumulative value] pairs; from [0s, 0 CNY], instants increase, values never decrease.",
    )

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        problems: list[Problem] = []
        if self.knots[0][0] != 0:
            problems.append((("knots", 0, 0), f"a curve starts at 0s, not at {format_duration(self.knots[0][0])}"))
        if self.knots[0][1] != 0:
            problems.append((("knots", 0, 1), "a curve starts at value 0: nothing has been paid at 0s"))
        for index, (before, after) in enumerate(zip(self.knots, self.knots[1:], strict=False), start=1):
            at = format_duration(after[0])
            if after[0] <= before[0]:
                problems.append(
                    (("knots", index, 0), f"knot {at} does not come after {format_duration(before[0])}; sort the knots")
                )
            elif after[1] < before[1]:
                problems.append(
                    (
                        ("knots", index, 1),
                        f"the curve decreases at knot {at}; its values are cumulative: write at least the one before",
                    )
                )
        if not problems and self.knots[-1][1] == 0:
            problems.append((("knots",), "every value is 0, which sends nothing; let the curve rise"))
        _refuse(problems)
        return self


def _known_curve(name: str) -> str:
    if name not in CURVES:
        raise ValueError(f"{quoted(name)} is not a known curve; {known_words(name, CURVES)}")
    return name


CurveName = Annotated[
    str, AfterValidator(_known_curve), WithJsonSchema({"type": "string", "enum": sorted(CURVES), "title": "Curve name"})
]


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict | BaseModel)


class CurveRate(_Model):
    """A rate that follows a curve of cumulative value, named or the scenario's own, over the mean ticket."""

    curve: Annotated[
        Annotated[CurveName, Tag("curve name")] | Annotated[Knots, Tag("Knots")],
        Discriminator(lambda value: "Knots" if _is_mapping(value) else "curve name"),
    ] = Field(description="A named curve, or {knots: [[0s, 0 CNY], [60s, 525000000 CNY]]}.")
    window: Annotated[tuple[NonNegativeNs, NonNegativeNs], Field(strict=False)] | None = Field(
        default=None, description="The part of the curve to replay, [from, to); the whole curve where left out."
    )
    scale: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        default=1.0, description="Multiplies the rate; 0.1 is a tenth of the curve's load."
    )

    @model_validator(mode="after")
    def _window_lies_inside(self) -> Self:
        if self.window is not None:
            start, end = self.window
            if start >= end:
                _refuse([(("window",), f"the window ends ({format_duration(end)}) before it has begun")])
            if end > self.curve_length_ns:
                message = f"the window ends at {format_duration(end)}, after the curve"
                _refuse([(("window", 1), f"{message}, which ends at {format_duration(self.curve_length_ns)}")])
        return self

    @property
    def knots(self) -> tuple[tuple[int, int], ...]:
        """(ns, cumulative minor units) of the whole curve, unscaled."""
        if isinstance(self.curve, Knots):
            return self.curve.knots
        curve = CURVES[self.curve]
        return tuple(
            (round(at_s * NS_PER_S), value) for at_s, value in zip(curve.knots_s, curve.knots_value, strict=True)
        )

    @property
    def curve_length_ns(self) -> int:
        """Where the curve's last knot is."""
        return self.knots[-1][0]

    @property
    def window_ns(self) -> tuple[int, int]:
        """The part of the curve that is replayed."""
        return self.window if self.window is not None else (0, self.curve_length_ns)

    @property
    def length_ns(self) -> int:
        """The window's length."""
        start, end = self.window_ns
        return end - start


def _trace_file(path: object, info: ValidationInfo) -> Path:
    """The file's full path; a relative one starts from the scenario file's folder."""
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(f"{quoted(path)} is not a file name; write for example traces/evening.csv")
    folder = Path(info.context.get("folder", "") if info.context else "")
    try:
        full = (folder / path).resolve()
        found = full.is_file()
    except (OSError, ValueError) as error:
        raise ValueError(f"{quoted(str(path))} cannot be read: {error}") from error
    if not found:
        raise ValueError(f"there is no file {quoted(str(path))}; a trace's path starts from the scenario file's folder")
    return full


class TraceRate(_Model):
    """The recorded times, amounts and parties of a trace, replayed."""

    trace: Annotated[
        Path, PlainValidator(_trace_file, json_schema_input_type=str), PlainSerializer(str, return_type=str)
    ] = Field(
        description="A CSV file with the columns timestamp, amount, payer, payee; relative to the scenario file.",
        json_schema_extra={"type": "string"},
    )
    speed: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        default=1.0, description="How many seconds of the trace pass in one second of the run."
    )


_FORMS: Mapping[str, tuple[str, ...]] = {
    "StagedRate": ("start", "stages"),
    "CurveRate": ("curve", "window", "scale"),
    "TraceRate": ("trace", "speed"),
}


def rate_form(value: object) -> str | None:
    """Which form of `load.rate` a written (or validated) value has, by its keys; None: no form has such keys.

    A form's name is its model's, which is also what tags it in the location of pydantic's errors.
    """
    if isinstance(value, BaseModel):
        return type(value).__name__
    if not isinstance(value, dict):
        return "constant rate"
    of_key = {key: form for form, keys in _FORMS.items() for key in keys}
    words = [nearest(str(key), of_key) for key in value]
    return next((of_key[word] for word in words if word is not None), None)


Rate = Annotated[
    Annotated[RatePerS, AfterValidator(_positive_rate), Tag("constant rate")]
    | Annotated[StagedRate, Tag("StagedRate")]
    | Annotated[CurveRate, Tag("CurveRate")]
    | Annotated[TraceRate, Tag("TraceRate")],
    Discriminator(
        rate_form,
        custom_error_type="rate_form",
        custom_error_message=(
            "no form of rate has these keys; write for example 50000/s, {stages: [{duration: 10s, target: 5000/s}]}, "
            "{curve: double-eleven/paper} or {trace: FILE}"
        ),
    ),
]


class Mmpp(_Model):
    """A Markov-modulated Poisson process of two states, calm and burst; its mean rate is the scenario's."""

    burst: Annotated[float, Field(gt=1, le=1_000)] = Field(
        default=3.0, description="The rate in a burst, over the mean rate."
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.2, description="The fraction of time in a burst.")
    period: Annotated[DurationNs, _between(1_000_000, LONGEST_NS)] = Field(
        default=NS_PER_S, description="The mean length of one calm and one burst together."
    )

    @model_validator(mode="after")
    def _leaves_something_for_the_calm(self) -> Self:
        if self.burst * self.share > 1:
            message = (
                f"bursts alone would send {self.burst * self.share:g} times the mean rate; burst * share is at most 1: "
                f"with burst {self.burst:g} write a share of at most {1 / self.burst:.3g}"
            )
            _refuse([(("share",), message)])
        return self


class MmppArrivals(_Model):
    """Bursty arrivals with parameters of their own."""

    mmpp: Mmpp = Field(description="The parameters of the bursts.")


Arrivals = Annotated[
    Annotated[Literal["poisson", "regular", "mmpp"], Tag("arrivals name")]
    | Annotated[MmppArrivals, Tag("MmppArrivals")],
    Discriminator(lambda value: "MmppArrivals" if _is_mapping(value) else "arrivals name"),
]


# ---- load: who pays whom how much ----


class Ticket(_Model):
    """How much one transaction is worth."""

    mean: PositiveMoney = Field(default=10_000, description="The mean amount.")
    distribution: Literal["lognormal", "constant"] = Field(
        default="lognormal", description="How the amounts scatter about the mean."
    )
    sigma: Annotated[float, Field(gt=0, le=3)] = Field(
        default=1.0, description="The lognormal's sigma, the standard deviation of the amount's logarithm."
    )


class Merchants(_Model):
    """Who is paid."""

    count: Annotated[int, Field(ge=1, le=10_000_000)] = Field(default=100_000, description="How many merchants.")
    zipf: Annotated[float, Field(ge=0, le=3)] = Field(
        default=1.05, description="The exponent of the merchants' popularity; 0: all alike."
    )


class Mix(_Model):
    """Weights of the kinds a client starts with; a kind left out has none."""

    payment: Weight = Field(default=0.0, description="Weight of payments.")
    refund: Weight = Field(default=0.0, description="Weight of refunds, each of an earlier payment.")
    authorize: Weight = Field(default=0.0, description="Weight of holds, each posted or voided later.")

    @model_validator(mode="after")
    def _has_a_kind(self) -> Self:
        if self.payment + self.refund + self.authorize <= 0:
            _refuse([((), "every weight is 0, which sends nothing; raise at least one above 0")])
        if self.refund > 0 and self.payment <= 0:
            _refuse([(("refund",), "there are refunds but no payments they could give back; raise payment above 0")])
        return self


class FollowUp(_Model):
    """What comes after an original: a refund after its payment, a post or a void after its hold."""

    after: NonNegativeNs = Field(default=NS_PER_S, description="At least this long after the original.")
    void_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="The share of holds that are voided; the rest are posted."
    )


class Load(_Model):
    """What is sent: when, by whom, to whom, how much."""

    rate: Rate = Field(description="Transactions per second over time.")
    arrivals: Arrivals = Field(
        default="poisson", description="How the instants scatter about the rate: poisson, regular, mmpp or {mmpp: {…}}."
    )
    ticket: Ticket = Field(default=Ticket(), description="How much one transaction is worth.")
    accounts: Annotated[int, Field(ge=2, le=200_000_000)] = Field(
        default=10_000_000, description="How many customers' accounts."
    )
    balance: MoneyMinor = Field(default=1_000_000, description="What each account opens with.")
    merchants: Merchants = Field(default=Merchants(), description="Who is paid.")
    mix: Mix = Field(
        default=Mix(payment=97.0, refund=1.0, authorize=2.0), description="How often which kind; left out kinds: never."
    )
    follow_up: FollowUp = Field(default=FollowUp(), description="When refunds, posts and voids come.")

    @property
    def mmpp(self) -> Mmpp | None:
        """The bursts' parameters; None: the arrivals are not bursty."""
        if isinstance(self.arrivals, MmppArrivals):
            return self.arrivals.mmpp
        return Mmpp() if self.arrivals == "mmpp" else None


# ---- backend ----


class Interval(_Model):
    """The journal is synced once an interval: a power cut loses at most that much."""

    interval: Annotated[DurationNs, _between(1_000_000, 60 * NS_PER_S)] = Field(description="Between two syncs.")


class Embedded(_Model):
    """The platform built in: worker processes that own shards of the ledger."""

    nodes: Annotated[int, Field(ge=1, le=16)] = Field(default=2, description="Worker processes.")
    shards: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="Shards of the ledger, spread over the nodes; at least as many as nodes."
    )
    durability: Annotated[
        Annotated[Literal["memory", "os", "group"], Tag("durability name")] | Annotated[Interval, Tag("Interval")],
        Discriminator(lambda value: "Interval" if _is_mapping(value) else "durability name"),
    ] = Field(
        default="group",
        description=(
            "memory: lost with the process · os: written, not synced · {interval: 10ms}: synced once an interval · "
            "group: synced before the reply."
        ),
    )
    overflow: Literal["refuse", "block", "drop_oldest"] = Field(
        default="refuse",
        description=(
            "What a full ring does · refuse: it says no · block: the dispatcher holds the next one back, and its lateness "
            "counts · drop_oldest: the oldest waiting one makes room and is rejected."
        ),
    )
    protocol: Annotated[Literal["outbox"], _not_yet("tcc", instead="outbox")] = Field(
        default="outbox", description="How a transaction crosses from one shard to another."
    )
    queue: Annotated[int, Field(ge=1_024, le=1_048_576), AfterValidator(_power_of_two)] = Field(
        default=65_536, description="Ring slots per node, a power of two."
    )
    remember: Annotated[int, Field(ge=1_024, le=4_194_304), AfterValidator(_power_of_two)] = Field(
        default=131_072, description="Ids each shard remembers at least (at most twice as many), a power of two."
    )
    snapshot_records: Annotated[int, Field(ge=100_000, le=1_000_000_000)] = Field(
        default=20_000_000,
        description="Journal records between two snapshots of a node; bounds how long a restart replays.",
    )
    restarts: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=1_000, description="How often a dead node is started again; 0: a dead node ends the run."
    )
    hold_expiry: Annotated[DurationNs, _between(1_000_000, LONGEST_NS)] = Field(
        default=600 * NS_PER_S, description="How long an authorize may stay open; then the platform releases it."
    )

    @model_validator(mode="after")
    def _every_node_owns_a_shard(self) -> Self:
        if self.shards < self.nodes:
            _refuse([(("shards",), f"{self.shards} shards leave some of {self.nodes} nodes without one; write more")])
        return self


def _http_target(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme not in ("http", "https") or not separator or not rest or any(character.isspace() for character in url):
        raise ValueError(f"{quoted(url)} is not an HTTP address; write for example http://127.0.0.1:8080")
    return url


class Http(_Model):
    """A payment gateway elsewhere, over HTTP."""

    targets: tuple[Annotated[str, AfterValidator(_http_target)], ...] = Field(
        strict=False, min_length=1, max_length=1_024, description="Where the gateways listen."
    )
    path: Annotated[str, Field(pattern=r"^/\S*$", max_length=1_000)] = Field(
        default="/v1/payments", description="What a payment is posted to."
    )
    connections: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=128, description="Connections kept open, over all targets."
    )
    timeout: PositiveNs = Field(default=5 * NS_PER_S, description="An answer later than this is in doubt.")
    generators: Annotated[int, Field(ge=1, le=256)] = Field(default=1, description="Processes that send.")


class Noop(_Model):
    """Answers at once and does nothing: it measures the simulator itself."""


class Backend(_Model):
    """What the load is sent to: exactly one of the built-in backends, or a plug-in by its registered name."""

    # A plug-in's options are its own business: they stand beside the built-in names and are passed on as they are.
    model_config = ConfigDict(extra="allow", json_schema_extra={"minProperties": 1, "maxProperties": 1})
    __pydantic_extra__: dict[str, dict[str, JsonValue]] = Field(init=False)

    built_in: ClassVar[tuple[str, ...]] = ("embedded", "http", "noop")

    embedded: Embedded | None = Field(default=None, description="The platform built in.")
    http: Http | None = Field(default=None, description="A payment gateway elsewhere, over HTTP.")
    noop: Noop | None = Field(default=None, description="Answers at once and does nothing.")

    @model_validator(mode="after")
    def _is_exactly_one(self) -> Self:
        plugins = self.__pydantic_extra__ or {}
        registered = {point.name for point in entry_points(group=PLUGIN_GROUP)} if plugins else set()
        _refuse(
            ((name,), f"there is no such backend; {known_words(name, [*self.built_in, *sorted(registered)])}")
            for name in plugins
            if name not in registered
        )
        chosen = [*(name for name in self.built_in if getattr(self, name) is not None), *plugins]
        if len(chosen) != 1:
            said = f"{' and '.join(chosen)} are named" if chosen else "none is named"
            _refuse([((), f"{said}; a run has exactly one backend, for example {{embedded: {{nodes: 2}}}}")])
        return self

    @property
    def name(self) -> str:
        """`embedded`, `http`, `noop` or the plug-in's name."""
        plugins = self.__pydantic_extra__ or {}
        return next(name for name in (*plugins, *self.built_in) if name in plugins or getattr(self, name) is not None)

    @property
    def plugin_options(self) -> Mapping[str, JsonValue]:
        """What the scenario tells a plug-in; empty for the built-in backends."""
        return (self.__pydantic_extra__ or {}).get(self.name, {})


class Balancer(_Model):
    """How the node is picked that a transaction enters."""

    policy: Literal["round_robin", "random", "p2c", "affinity"] = Field(
        default="p2c", description="The pick: in turn, at random, the less loaded of two at random, the payer's own."
    )


class Dispatcher(_Model):
    """Releases each transaction at its intended time, and counts what it could not send."""

    in_flight: Annotated[int, Field(ge=1_024, le=4_194_304)] = Field(
        default=262_144, description="How many transactions may wait for their answer at once."
    )
    patience: PositiveNs = Field(
        default=5 * NS_PER_S, description="A transaction that is later than this is dropped and counted."
    )
    lag_limit: PositiveNs = Field(
        default=10_000_000,
        description="A run of which 1 % or more was sent later than this is generator-limited, and so invalid.",
    )
    drain: PositiveNs = Field(
        default=15 * NS_PER_S, description="How long to wait for the last answers after the last transaction."
    )


# ---- faults ----

_TARGET_PATTERN = r"^node\[(\*|0|[1-9][0-9]{0,3})\]$"


def _fault_target(target: str) -> str:
    if re.fullmatch(_TARGET_PATTERN, target) is None:
        raise ValueError(
            f"{quoted(target)} is not a target; write for example 'node[0]', or 'node[*]' for a random one"
        )
    return target


class PlannedFault(_Model):
    """Something that breaks during the run, once or again and again."""

    at: NonNegativeNs = Field(
        description="When it strikes, from the start; with every: when the first interval begins."
    )
    fault: Annotated[
        Literal["kill", "power_loss", "pause"],
        _not_yet(
            "latency", "bandwidth", "loss", "timeout", "reset_peer", "partition", "disk_full", "io", "cpu", "unit_loss",
            "dependency", "retry_storm", instead="kill, power_loss or pause",
        ),
    ] = Field(
        description=(
            "kill: a node's process ends at once · pause: it stands still, then goes on · "
            "power_loss: every node is killed, and what its disk had not synced is gone."
        )
    )  # fmt: skip
    target: (
        Annotated[str, AfterValidator(_fault_target), Field(json_schema_extra={"pattern": _TARGET_PATTERN})] | None
    ) = Field(
        default=None,
        description="node[0], node[1] …, or node[*]: a random node each time; power_loss takes every node.",
    )
    for_: PositiveNs | None = Field(
        alias="for", default=None, description="How long a pause lasts; left out: to the end of the run."
    )
    every: PositiveNs | None = Field(default=None, description="Strikes again this long after; left out: strikes once.")
    times: Annotated[int, Field(ge=1, le=MOST_STRIKES)] | None = Field(
        default=None, description="How often it strikes, with every; left out: to the end of the run."
    )
    spread: Literal["random"] | None = Field(
        default=None,
        description="random: each strike falls at random inside its own interval of every; left out: at its start.",
    )

    @model_validator(mode="after")
    def _is_one_fault(self) -> Self:
        _refuse([*self._target_problems(), *self._repeat_problems()])
        return self

    def _target_problems(self) -> Iterable[Problem]:
        if self.fault == "power_loss":
            if self.node is not None:
                yield ("target",), "power_loss takes every node at once; write 'node[*]', or leave target out"
        elif self.target is None:
            yield ("target",), f"is missing; {self.fault} strikes one node: write 'node[0]', or 'node[*]' for any"

    def _repeat_problems(self) -> Iterable[Problem]:
        if self.for_ is not None and self.fault != "pause":
            yield ("for",), f"{self.fault} strikes in an instant and takes no duration; leave for out"
        if self.every is None:
            for key in ("times", "spread"):
                if getattr(self, key) is not None:
                    yield (key,), "is of no use to a fault that strikes once; write every too, for example every: 5s"
        elif self.fault == "pause" and (self.for_ is None or self.for_ > self.every):
            lasting = "to the end" if self.for_ is None else f"of {format_duration(self.for_)}"
            every = format_duration(self.every)
            yield ("for",), f"pauses {lasting} every {every} would overlap; write at most {every}"

    @property
    def node(self) -> int | None:
        """The node that is struck; None: a random one each time (power_loss: all)."""
        return None if self.target in (None, "node[*]") else int(str(self.target)[len("node[") : -1])

    def strikes(self, duration_ns: int) -> int:
        """How often it strikes in a run of this length; repeated without `times`, as often as lies within the run."""
        if self.every is None:
            return 1
        return self.times if self.times is not None else self._strikes_that_fit(duration_ns)

    def _strikes_that_fit(self, duration_ns: int) -> int:
        left_ns, every_ns = duration_ns - self.at, self.every or 1
        # A strike may fall anywhere in a spread interval, so all of that lies within the run; else its start does.
        return left_ns // every_ns if self.spread else -(-left_ns // every_ns)

    def problems_in(self, duration_ns: int) -> Iterable[Problem]:
        """What is wrong with it in a run of this length."""
        run = f"the run lasts {format_duration(duration_ns)}"
        if self.at >= duration_ns:
            yield ("at",), f"{format_duration(self.at)} is past the end, {run}; write less"
            return
        if self.every is None:
            return
        fits, every = self._strikes_that_fit(duration_ns), format_duration(self.every)
        if fits < 1:
            longest = format_duration(duration_ns - self.at)
            message = f"an interval of {every} from {format_duration(self.at)} on reaches past the end, {run}"
            yield ("every",), f"{message}; write at most {longest}"
        elif self.strikes(duration_ns) > fits:
            yield ("times",), f"{self.times} strikes {every} apart reach past the end, {run}; write at most {fits}"
        elif self.strikes(duration_ns) > MOST_STRIKES:
            message = f"every {every} strikes {fits} times, and a fault does at most {MOST_STRIKES} times"
            yield ("every",), f"{message}; write a longer every, or how many times"


# ---- the whole ----


def _listed(value: object) -> object:
    """A single expression may stand without its list."""
    return [value] if isinstance(value, str) else value


Expressions = Annotated[
    tuple[Annotated[str, Field(max_length=200)], ...],
    Field(strict=False, max_length=100),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]


class _WrittenDefaults(GenerateJsonSchema):
    """Shows defaults as a scenario writes them: `5s`, not 5000000000."""

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401  pydantic's own signature
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", exclude_none=True, context={"currency": DEFAULT_CURRENCY})
        return super().encode_default(dft)

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # None stands for left out; nobody writes it

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        default = described.get("default")
        if described.get("default", ...) is None:
            del described["default"]  # left out is the only way to write it
        elif described.get("type") == "string" and not isinstance(default, str):
            described["default"] = WRITTEN[described["pattern"]](default)
        return described


class Scenario(_Model):
    """One run: what is sent, to what, and what it must meet."""

    name: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        description="Names the run's folder and its report."
    )
    description: Annotated[str, Field(max_length=10_000)] = Field(default="", description="What the run is for.")
    clock: Literal["wall", "virtual"] = Field(
        default="wall", description="wall: real processes in real time · virtual: a discrete-event simulation."
    )
    seed: Annotated[int, Field(ge=0, le=INT64_MAX)] = Field(
        default=1, description="The same seed gives the same schedule and the same transactions."
    )
    currency: Annotated[str, AfterValidator(check_currency), Field(json_schema_extra={"pattern": "^[A-Z]{3}$"})] = (
        Field(default=DEFAULT_CURRENCY, description="ISO 4217 code of every amount in the scenario.")
    )
    duration: PositiveNs | None = Field(
        default=None,
        description="How long transactions are sent; a curve, stages or a trace give it by their own length.",
    )
    load: Load = Field(description="What is sent: when, by whom, to whom, how much.")
    backend: Backend = Field(default=Backend(embedded=Embedded()), description="What it is sent to.")
    balancer: Balancer = Field(default=Balancer(), description="How the node is picked.")
    dispatcher: Dispatcher = Field(default=Dispatcher(), description="How transactions are released.")
    faults: tuple[PlannedFault, ...] = Field(
        strict=False,
        max_length=100,
        default=(),
        description="What breaks during the run, for example [{at: 30s, fault: kill, target: 'node[1]'}].",
    )
    thresholds: dict[str, Expressions] = Field(
        default={},
        description="Metric → what the run must meet, for example response_time: ['p(99) < 50ms'].",
        json_schema_extra={"propertyNames": {"enum": [*sorted(METRICS)]}},
    )

    @classmethod
    def from_data(cls, data: Mapping[str, Any], folder: Path | None = None) -> Self:
        """A scenario from plain data as YAML gives it.

        Args:
            data: mappings, lists and scalars, with units written out.
            folder: where relative file names start from; None: the current folder.

        Raises:
            pydantic.ValidationError: the data is no valid scenario.
        """
        context = {"currency": data.get("currency", DEFAULT_CURRENCY), "folder": folder or ""}
        return cls.model_validate(data, context=context)

    def to_data(self) -> dict[str, Any]:
        """The opposite of `from_data`: every field as it is written, defaults included."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True, context={"currency": self.currency})
        if self.backend.plugin_options:
            data["backend"] = {
                self.backend.name: dict(self.backend.plugin_options)
            }  # with its nulls, which are its own
        return data

    @classmethod
    def schema_for_editors(cls) -> dict[str, Any]:
        """The JSON Schema of a scenario file."""
        return cls.model_json_schema(schema_generator=_WrittenDefaults)

    @field_validator("thresholds")
    @classmethod
    def _thresholds_parse(cls, thresholds: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        problems: list[Problem] = []
        for metric, expressions in thresholds.items():
            if metric not in METRICS:
                problems.append(((metric,), f"{quoted(metric)} is not a metric; {known_words(metric, METRICS)}"))
                continue
            for index, expression in enumerate(expressions):
                message = _complaint(parse_threshold, metric, expression)
                if message is not None:
                    problems.append(((metric, index), message))
        _refuse(problems)
        return thresholds

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        duration_ns = self.duration_ns
        _refuse(
            [
                *self._money_problems(info),
                *self._duration_problems(),
                *self._size_problems(),
                *self._fault_problems(),
                *(self.fault_problems_in(duration_ns) if duration_ns is not None else ()),
            ]
        )
        return self

    def _money_problems(self, info: ValidationInfo) -> Iterable[Problem]:
        read_as = (info.context or {}).get("currency", DEFAULT_CURRENCY)
        if read_as != self.currency:
            yield ("currency",), f"amounts were read as {read_as}; build a scenario in {self.currency} with from_data"
        rate = self.load.rate
        if isinstance(rate, CurveRate) and isinstance(rate.curve, str):
            currency = CURVES[rate.curve].currency
            if currency != self.currency:
                yield (
                    ("load", "rate", "curve"),
                    f"{rate.curve} is in {currency}, but this scenario's currency is {self.currency}",
                )
        if self.load.balance * self.load.accounts > INT64_MAX:
            # The ledger sums all balances in 64 bits to prove that they are conserved.
            most = format_money(INT64_MAX // self.load.accounts, self.currency)
            yield ("load", "balance"), f"{self.load.accounts} accounts of that sum past 64 bits; write at most {most}"

    def _duration_problems(self) -> Iterable[Problem]:
        rate = self.load.rate
        if isinstance(rate, float):
            if self.duration is None:
                yield ("duration",), "is missing; a constant rate has no length of its own: write for example 60s"
            return
        length_ns = self.load_length_ns
        if length_ns is not None and length_ns > LONGEST_NS:
            yield ("load", "rate"), f"lasts {format_duration(length_ns)}; a run lasts at most 24h"
        elif self.duration is not None and length_ns is not None and self.duration > length_ns:
            what = "the stages last" if isinstance(rate, StagedRate) else "the curve's window lasts"
            length = format_duration(length_ns)
            yield (
                ("duration",),
                f"{format_duration(self.duration)} is longer than {what}, {length}; write {length} or less",
            )

    def _size_problems(self) -> Iterable[Problem]:
        accounts, merchants = self.load.accounts, self.load.merchants.count
        embedded = self.backend.embedded
        if embedded is not None and embedded.restarts and any(f.fault != "pause" for f in self.faults):
            # What a node lost is asked for again; by then its first copy may have been booked, and must still be known.
            least = min(self.dispatcher.in_flight, embedded.nodes * embedded.queue)
            if embedded.remember < least:
                message = (
                    f"{embedded.remember} ids are too few to ask a node again after a restart; write at least {least}"
                )
                yield ("backend", "embedded", "remember"), message
        if embedded is not None and embedded.shards > accounts:
            message = f"{embedded.shards} shards are more than the {accounts} accounts they share"
            yield ("backend", "embedded", "shards"), f"{message}; write at most {accounts} shards or more accounts"
        if accounts + merchants >= ACCOUNT_NUMBERS:
            yield ("load", "accounts"), f"accounts and merchants together are at most {ACCOUNT_NUMBERS - 1}"

    def _fault_problems(self) -> Iterable[Problem]:
        embedded = self.backend.embedded
        if embedded is None:
            if self.faults:
                message = (
                    f"only the embedded platform's nodes can be struck, and this run's backend is {self.backend.name}"
                )
                yield ("faults",), f"{message}; write backend: {{embedded: {{nodes: 2}}}}, or leave faults out"
            return
        last = embedded.nodes - 1
        for index, fault in enumerate(self.faults):
            if fault.node is not None and fault.node > last:
                known = f"the last of {embedded.nodes} is node[{last}]" if last else "the only one is node[0]"
                yield ("faults", index, "target"), f"there is no node[{fault.node}]; {known}"

    def fault_problems_in(self, duration_ns: int) -> Iterable[Problem]:
        """What is wrong with the faults in a run of this length, which for a trace only its file tells."""
        for index, fault in enumerate(self.faults):
            for place, message in fault.problems_in(duration_ns):
                yield ("faults", index, *place), message

    @property
    def load_length_ns(self) -> int | None:
        """The rate's own length; None: it has none (a constant rate), or only its file tells (a trace)."""
        rate = self.load.rate
        return rate.length_ns if isinstance(rate, StagedRate | CurveRate) else None

    @property
    def duration_ns(self) -> int | None:
        """How long transactions are sent: as written, else the rate's own length; None: the trace's."""
        return self.duration if self.duration is not None else self.load_length_ns

    @property
    def threshold_list(self) -> tuple[Threshold, ...]:
        """Every threshold, parsed, in the order of the file."""
        return tuple(
            parse_threshold(metric, expression)
            for metric, expressions in self.thresholds.items()
            for expression in expressions
        )


def _complaint(parse: Callable[[str, str], object], metric: str, expression: str) -> str | None:
    try:
        parse(metric, expression)
    except ValueError as error:
        return str(error)
    return None


MODELS: Mapping[str, type[BaseModel]] = {model.__name__: model for model in _Model.__subclasses__()}
"""Every part of a scenario by its name, as pydantic's error locations tag the members of a union."""

TAGS = frozenset({*MODELS, "constant rate", "curve name", "arrivals name", "durability name"})
"""What may stand in the location of pydantic's errors without being a key of the scenario."""
