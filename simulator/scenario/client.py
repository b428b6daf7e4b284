"""What a client does about an answer that is late or says no: time-out, deadline, retries, hedges.

On the virtual clock all of it, on the wall clock over HTTP all but hedges and `cancel` (a client that goes closes its connection;
what its gateway then does is the gateway's affair). Clients of the embedded platform wait without end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.scenario.base import LONGEST_NS, Model, PositiveNs, Problem, between, refuse
from simulator.scenario.units import DurationNs, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_ATTEMPTS = 16  # of one transaction, retries and hedges included: each has random numbers of its own


class Budget(Model):
    """How many retries (or hedges) there may be."""

    kind: Literal["tokens", "active"] = Field(
        default="tokens",
        description=(
            "tokens: earned by transactions, saved up and spent (Finagle) · active: a share of what is in flight (Envoy)."
        ),
    )
    ratio: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.2, description="tokens: retries earned by each transaction; 0.2 as in Finagle's RetryBudget."
    )
    min_per_s: Annotated[float, Field(ge=0, le=10_000_000)] = Field(
        default=10.0, description="tokens: retries a second that are there in any case; 10 as in Finagle's RetryBudget."
    )
    ttl: Annotated[DurationNs, between(1_000_000, LONGEST_NS)] = Field(
        default=10_000_000_000,
        description="tokens: how much is saved up at most: what was earned in this time; Finagle's 10s.",
    )
    share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="active: of the attempts in flight may be retries; 0.2 as Envoy's budget_percent."
    )
    least: Annotated[int, Field(ge=0, le=4_194_304)] = Field(
        default=3, description="active: retries at once that may be in any case; 3 as Envoy's min_retry_concurrency."
    )

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        foreign = ("share", "least") if self.kind == "tokens" else ("ratio", "min_per_s", "ttl")
        other = "active" if self.kind == "tokens" else "tokens"
        fields = type(self).model_fields
        refuse(
            ((name,), f"is of the other kind of budget; write kind: {other}, or leave it out")
            for name in foreign
            if getattr(self, name) != fields[name].default
        )
        return self


class Retries(Model):
    """Tries again what failed, after a while."""

    max: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS - 1)] = Field(default=1, description="Retries of a transaction.")
    backoff: Annotated[DurationNs, between(0, LONGEST_NS)] = Field(
        default=25_000_000, description="Before the first retry; 25ms as in Envoy."
    )
    factor: Annotated[float, Field(ge=1, le=100)] = Field(
        default=2.0, description="By which the backoff grows from one retry to the next."
    )
    longest: Annotated[DurationNs, between(0, LONGEST_NS)] = Field(
        default=250_000_000, description="What the backoff grows to at most; ten times the first as in Envoy."
    )
    jitter: Literal["none", "full", "equal"] = Field(
        default="full",
        description="none: the backoff itself · full: between 0 and it · equal: between half of it and it.",
    )
    budget: Budget | None = Field(default=None, description="A limit on all retries together; left out: none.")
    on: tuple[Literal["timeout", "refused", "error"], ...] = Field(
        strict=False,
        min_length=1,
        default=("timeout", "refused", "error"),
        description=(
            "timeout: no answer · refused: a full queue or a limit, over HTTP 429 and 503 · error: a dead node or a dependency's "
            "error, over HTTP a connection refused or ended, or what is no answer (5xx)."
        ),
    )


class Hedge(Model):
    """Asks another node as well when the answer is late, and takes whichever answer comes first."""

    after: PositiveNs = Field(description="How late.")
    max: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS - 1)] = Field(default=1, description="Hedges of a transaction.")
    budget: Budget | None = Field(default=None, description="A limit on all hedges together; left out: none.")


class Client(Model):
    """How clients behave: on the virtual clock, and over HTTP."""

    timeout: PositiveNs | None = Field(
        default=None, description="Of one attempt; left out: none, over HTTP backend.http.timeout."
    )
    deadline: PositiveNs | None = Field(
        default=None, description="Of the whole transaction, retries included, from its intended time; left out: none."
    )
    retries: Retries | None = Field(default=None, description="Tries again what failed; left out: never.")
    hedge: Hedge | None = Field(
        default=None, description="Virtual clock: asks twice when the answer is late; left out: never."
    )
    cancel: bool = Field(
        default=False,
        description=(
            "Virtual clock: whether the platform drops work that has not begun and whose client has gone; else it still costs."
        ),
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterable[Problem]:
        attempts = 1 + (self.retries.max if self.retries else 0) + (self.hedge.max if self.hedge else 0)
        if attempts > MOST_ATTEMPTS:
            yield ("retries", "max"), f"retries and hedges make {attempts} attempts; there are at most {MOST_ATTEMPTS}"
        if self.timeout is not None and self.deadline is not None and self.deadline < self.timeout:
            least = format_duration(self.timeout)
            yield (
                ("deadline",),
                f"{format_duration(self.deadline)} is less than one attempt's timeout; write at least {least}",
            )
        if self.hedge is not None and self.timeout is not None and self.hedge.after >= self.timeout:
            yield (
                ("hedge", "after"),
                f"no attempt lives that long; write less than the timeout, {format_duration(self.timeout)}",
            )


NO_CLIENT_BEHAVIOUR = Client()
