"""The load of a scenario: the rate and its arrivals, the amounts, who pays whom, and which kinds of transaction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from simulator.arrivals.curves import CURVES
from simulator.scenario.base import (
    LONGEST_NS,
    Model,
    NonNegativeNs,
    Problem,
    between,
    existing_file,
    is_mapping,
    refuse,
)
from simulator.scenario.spelling import known_words, nearest
from simulator.scenario.units import (
    DEFAULT_CURRENCY,
    NS_PER_S,
    DurationNs,
    MoneyMinor,
    RatePerS,
    format_duration,
    format_money,
    format_rate,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

HIGHEST_RATE_PER_S = 50_000_000.0


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


PositiveMoney = Annotated[MoneyMinor, AfterValidator(_positive_money)]
Weight = Annotated[float, Field(ge=0, le=1_000_000_000)]


# ---- when ----


class Stage(Model):
    """Part of a staged rate: it ramps linearly from the rate before it to its target; the same target holds."""

    duration: NonNegativeNs = Field(description="How long the stage takes; 0s jumps.")
    target: Annotated[RatePerS, AfterValidator(_possible_rate)] = Field(
        description="The rate at the end of the stage; 0/s is allowed."
    )


class StagedRate(Model):
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
            refuse([(("stages",), message)])
        return self

    @property
    def length_ns(self) -> int:
        """The sum of the stages' durations."""
        return sum(stage.duration for stage in self.stages)


class Knots(Model):
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
        refuse(problems)
        return self


def _known_curve(name: str) -> str:
    if name not in CURVES:
        raise ValueError(f"{quoted(name)} is not a known curve; {known_words(name, CURVES)}")
    return name


CurveName = Annotated[
    str, AfterValidator(_known_curve), WithJsonSchema({"type": "string", "enum": sorted(CURVES), "title": "Curve name"})
]


class CurveRate(Model):
    """A rate that follows a curve of cumulative value, named or the scenario's own, over the mean ticket."""

    curve: Annotated[
        Annotated[CurveName, Tag("curve name")] | Annotated[Knots, Tag("Knots")],
        Discriminator(lambda value: "Knots" if is_mapping(value) else "curve name"),
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
                refuse([(("window",), f"the window ends ({format_duration(end)}) before it has begun")])
            if end > self.curve_length_ns:
                message = f"the window ends at {format_duration(end)}, after the curve"
                refuse([(("window", 1), f"{message}, which ends at {format_duration(self.curve_length_ns)}")])
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
    """The file's full path."""
    return existing_file(path, info, "traces/evening.csv")


_TraceFile = Annotated[
    Path, PlainValidator(_trace_file, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]


class TraceRate(Model):
    """The recorded times, amounts and parties of a trace, replayed."""

    trace: _TraceFile = Field(
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


class Mmpp(Model):
    """A Markov-modulated Poisson process of two states, calm and burst; its mean rate is the scenario's."""

    burst: Annotated[float, Field(gt=1, le=1_000)] = Field(
        default=3.0, description="The rate in a burst, over the mean rate."
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.2, description="The fraction of time in a burst.")
    period: Annotated[DurationNs, between(1_000_000, LONGEST_NS)] = Field(
        default=NS_PER_S, description="The mean length of one calm and one burst together."
    )

    @model_validator(mode="after")
    def _leaves_something_for_the_calm(self) -> Self:
        if self.burst * self.share > 1:
            message = (
                f"bursts alone would send {self.burst * self.share:g} times the mean rate; burst * share is at most 1: "
                f"with burst {self.burst:g} write a share of at most {1 / self.burst:.3g}"
            )
            refuse([(("share",), message)])
        return self


class MmppArrivals(Model):
    """Bursty arrivals with parameters of their own."""

    mmpp: Mmpp = Field(description="The parameters of the bursts.")


Arrivals = Annotated[
    Annotated[Literal["poisson", "regular", "mmpp"], Tag("arrivals name")]
    | Annotated[MmppArrivals, Tag("MmppArrivals")],
    Discriminator(lambda value: "MmppArrivals" if is_mapping(value) else "arrivals name"),
]


# ---- who pays whom how much ----


class Ticket(Model):
    """How much one transaction is worth."""

    mean: PositiveMoney = Field(default=10_000, description="The mean amount.")
    distribution: Literal["lognormal", "constant"] = Field(
        default="lognormal", description="How the amounts scatter about the mean."
    )
    sigma: Annotated[float, Field(gt=0, le=3)] = Field(
        default=1.0, description="The lognormal's sigma, the standard deviation of the amount's logarithm."
    )


class Merchants(Model):
    """Who is paid."""

    count: Annotated[int, Field(ge=1, le=10_000_000)] = Field(default=100_000, description="How many merchants.")
    zipf: Annotated[float, Field(ge=0, le=3)] = Field(
        default=1.05, description="The exponent of the merchants' popularity; 0: all alike."
    )


class Mix(Model):
    """Weights of the kinds a client starts with; a kind left out has none."""

    payment: Weight = Field(default=0.0, description="Weight of payments.")
    refund: Weight = Field(default=0.0, description="Weight of refunds, each of an earlier payment.")
    authorize: Weight = Field(default=0.0, description="Weight of holds, each posted or voided later.")

    @model_validator(mode="after")
    def _has_a_kind(self) -> Self:
        if self.payment + self.refund + self.authorize <= 0:
            refuse([((), "every weight is 0, which sends nothing; raise at least one above 0")])
        if self.refund > 0 and self.payment <= 0:
            refuse([(("refund",), "there are refunds but no payments they could give back; raise payment above 0")])
        return self


class FollowUp(Model):
    """What comes after an original: a refund after its payment, a post or a void after its hold."""

    after: NonNegativeNs = Field(default=NS_PER_S, description="At least this long after the original.")
    void_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="The share of holds that are voided; the rest are posted."
    )


class Load(Model):
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
