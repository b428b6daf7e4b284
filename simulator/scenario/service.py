"""How long one piece of work takes: a distribution of times, by its mean and at most one parameter of shape."""

from __future__ import annotations

from math import exp, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, model_validator

from simulator.scenario.base import LONGEST_NS, Model, Problem, between, existing_file, refuse
from simulator.scenario.units import NS_PER_S, DurationNs, format_duration, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_SERVICE_NS = 3_600 * NS_PER_S  # a histogram's highest value; nothing takes longer

_PARAMETER = {"lognormal": "sigma", "gamma": "shape", "pareto": "alpha"}


def _histogram_file(path: object, info: ValidationInfo) -> Path:
    """The file's full path."""
    full = existing_file(path, info, "latency.hlog")
    if full.suffix not in (".hlog", ".csv"):
        raise ValueError(f"{quoted(str(path))} is no histogram; write a .hlog file, or a .csv with value,count in ns")
    return full


HistogramFile = Annotated[
    Path, PlainValidator(_histogram_file, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]


class ServiceTime(Model):
    """A distribution of service times (or latencies)."""

    distribution: Literal["exponential", "deterministic", "lognormal", "gamma", "pareto", "empirical"] = Field(
        default="exponential",
        description=(
            "exponential · deterministic: always the mean · lognormal (sigma) · gamma (shape) · pareto (alpha) · "
            "empirical: as a histogram file says."
        ),
    )
    mean: Annotated[DurationNs, between(0, LONGEST_SERVICE_NS)] | None = Field(
        default=None,
        description="The mean; an empirical one has its own, and is stretched to this where it is written.",
    )
    sigma: Annotated[float, Field(gt=0, le=4)] | None = Field(
        default=None, description="lognormal: of the logarithm; 1.0 where left out."
    )
    shape: Annotated[float, Field(ge=0.01, le=1_000)] | None = Field(
        default=None, description="gamma: 1 is exponential, k is Erlang's, below 1 scatters more; 2.0 where left out."
    )
    alpha: Annotated[float, Field(gt=1, le=100)] | None = Field(
        default=None,
        description="pareto: the tail's exponent, above 1; at 2 or less there is no variance; 2.5 if left out.",
    )
    file: HistogramFile | None = Field(
        default=None,
        description="empirical: a .hlog of one of our runs, or a .csv of value,count (ns); relative to the scenario file.",
        json_schema_extra={"type": "string"},
    )

    @model_validator(mode="after")
    def _has_its_parameters(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterable[Problem]:
        own = _PARAMETER.get(self.distribution)
        for key in ("sigma", "shape", "alpha"):
            if getattr(self, key) is not None and key != own:
                takes = f"it takes {own}" if own else "it takes none"
                yield (key,), f"is no parameter of {self.distribution}; {takes}"
        if self.distribution == "empirical":
            if self.file is None:
                yield ("file",), "is missing; an empirical distribution is read from a .hlog or .csv file"
            return
        if self.file is not None:
            yield ("file",), f"is of no use to {self.distribution}; write distribution: empirical, or leave file out"
        if self.mean is None:
            yield ("mean",), f"is missing; write for example mean: {format_duration(1_000_000)}"
        if self.mean == 0 and self.distribution != "deterministic":
            yield ("mean",), f"0s is too short for {self.distribution}; write more, or distribution: deterministic"

    @property
    def parameter(self) -> float:
        """The one parameter of shape, with its default; 0.0: the distribution has none."""
        match self.distribution:
            case "lognormal":
                return 1.0 if self.sigma is None else self.sigma
            case "gamma":
                return 2.0 if self.shape is None else self.shape
            case "pareto":
                return 2.5 if self.alpha is None else self.alpha
        return 0.0

    @property
    def cv(self) -> float | None:
        """Standard deviation over mean; None: infinite, or only its file tells."""
        match self.distribution:
            case "exponential":
                return 1.0
            case "deterministic":
                return 0.0
            case "lognormal":
                return sqrt(exp(self.parameter**2) - 1.0)
            case "gamma":
                return 1.0 / sqrt(self.parameter)
            case "pareto" if self.parameter > 2:  # noqa: PLR2004  where the second moment ends
                return 1.0 / sqrt(self.parameter * (self.parameter - 2.0))
        return None


Latency = Annotated[DurationNs, between(0, LONGEST_NS)]
