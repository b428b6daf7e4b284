"""The ledger in plain Python: dictionaries, no arrays, no window; what the kernels of `simulator.ledger` are held against.

`Ledger` decides and books as the kernels should; `Replay` knows only journal records and says what they add up to.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from simulator.shard.layout import Leg
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.shard.layout import Shape


@dataclass(frozen=True)
class Asked:
    """What a client asks for."""

    id: int
    kind: int
    payer: int
    payee: int
    amount: int
    related: int = 0


class Answer(NamedTuple):
    """What it is told."""

    status: int
    reason: int
    shard: int
    lsn: int


@dataclass
class Known:
    """A remembered transaction."""

    asked: Asked
    answer: Answer
    remaining: int = 0
    hold: bool = False
    refundable: bool = False

    @property
    def was_held(self) -> bool:
        """Whether this is a hold, open or not."""
        return self.asked.kind == Kind.AUTHORIZE and self.answer.status == Status.OK


@dataclass
class Shard:
    """One shard: its log's length and what it remembers."""

    number: int
    lsn: int = 0
    open_holds: int = 0

    def __post_init__(self) -> None:
        self.known: dict[int, Known] = {}

    def log(self) -> int:
        """The next position."""
        self.lsn += 1
        return self.lsn


class Ledger:
    """A platform of any number of shards on any number of nodes."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.shards = [Shard(number) for number in range(shape.shards)]
        self.available: Counter[int] = Counter(dict.fromkeys(range(shape.customers), shape.opening_minor))
        self.reserved: Counter[int] = Counter()
        self.transit_out: Counter[tuple[int, int]] = Counter()  # (near shard, far shard)
        self.transit_in: Counter[tuple[int, int]] = Counter()  # (far shard, near shard)
        self.under_way: defaultdict[tuple[int, int], deque[Asked]] = defaultdict(deque)  # (near node, far node)

    def node_of(self, account: int) -> int:
        """The node that owns an account's shard."""
        return account % self.shape.shards % self.shape.nodes

    def request(self, asked: Asked) -> Answer:
        """Decides, books, and says what the client is told."""
        home = self.shards[asked.payer % self.shape.shards]
        if asked.kind == Kind.LOOKUP:
            found = home.known.get(asked.related)
            mine = found is not None and found.asked.payer == asked.payer
            return found.answer if found and mine else Answer(Status.REJECTED, Reason.NOT_FOUND, home.number, 0)
        known = home.known.get(asked.id)
        if known is not None:
            if known.asked == asked:
                return known.answer
            return Answer(Status.REJECTED, Reason.DUPLICATE, home.number, 0)
        if asked.kind == Kind.AUTHORIZE and home.open_holds >= self.shape.remember // 2:
            return Answer(Status.REJECTED, Reason.LIMIT, home.number, 0)
        reason = self._objection(home, asked)
        answer = Answer(Status.REJECTED if reason else Status.OK, reason, home.number, home.log())
        entry = Known(asked, answer)
        home.known[asked.id] = entry
        if reason == Reason.NONE:
            self._book(home, entry)
        return answer

    def _objection(self, home: Shard, asked: Asked) -> Reason:
        if asked.amount <= 0:
            return Reason.AMOUNT
        strangers = {asked.payer, asked.payee} - set(range(self.shape.accounts))
        if strangers or asked.payer == asked.payee or asked.kind not in set(Kind):
            return Reason.ACCOUNT
        if asked.kind in (Kind.PAYMENT, Kind.AUTHORIZE):
            return Reason.FUNDS if self.available[asked.payer] < asked.amount else Reason.NONE
        return self._objection_to_follow_up(home.known.get(asked.related), asked)

    def _objection_to_follow_up(self, original: Known | None, asked: Asked) -> Reason:
        refund = asked.kind == Kind.REFUND
        if original is None or not (original.refundable if refund else original.was_held):
            return Reason.NOT_FOUND
        if not refund and not original.hold:
            return Reason.STATE
        parties = (asked.payee, asked.payer) if refund else (asked.payer, asked.payee)
        if (original.asked.payer, original.asked.payee) != parties:
            return Reason.ACCOUNT
        if asked.amount > original.remaining:
            return Reason.EXCEEDS
        return Reason.FUNDS if refund and self.available[asked.payer] < asked.amount else Reason.NONE

    def _book(self, home: Shard, entry: Known) -> None:
        asked = entry.asked
        if asked.related and asked.kind not in (Kind.PAYMENT, Kind.AUTHORIZE):
            original = home.known[asked.related]
            original.remaining -= asked.amount
            if original.hold and original.remaining == 0:
                original.hold = False
                home.open_holds -= 1
        if asked.kind == Kind.AUTHORIZE:
            self.available[asked.payer] -= asked.amount
            self.reserved[asked.payer] += asked.amount
            home.open_holds += 1
            entry.hold, entry.remaining = True, asked.amount
            return
        source = self.reserved if asked.kind in (Kind.POST, Kind.VOID) else self.available
        source[asked.payer] -= asked.amount
        if asked.kind == Kind.VOID:
            self.available[asked.payer] += asked.amount
            return
        far = asked.payee % self.shape.shards
        if far == home.number:
            self.available[asked.payee] += asked.amount
            entry.refundable, entry.remaining = asked.kind != Kind.REFUND, asked.amount
            return
        self.transit_out[home.number, far] += asked.amount
        nodes = self.node_of(asked.payer), self.node_of(asked.payee)
        if nodes[0] == nodes[1]:
            self._credit(asked)
        else:
            self.under_way[nodes].append(asked)

    def deliver(self, near_node: int, far_node: int) -> None:
        """Books the credit that has been under way between two nodes for longest."""
        self._credit(self.under_way[near_node, far_node].popleft())

    def _credit(self, asked: Asked) -> None:
        far = self.shards[asked.payee % self.shape.shards]
        near = asked.payer % self.shape.shards
        self.transit_in[far.number, near] += asked.amount
        self.available[asked.payee] += asked.amount
        answer = Answer(Status.OK, Reason.NONE, far.number, far.log())
        far.known[asked.id] = Known(asked, answer, asked.amount, refundable=asked.kind != Kind.REFUND)


class Replay:
    """What journal records add up to, by the meaning of their legs in `simulator.shard.layout.Leg` alone."""

    def __init__(self, shape: Shape) -> None:
        self.shards = shape.shards
        self.available: Counter[int] = Counter(dict.fromkeys(range(shape.customers), shape.opening_minor))
        self.reserved: Counter[int] = Counter()
        self.transit_out: Counter[tuple[int, int]] = Counter()
        self.transit_in: Counter[tuple[int, int]] = Counter()
        self.lsn: Counter[int] = Counter()

    def add(self, record: Any) -> None:  # noqa: ANN401  one RECORD; numpy's scalar records are untyped
        """Books one record; its position must be the next of its shard."""
        payer, payee, amount = int(record["payer"]), int(record["payee"]), int(record["amount_minor"])
        shard, leg = int(record["shard"]), Leg(int(record["leg"]))
        near, far = payer % self.shards, payee % self.shards
        assert shard == (far if leg == Leg.CREDIT else near)
        self.lsn[shard] += 1
        assert record["lsn"] == self.lsn[shard]
        if leg in (Leg.TRANSFER, Leg.DEBIT):
            (self.reserved if record["kind"] == Kind.POST else self.available)[payer] -= amount
        if leg in (Leg.TRANSFER, Leg.CREDIT):
            self.available[payee] += amount
        if leg == Leg.DEBIT:
            self.transit_out[near, far] += amount
        if leg == Leg.CREDIT:
            self.transit_in[far, near] += amount
        if leg in (Leg.RESERVE, Leg.RELEASE, Leg.EXPIRE):
            sign = 1 if leg == Leg.RESERVE else -1
            self.reserved[payer] += sign * amount
            self.available[payer] -= sign * amount

    def add_all(self, records: NDArray[Any]) -> None:
        """Books records in order."""
        for record in records:
            self.add(record)


def changed(asked: Asked, what: int, shards: int) -> Asked:
    """The same id with one parameter changed (none for 0); its payer stays in its shard, where the id is known.

    `shards` divides 2³², so that an account number that wraps stays in its shard too.
    """
    if what == 1:
        return replace(asked, amount=asked.amount + (1 if asked.amount <= 0 else -1))
    if what == 2:
        return replace(asked, payee=(asked.payee + 1) % 2**32)
    if what == 3:
        return replace(asked, kind=Kind.AUTHORIZE if asked.kind == Kind.PAYMENT else Kind.PAYMENT)
    if what == 4:
        return replace(asked, related=asked.related + 1)
    if what == 5:
        return replace(asked, payer=(asked.payer + shards) % 2**32)
    return asked
