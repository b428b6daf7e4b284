"""Recorded arrivals: a CSV file, replayed as it was or faster.

The file is UTF-8 with a header. Its columns, in any order:

* `timestamp`, the only one that must be there: seconds as a decimal (`1573401600.25`), or ISO 8601
  (`2019-11-11T00:00:00.25+08:00`; without an offset: UTC); one style throughout, in order, to the nanosecond.
* `amount`: decimal, in the scenario's currency, which may be named (`12.50`, `12.50 CNY`).
* `payer`: a customer's number from 0, or any other text, which is hashed onto the customers.
* `payee`: a merchant's number from 0 (its rank), or any other text, which is hashed onto the merchants.

An empty cell means: not recorded; it is drawn like everything else. Blank lines are skipped. Times are integers of
nanoseconds from the file to the schedule: a float of seconds since 1970 is good to a quarter of a microsecond only.

Rows are read one at a time: memory does not grow with the file.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.arrivals.rate import Rate
from simulator.errors import ScenarioError
from simulator.scenario.units import DEFAULT_CURRENCY, NS_PER_S, parse_money, quoted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

COLUMNS = ("timestamp", "amount", "payer", "payee")
MOST_KNOTS = 1_000

_SECONDS = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?")
_NUMBER = re.compile(r"\d+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_NS = 2**63 - 1
_NOT_RECORDED = -1

Ints = NDArray[np.int64]


class Style(Enum):
    """How a trace writes its timestamps; all rows of one trace agree."""

    SECONDS = "decimal seconds"
    ISO_OFFSET = "ISO 8601 with an offset"
    ISO_UTC = "ISO 8601 without an offset"


class Row(NamedTuple):
    """One recorded transaction; -1: not recorded."""

    line: int  # in the file, the header being 1
    time_ns: int  # since 1970, or since whatever the trace counts from
    amount_minor: int
    payer: int  # account number
    payee: int  # account number


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a trace says of the transactions last filled: int64[n] each, -1 where it says nothing."""

    amount_minor: Ints
    payer: Ints
    payee: Ints

    def fields(self) -> tuple[tuple[str, Ints], ...]:
        """(field of TRANSACTION, values) of each."""
        return (("amount_minor", self.amount_minor), ("payer", self.payer), ("payee", self.payee))


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What a scan of a trace found.

    Attributes:
        rows: transactions recorded, ≥ 1.
        first: the first timestamp as written.
        last: the last one.
        duration_ns: the shortest run that holds every row: from the first to the last one, and a nanosecond.
        columns: in the file's order.
        knots_ns: from the first row on, strictly increasing, from 0 to duration_ns; at most 1,001.
        knots_count: rows up to each, from 0 to `rows`.
    """

    rows: int
    first: str
    last: str
    duration_ns: int
    columns: tuple[str, ...]
    knots_ns: tuple[int, ...]
    knots_count: tuple[int, ...]

    def rate(self, speed: float = 1.0) -> Rate:
        """The mean rate between knots when replayed at `speed` (> 0)."""
        seconds = np.array(self.knots_ns, np.float64) / (NS_PER_S * speed)
        return Rate.from_recorded(seconds, np.array(self.knots_count, np.float64))


def scan(
    path: Path,
    currency: str = DEFAULT_CURRENCY,
    customers: int | None = None,
    merchants: int | None = None,
) -> TraceInfo:
    """Read a trace from end to end and check every row.

    Args:
        path: of the CSV file.
        currency: of its amounts.
        customers: how many there are; `None`: any number of a payer will do.
        merchants: likewise, of a payee.

    Raises:
        ScenarioError: as `path:line: what is wrong`, for a file that cannot be read, is empty or has a bad row.
    """
    trace = _Reader(path, currency, customers, merchants)
    counted = 0
    start_ns = end_ns = 0
    first = last = ""
    knots: list[tuple[int, int]] = []
    stride = 1
    for row in trace.rows():
        if counted == 0:
            start_ns, first = row.time_ns, trace.written
        counted += 1
        end_ns, last = row.time_ns, trace.written
        if counted % stride == 0 and row.time_ns > start_ns:
            if knots and knots[-1][0] == row.time_ns:
                knots.pop()
            knots.append((row.time_ns, counted))
            if len(knots) == MOST_KNOTS - 1:
                del knots[::2]
                stride *= 2
    inner = [(at - start_ns, count) for at, count in knots if at < end_ns]
    duration_ns = end_ns - start_ns + 1
    times, counts = zip((0, 0), *inner, (duration_ns, counted), strict=True)
    return TraceInfo(counted, first, last, duration_ns, trace.columns, times, counts)


class TraceArrivals:
    """The intended times of a trace: (timestamp - first timestamp) / speed, in whole nanoseconds, rounded down.

    It also keeps what the trace says of the transactions last filled, in `recorded`.

    Args:
        path: of the CSV file.
        speed: seconds of the trace in one second of the run, > 0.
        duration_ns: rows due at or after it are left out; `None`: all are replayed.
        customers: how many; payers become accounts 0 … customers - 1.
        merchants: how many; payees become accounts customers … customers + merchants - 1.
        currency: of the amounts.

    Raises:
        ScenarioError: as `path:line: what is wrong`; for a row, when it is reached.
    """

    def __init__(
        self,
        path: Path,
        *,
        speed: float = 1.0,
        duration_ns: int | None = None,
        customers: int | None = None,
        merchants: int | None = None,
        currency: str = DEFAULT_CURRENCY,
    ) -> None:
        if not 0.0 < speed < np.inf:
            raise ValueError(f"a speed is a number > 0, not {speed}")
        # The shortest decimal that is this float: what the scenario wrote, so that 0.1 is a tenth and not nearly one.
        self._speed = Fraction(repr(float(speed)))
        self._end_ns = duration_ns if duration_ns is not None else _LARGEST_NS
        self._rows = _Reader(path, currency, customers, merchants).rows()
        self._first_ns: int | None = None
        self.recorded = Recorded(*np.empty((3, 0), np.int64))

    def fill(self, intended_ns: Ints) -> int:
        """See `simulator.arrivals.process.Arrivals.fill`."""
        said: list[tuple[int, ...]] = []
        n = 0
        while n < intended_ns.size:
            row = next(self._rows, None)
            if row is None:
                break
            if self._first_ns is None:
                self._first_ns = row.time_ns
            due_ns = (row.time_ns - self._first_ns) * self._speed.denominator // self._speed.numerator
            if due_ns >= self._end_ns:
                self._rows.close()
                break
            intended_ns[n] = due_ns
            said.append(row[2:])
            n += 1
        self.recorded = Recorded(*np.array(said, np.int64).reshape(n, 3).T.copy())
        return n


class _Lines(Protocol):
    """What `csv.reader` returns, which has no name of its own."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


class _Reader:
    """A trace's rows, checked one by one."""

    def __init__(self, path: Path, currency: str, customers: int | None, merchants: int | None) -> None:
        self._path = path
        self._currency = currency
        self._customers = customers
        self._merchants = merchants
        self._style: Style | None = None
        self._line = 1
        self.columns: tuple[str, ...] = ()
        self.written = ""  # the last row's timestamp

    def rows(self) -> Generator[Row, None, None]:
        """Every row in order; ScenarioError at the first that is wrong."""
        try:
            with self._path.open(newline="", encoding="utf-8-sig") as file:
                yield from self._checked(csv.reader(file, strict=True))
        except FileNotFoundError as error:
            raise ScenarioError(f"{self._path}: there is no such file") from error
        except OSError as error:
            raise ScenarioError(f"{self._path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise self._wrong("the file is not UTF-8 from here on", self._line + 1) from error
        except csv.Error as error:
            raise self._wrong(f"not CSV: {error}", self._line + 1) from error

    def _checked(self, lines: _Lines) -> Iterator[Row]:
        header = next(lines, None)
        if not header:
            raise self._wrong("the file is empty; its first line names the columns: " + ",".join(COLUMNS))
        self.columns = tuple(name.strip() for name in header)
        self._check_header()
        last_ns: int | None = None
        for cells in lines:
            self._line = lines.line_num
            if not cells:
                continue
            row = self._row(cells)
            if last_ns is not None and row.time_ns < last_ns:
                raise self._wrong(f"timestamp {quoted(self.written)} is before the row above it; sort the file by time")
            last_ns = row.time_ns
            yield row
        if last_ns is None:
            raise self._wrong("the trace has no rows below its header")

    def _check_header(self) -> None:
        for name in self.columns:
            if name not in COLUMNS:
                raise self._wrong(f"unknown column {quoted(name)}; the columns are {', '.join(COLUMNS)}")
            if self.columns.count(name) > 1:
                raise self._wrong(f"column {name} is there twice")
        if "timestamp" not in self.columns:
            raise self._wrong("column timestamp is missing")

    def _row(self, cells: list[str]) -> Row:
        if len(cells) != len(self.columns):
            raise self._wrong(f"{len(cells)} cells where the header names {len(self.columns)} columns")
        of = {name: cell.strip() for name, cell in zip(self.columns, cells, strict=True)}
        self.written = of["timestamp"]
        time_ns = self._time_ns(self.written)
        return Row(
            self._line,
            time_ns,
            self._amount(of.get("amount", "")),
            self._party("payer", of.get("payer", ""), 0, self._customers),
            self._party("payee", of.get("payee", ""), self._customers or 0, self._merchants),
        )

    def _time_ns(self, text: str) -> int:
        if match := _SECONDS.fullmatch(text):
            sign, whole, fraction = match.groups()
            style = Style.SECONDS
            time_ns = int(whole) * NS_PER_S + _fraction_ns(fraction)
            time_ns = -time_ns if sign else time_ns
        elif match := _ISO.fullmatch(text):
            moment, fraction, offset = match.groups()
            style = Style.ISO_OFFSET if offset else Style.ISO_UTC
            try:
                since = datetime.fromisoformat(moment + (offset or "Z")) - _EPOCH
            except ValueError as error:
                raise self._wrong(f"timestamp {quoted(text)} is no date and time: {error}") from error
            time_ns = since // timedelta(seconds=1) * NS_PER_S + _fraction_ns(fraction)
        else:
            raise self._wrong(
                f"timestamp {quoted(text)} is neither seconds (12.5) nor ISO 8601 (2019-11-11T00:00:00.5+08:00), "
                "with at most 9 decimals"
            )
        if self._style is None:
            self._style = style
        if style is not self._style:
            raise self._wrong(
                f"timestamp {quoted(text)} is {style.value}, but the rows above it are {self._style.value}"
            )
        return time_ns

    def _amount(self, text: str) -> int:
        if not text:
            return _NOT_RECORDED
        try:
            amount_minor = parse_money(text if text[-1].isalpha() else f"{text} {self._currency}", self._currency)
        except ValueError as error:
            raise self._wrong(f"amount: {error}") from error
        if amount_minor < 1:
            raise self._wrong(f"amount {quoted(text)} moves nothing; write an amount above 0")
        return amount_minor

    def _party(self, column: str, text: str, first: int, count: int | None) -> int:
        if not text:
            return _NOT_RECORDED
        if _NUMBER.fullmatch(text):
            number = int(text)
            if count is not None and number >= count:
                raise self._wrong(f"{column} {text} is out of range; this scenario's are 0 to {count - 1}")
        elif count is not None:
            number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % count
        return _NOT_RECORDED if count is None else first + number

    def _wrong(self, message: str, line: int | None = None) -> ScenarioError:
        return ScenarioError(f"{self._path}:{self._line if line is None else line}: {message}")


def _fraction_ns(digits: str | None) -> int:
    return int(digits.ljust(9, "0")) if digits else 0
