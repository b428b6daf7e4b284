"""The scenario: what one run is asked to do, frozen and validated.

`simulator.scenario.loader` reads it from YAML. Durations are nanoseconds, money minor units of `Scenario.currency`,
rates per second; each is written with its unit (`simulator.scenario.units`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from simulator.arrivals.curves import CURVES
from simulator.scenario.balancing import Balancer
from simulator.scenario.base import LONGEST_NS, Model, PositiveNs, Problem, refuse
from simulator.scenario.client import Client
from simulator.scenario.faults import PlannedFault  # noqa: TC001  pydantic reads the annotation
from simulator.scenario.fleet import Platform, embedded_model
from simulator.scenario.gate import METRIC_PATTERN, Gate, Gates
from simulator.scenario.load import CurveRate, Load, StagedRate
from simulator.scenario.platform import Backend, Dispatcher, Embedded
from simulator.scenario.rebalance import problems_in
from simulator.scenario.threshold import Threshold, parse_metric, parse_threshold
from simulator.scenario.units import (
    DEFAULT_CURRENCY,
    INT64_MAX,
    WRITTEN,
    check_currency,
    format_duration,
    format_money,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

    from simulator.scenario.gateway_fleet import GatewayFleet

ACCOUNT_NUMBERS = 2**32  # payer and payee are 32 bits wide in TRANSACTION


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


class Scenario(Model):
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
    books: Literal["elsewhere"] | None = Field(
        default=None,
        description=(
            "elsewhere: the target keeps the books and this run cannot audit them; it may pass, and says that money was not "
            "audited. Left out: the run audits the books, or does not pass."
        ),
    )
    platform: Platform | None = Field(
        default=None,
        description="What the virtual clock simulates in place of the backend; left out: a model of the embedded one.",
    )
    client: Client = Field(
        default=Client(), description="What clients do about late answers: on the virtual clock, and over HTTP."
    )
    balancer: Balancer = Field(default=Balancer(), description="How the node is picked.")
    dispatcher: Dispatcher = Field(default=Dispatcher(), description="How transactions are released.")
    faults: tuple[PlannedFault, ...] = Field(
        strict=False,
        max_length=100,
        default=(),
        description="What breaks during the run, for example [{at: 30s, fault: kill, target: 'node[1]'}].",
    )
    thresholds: dict[str, Gates] = Field(
        default={},
        description="Metric → what the run must meet, for example response_time: ['p(99) < 50ms'].",
        json_schema_extra={"propertyNames": {"pattern": METRIC_PATTERN}},
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
    def _thresholds_parse(cls, thresholds: dict[str, tuple[Gate, ...]]) -> dict[str, tuple[Gate, ...]]:
        problems: list[Problem] = []
        for metric, gates in thresholds.items():
            message = _complaint(parse_metric, metric)
            if message is not None:
                problems.append(((metric,), message))
                continue
            for index, gate in enumerate(gates):
                message = _complaint(_parsed, metric, gate)
                if message is not None:
                    problems.append(((metric, index), message))
        refuse(problems)
        return thresholds

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        duration_ns = self.duration_ns
        refuse(
            [
                *self._money_problems(info),
                *self._duration_problems(),
                *self._size_problems(),
                *self._generator_problems(),
                *self._balancer_problems(),
                *self._client_problems(),
                *self._books_problems(),
                *self._threshold_problems(),
                *(self._fault_problems() if self._gateways is None else self._fleet_fault_problems(self._gateways)),
                *(self.problems_in_time(duration_ns) if duration_ns is not None else ()),
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
        limit = self.backend.embedded.balance_limit if self.backend.embedded is not None else None
        if limit is not None and limit < self.load.balance:
            opening = format_money(self.load.balance, self.currency)
            yield (
                ("backend", "embedded", "balance_limit"),
                f"{format_money(limit, self.currency)} is less than the {opening} that each customer opens with (load.balance)",
            )

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
        if embedded is not None and embedded.restarts and any(f.fault not in ("pause", "poison") for f in self.faults):
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
        if self.backend.http is not None and self.backend.http.fleet is not None:
            for place, message in self.backend.http.fleet.problems_of(accounts):
                yield ("backend", "http", "fleet", *place), message
        if accounts + merchants >= ACCOUNT_NUMBERS:
            yield ("load", "accounts"), f"accounts and merchants together are at most {ACCOUNT_NUMBERS - 1}"
        if embedded is not None and embedded.rebalance is not None and self.clock == "virtual":
            message = "shards move on the wall clock only; write clock: wall, or leave rebalance out"
            yield ("backend", "embedded", "rebalance"), message
        if embedded is not None and embedded.hot_account is not None:
            split = embedded.hot_account.accounts
            if split > merchants:
                message = f"{split} merchants cannot be split, there are {merchants}; write at most {merchants}"
                yield ("backend", "embedded", "hot_account", "accounts"), message

    def _generator_problems(self) -> Iterable[Problem]:
        if self.clock == "virtual" and self.backend.http is not None and self.backend.http.generators > 1:
            message = "several processes send on the wall clock only; write clock: wall, or leave generators out"
            yield ("backend", "http", "generators"), message

    def _balancer_problems(self) -> Iterable[Problem]:
        embedded = self.backend.embedded
        if self.clock == "virtual":
            nodes: int | None = self.fleet.nodes // self.fleet.units
        else:
            nodes = embedded.nodes if embedded is not None else None
        units = self.fleet.units if self.clock == "virtual" else 1
        for place, message in self.balancer.problems_on(self.clock, nodes, units):
            yield ("balancer", *place), message

    def _client_problems(self) -> Iterable[Problem]:
        if self.clock == "wall" and self.backend.http is not None and self.client.hedge is not None:
            yield (
                ("client", "hedge"),
                "hedges are sent on the virtual clock only; leave it out, or write clock: virtual",
            )

    def _books_problems(self) -> Iterable[Problem]:
        """What contradicts that the books are kept elsewhere."""
        if self.books is None:
            return
        if self.backend.ledger is not None:
            yield ("books",), "this run keeps its own books, and audits them; leave it out"
        elif self.backend.noop is not None:
            yield ("books",), "noop books nothing, here or elsewhere, and needs no such word; leave it out"
        for metric, gates in self.thresholds.items():
            if gates and _parsed(metric, gates[0]).metric == "audit":
                message = "nothing audits books that are kept elsewhere (books: elsewhere); leave one of the two out"
                yield ("thresholds", metric), message

    def _threshold_problems(self) -> Iterable[Problem]:
        """What is wrong with the nodes and shards that thresholds name, as far as the scenario tells how many there are."""
        embedded = self.backend.embedded
        most: dict[str, int] = {}
        if self.clock == "virtual":
            most = {"node": self.fleet.nodes, "shard": self.fleet.shards.count}
        elif embedded is not None:
            most = {"node": embedded.nodes, "shard": embedded.shards}
        for metric, gates in self.thresholds.items():
            for tag, value in _parsed(metric, gates[0]).tags if gates else ():
                if tag in most and int(value) >= most[tag]:
                    yield (
                        ("thresholds", metric),
                        f"there is no {tag} {value}; the last of {most[tag]} is {most[tag] - 1}",
                    )

    @property
    def _gateways(self) -> GatewayFleet | None:
        """The fleet that the wall clock's run has of its own."""
        http = self.backend.http
        return http.fleet if http is not None and self.clock == "wall" else None

    def _fault_problems(self) -> Iterable[Problem]:
        embedded = self.backend.embedded
        if self.clock == "wall" and embedded is None:
            if self.faults:
                message = (
                    f"only the embedded platform's nodes can be struck, and this run's backend is {self.backend.name}"
                )
                yield ("faults",), f"{message}; write backend: {{embedded: {{nodes: 2}}}}, or leave faults out"
            return
        fleet = self.fleet
        nodes = fleet.nodes if self.clock == "virtual" or embedded is None else embedded.nodes
        for index, fault in enumerate(self.faults):
            for place, message in fault.problems_on(self.clock, gateways=False):
                yield ("faults", index, *place), message
            if fault.node is not None and fault.node >= nodes:
                known = f"the last of {nodes} is node[{nodes - 1}]" if nodes > 1 else "the only one is node[0]"
                yield ("faults", index, "target"), f"there is no node[{fault.node}]; {known}"
            if embedded is not None and fault.heals_after is not None and fault.heals_after >= embedded.poison.tries:
                tries = embedded.poison.tries
                message = (
                    f"nothing is tried more than {tries} times (backend.embedded.poison.tries), so it would never heal"
                )
                yield ("faults", index, "heals_after"), f"{message}; write less, or more tries"
            if self.clock != "virtual":
                continue
            if fault.unit is not None and fault.unit >= fleet.units:
                known = f"the last of {fleet.units} is unit[{fleet.units - 1}]"
                known = known if fleet.units > 1 else "there is one, and it has nobody to fail over to"
                yield ("faults", index, "target"), f"there is no unit[{fault.unit}]; {known}"
            if fault.fault == "dependency" and fleet.dependency is None:
                yield (
                    ("faults", index, "fault"),
                    "this platform has no dependency; write platform.dependency, or leave it out",
                )

    def _fleet_fault_problems(self, fleet: GatewayFleet) -> Iterable[Problem]:
        """What is wrong with faults of a fleet's gateways and of the nodes behind them."""
        for index, fault in enumerate(self.faults):
            for place, message in fault.problems_on(self.clock, gateways=True):
                yield ("faults", index, *place), message
            if fault.fault == "power_loss":
                # Positions are given out again after one, and an answer over HTTP does not tell which time a position is of.
                yield ("faults", index, "fault"), "'power_loss' is not available with a fleet yet; use kill"
            for noun, struck, count in (
                ("gateway", fault.gateway, fleet.nodes), ("node", fault.node, fleet.ledger.nodes),
            ):  # fmt: skip
                if struck is not None and struck >= count:
                    known = f"the last of {count} is {noun}[{count - 1}]" if count > 1 else f"the only one is {noun}[0]"
                    yield ("faults", index, "target"), f"there is no {noun}[{struck}]; {known}"

    def problems_in_time(self, duration_ns: int) -> Iterable[Problem]:
        """What is wrong with faults and moves in a run of this length, which for a trace only its file tells."""
        for index, fault in enumerate(self.faults):
            for place, message in fault.problems_in(duration_ns):
                yield ("faults", index, *place), message
        for threshold in self.threshold_list:
            if threshold.window_ns is not None and threshold.window_ns > duration_ns:
                message = f"{threshold.expression!r}: the run lasts only {format_duration(duration_ns)}"
                yield ("thresholds", threshold.name), f"{message}; write a shorter stretch"
        rebalance = self.backend.embedded.rebalance if self.backend.embedded is not None else None
        if rebalance is not None:
            for place, message in problems_in(rebalance, duration_ns):
                yield ("backend", "embedded", "rebalance", *place), message

    @property
    def fleet(self) -> Platform:
        """What the virtual clock simulates: `platform`, or where that is left out a model of the embedded backend."""
        return self.platform if self.platform is not None else embedded_model(self.backend.embedded)

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
        return tuple(_parsed(metric, gate) for metric, gates in self.thresholds.items() for gate in gates)


def _parsed(metric: str, gate: Gate) -> Threshold:
    return parse_threshold(metric, gate.threshold, abort=gate.abort, after_ns=gate.after or 0)


P = ParamSpec("P")


def _complaint(parse: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> str | None:
    try:
        parse(*args, **kwargs)
    except ValueError as error:
        return str(error)
    return None


MODELS: Mapping[str, type[BaseModel]] = {model.__name__: model for model in Model.__subclasses__()}
"""Every part of a scenario by its name, as pydantic's error locations tag the members of a union."""

TAGS = frozenset(
    {*MODELS, "constant rate", "curve name", "arrivals name", "durability name", "rebalance name", "moves", "trip name"}
)
"""What may stand in the location of pydantic's errors without being a key of the scenario."""
