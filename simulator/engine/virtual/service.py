"""Draws of service times and latencies: one distribution a row, one word of the seed tree a draw.

Every draw is a function of (key, index), so a transaction's service time is the same under any policy, at any node and in any
order of events: two policies compared on one seed meet the same work (common random numbers).

* exponential: inversion, −mean · log u. A ziggurat would save some 3 ns a draw; inversion keeps draws monotone in u.
* lognormal: exp(mu + sigma · Φ⁻¹(u)) with mu = log(mean) − sigma²/2 (`workload.ticket.normal_quantile`).
* pareto: x_m · u^(−1/alpha) with x_m = mean · (alpha − 1)/alpha.
* gamma: G. Marsaglia, W. W. Tsang, "A Simple Method for Generating Gamma Variables", ACM TOMS 26, 2000; below shape 1 the
  boost of the same paper, Gamma(a) = Gamma(a + 1) · U^(1/a). It rejects; the words of a draw are `mix` chains from its first.
* empirical: Walker's alias method over the histogram's buckets, uniform within one.

Times are whole nanoseconds, rounded to the nearest, and at most an hour (the histogram's highest value).
"""

from __future__ import annotations

import csv
from enum import IntEnum
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from hdrh.histogram import HdrHistogram

from simulator.elementary import exp, log
from simulator.errors import ScenarioError
from simulator.kernel import inlined, int64, kernel
from simulator.measure.histogram import COUNTS, HIGHEST_NS, bucket_width_ns, highest_equivalent_ns
from simulator.seeds import bits, mix
from simulator.workload.popularity import alias_table
from simulator.workload.ticket import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from simulator.scenario.service import ServiceTime


class Law(IntEnum):
    """The distributions, as kernels know them."""

    NOTHING = 0  # always 0
    DETERMINISTIC = 1
    EXPONENTIAL = 2
    LOGNORMAL = 3
    GAMMA = 4
    PARETO = 5
    EMPIRICAL = 6


_NOTHING, _DETERMINISTIC, _EXPONENTIAL = int(Law.NOTHING), int(Law.DETERMINISTIC), int(Law.EXPONENTIAL)
_LOGNORMAL, _GAMMA, _PARETO = int(Law.LOGNORMAL), int(Law.GAMMA), int(Law.PARETO)
_HIGHEST = float(HIGHEST_NS)

TIMES = np.dtype(
    [
        ("law", "<i8"),
        ("mean", "<f8"),  # ns
        ("a", "<f8"),  # lognormal: mu · gamma: shape − 1/3 (of shape + 1 below 1) · pareto: x_m
        ("b", "<f8"),  # lognormal: sigma · gamma: 1/√(9a) · pareto: 1/alpha
        ("c", "<f8"),  # gamma: 1/shape below 1, else 0
        ("first", "<i8"),  # empirical: its rows in `Tables`
        ("rows", "<i8"),
    ]
)


class Tables(NamedTuple):
    """The buckets of all empirical distributions, one after the other."""

    alias: NDArray[np.uint32]  # (R, 2), see `workload.popularity.alias_table`
    low: NDArray[np.float64]  # (R,) ns
    width: NDArray[np.float64]  # (R,) ns


_LOW53 = np.uint64(11)
_ONE = np.uint64(1)
_GAMMA_STEP = np.uint64(0xD1B54A32D192ED03)
_ULP = 2.0**-53
_HALF = np.uint64(32)


@inlined
def _unit(word: np.uint64) -> float:
    """A uniform float64 in (0, 1) from a word, as `seeds.uniform` makes it."""
    return np.float64((word >> _LOW53) | _ONE) * _ULP


@kernel
def _gamma(word: np.uint64, d: float, c: float, boost: float) -> float:
    """A gamma variable over its scale; see the module."""
    power = 1.0
    if boost > 0.0:
        power = exp(boost * log(_unit(word)))
    while True:
        word = mix(word + _GAMMA_STEP)
        x = normal_quantile(_unit(word))
        v = 1.0 + c * x
        word = mix(word + _GAMMA_STEP)
        if v > 0.0:
            v = v * v * v
            if log(_unit(word)) < 0.5 * x * x + d - d * v + d * log(v):
                return d * v * power


@kernel
def _rare(times: NDArray[np.void], which: int, tables: Tables, word: np.uint64) -> float:
    """A draw (ns) from one of the laws that are not simple enough to be inlined."""
    row = times[which]
    law = row["law"]
    if law == _LOGNORMAL:
        return exp(row["a"] + row["b"] * normal_quantile(_unit(word)))
    if law == _PARETO:
        return row["a"] * exp(-row["b"] * log(_unit(word)))
    if law == _GAMMA:
        return row["mean"] * _gamma(word, row["a"], row["b"], row["c"])
    scaled = _unit(word) * row["rows"]
    column = int64(scaled)
    at = row["first"] + column
    if (scaled - column) * 4294967296.0 >= tables.alias[at, 0]:
        at = row["first"] + int64(tables.alias[at, 1])
    return tables.low[at] + tables.width[at] * _unit(mix(word + _GAMMA_STEP))


@inlined
def draw_ns(times: NDArray[np.void], which: int, tables: Tables, key: np.uint64, index: int) -> int:
    """A time, whole ns: number `index` of a stream, from the distribution in row `which` of `times` (TIMES)."""
    law = times[which]["law"]
    if law == _EXPONENTIAL:
        value = -times[which]["mean"] * log(_unit(bits(key, index)))
    elif law == _DETERMINISTIC:
        value = times[which]["mean"]
    elif law == _NOTHING:
        value = 0.0
    else:
        value = min(_rare(times, which, tables, bits(key, index)), _HIGHEST)
    return int64(value + 0.5)


@kernel
def draw_all(
    times: NDArray[np.void],
    which: int,
    tables: Tables,
    key: np.uint64,
    index: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Writes draws number index[0], index[1] … of a stream to `out`, (n,) like `index`."""
    if times[which]["law"] == _EXPONENTIAL:  # the same as below, without a branch within: vector code
        mean = times[which]["mean"]
        for i in range(out.shape[0]):
            out[i] = int64(-mean * log(_unit(bits(key, index[i]))) + 0.5)
    else:
        for i in range(out.shape[0]):
            out[i] = draw_ns(times, which, tables, key, index[i])


def compile_times(wanted: Sequence[ServiceTime | None]) -> tuple[NDArray[np.void], Tables]:
    """Rows (TIMES) for these distributions, in order; None: always 0.

    Raises:
        ScenarioError: a histogram file cannot be read, or has nothing in it.
    """
    rows = np.zeros(len(wanted), TIMES)
    alias, low, width = [np.zeros((0, 2), np.uint32)], [np.zeros(0)], [np.zeros(0)]
    for row, service in zip(rows, wanted, strict=True):
        if service is None:
            continue
        row["law"] = int(Law[service.distribution.upper()])
        row["mean"] = service.mean or 0
        parameter = service.parameter
        match service.distribution:
            case "lognormal":
                row["a"], row["b"] = log(float(row["mean"])) - 0.5 * parameter**2, parameter
            case "pareto":
                row["a"], row["b"] = row["mean"] * (parameter - 1.0) / parameter, 1.0 / parameter
            case "gamma":
                shape = parameter if parameter >= 1.0 else parameter + 1.0
                row["a"] = shape - 1.0 / 3.0
                row["b"] = 1.0 / sqrt(9.0 * row["a"])
                row["c"] = 1.0 / parameter if parameter < 1.0 else 0.0
                row["mean"] /= parameter  # the scale
            case "empirical":
                values, widths, counts = read_histogram(service.file)  # type: ignore[arg-type] # the model has seen to it
                mean = float((values + widths / 2) @ counts / counts.sum())
                stretch = service.mean / mean if service.mean else 1.0
                row["first"], row["rows"], row["mean"] = sum(map(len, low)), len(values), mean * stretch
                alias.append(alias_table(counts.astype(np.float64)))
                low.append(values * stretch)
                width.append(widths * stretch)
    return rows, Tables(np.concatenate(alias), np.concatenate(low), np.concatenate(width))


def read_histogram(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The buckets of a histogram file: lowest value and width (ns), and count.

    A `.hlog` is read as the response times of all its intervals together; a `.csv` has the columns value and count.

    Raises:
        ScenarioError: it cannot be read, or has nothing in it.
    """
    try:
        found = _read_hlog(path) if path.suffix == ".hlog" else _read_csv(path)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, IndexError) as error:
        raise ScenarioError(f"{path}: is no histogram: {error}") from error
    if not found:
        raise ScenarioError(f"{path}: has nothing in it; a histogram has at least one value")
    low, width, count = zip(*found, strict=True)
    return np.array(low, np.float64), np.array(width, np.float64), np.array(count, np.int64)


def _read_hlog(path: Path) -> list[tuple[float, float, int]]:
    total = HdrHistogram(1, HIGHEST_NS, 3)
    for line in path.read_text("utf-8").splitlines():
        if line.startswith(("#", '"')) or not line.strip():
            continue
        cells = line.split(",")
        tag = cells[0].removeprefix("Tag=") if cells[0].startswith("Tag=") else "response_time"
        if tag == "response_time":
            total.decode_and_add(cells[-1].encode())
    index = np.flatnonzero(np.array(total.counts[:COUNTS], np.int64))
    high, width = highest_equivalent_ns(index), bucket_width_ns(index)
    # A whole number of ns stands for the half before and after it.
    return [
        (float(h - w) + 0.5, float(w), int(total.counts[i]))
        for h, w, i in zip(high, width, index.tolist(), strict=True)
    ]


def _read_csv(path: Path) -> list[tuple[float, float, int]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if set(rows.fieldnames or ()) != {"value", "count"}:
            raise ValueError("its first line is value,count")
        found = [(float(row["value"]), 0.0, int(row["count"])) for row in rows]
    for value, _, count in found:
        if not 0 <= value <= HIGHEST_NS or count < 0:
            raise ValueError(f"value {value:g}, count {count}: values are 0 ns to an hour, counts 0 or more")
    return [row for row in found if row[2]]
