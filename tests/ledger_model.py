"""The ledger in plain Python: dictionaries, no arrays, no window; what the kernels of `simulator.ledger` are held against.

`Ledger` decides and books as the kernels should; `Replay` knows only journal records and says what they add up to.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from simulator.shard.layout import NO_LIMIT, Leg, Message, Protocol
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


class Sent(NamedTuple):
    """A message between two shards of different nodes."""

    what: int
    asked: Asked
    reason: int = Reason.NONE


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
    posting: bool = False  # a hold of which a post is under way
    trying: bool = False  # at home: begun, not decided
    far: str = ""  # at the payee's shard: tried, rolled back, suspended

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
    tries: int = 0

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
        self.incoming: Counter[int] = Counter()  # promised by tries
        self.under_way: defaultdict[tuple[int, int], deque[Sent]] = defaultdict(deque)  # (from node, to node)
        self.answered: list[tuple[int, Answer]] = []  # by messages: (id, answer)
        self.alarms = 0
        self.returned: Counter[int] = Counter()

    def node_of(self, account: int) -> int:
        """The node that owns an account's shard."""
        return account % self.shape.shards % self.shape.nodes

    def send(self, what: Message, asked: Asked, reason: int = Reason.NONE) -> None:
        """Puts a message on its way."""
        nodes = self.node_of(asked.payer), self.node_of(asked.payee)
        backward = what in (Message.VOTE, Message.RETURN)
        self.under_way[nodes[::-1] if backward else nodes].append(Sent(what, asked, reason))

    def has_room(self, account: int, amount: int) -> bool:
        """Whether an account may take more."""
        limit = self.shape.balance_limit_minor
        held = self.available[account] + self.reserved[account] + self.incoming[account]
        return limit == NO_LIMIT or held + amount <= limit

    def request(  # noqa: PLR0911  one line for each way out
        self, asked: Asked
    ) -> Answer | None:
        """Decides, books, and says what the client is told; None: nothing yet."""
        home = self.shards[asked.payer % self.shape.shards]
        if asked.kind == Kind.LOOKUP:
            found = home.known.get(asked.related)
            mine = found is not None and found.asked.payer == asked.payer
            if found and mine and found.trying:
                return Answer(Status.REJECTED, Reason.STATE, home.number, 0)
            return found.answer if found and mine else Answer(Status.REJECTED, Reason.NOT_FOUND, home.number, 0)
        known = home.known.get(asked.id)
        if known is not None:
            if known.asked == asked:
                return None if known.trying else known.answer
            return Answer(Status.REJECTED, Reason.DUPLICATE, home.number, 0)
        tried = self.shape.protocol == Protocol.TCC and self._is_remote(asked)
        pending = home.open_holds + home.tries
        if (tried or asked.kind == Kind.AUTHORIZE) and pending >= self.shape.remember // 2:
            return Answer(Status.REJECTED, Reason.LIMIT, home.number, 0)
        reason = self._objection(home, asked)
        if reason is None:
            return Answer(Status.REJECTED, Reason.LIMIT, home.number, 0)
        if tried and reason == Reason.NONE:
            self._begin(home, asked)
            return None
        answer = Answer(Status.REJECTED if reason else Status.OK, reason, home.number, home.log())
        entry = Known(asked, answer)
        home.known[asked.id] = entry
        if reason == Reason.NONE:
            self._book(home, entry)
        return answer

    def _is_remote(self, asked: Asked) -> bool:
        moves = asked.kind in (Kind.PAYMENT, Kind.REFUND, Kind.POST)
        return moves and asked.payee < self.shape.accounts and self.node_of(asked.payer) != self.node_of(asked.payee)

    def _objection(self, home: Shard, asked: Asked) -> Reason | None:
        reason = self._objection_at_home(home, asked)
        moves = asked.kind in (Kind.PAYMENT, Kind.REFUND, Kind.POST)
        if (
            reason == Reason.NONE
            and moves
            and not self._is_remote(asked)
            and not self.has_room(asked.payee, asked.amount)
        ):
            return Reason.LIMIT
        return reason

    def _objection_at_home(self, home: Shard, asked: Asked) -> Reason | None:
        if asked.amount <= 0:
            return Reason.AMOUNT
        strangers = {asked.payer, asked.payee} - set(range(self.shape.accounts))
        if strangers or asked.payer == asked.payee or asked.kind not in set(Kind):
            return Reason.ACCOUNT
        if asked.kind in (Kind.PAYMENT, Kind.AUTHORIZE):
            return Reason.FUNDS if self.available[asked.payer] < asked.amount else Reason.NONE
        return self._objection_to_follow_up(home.known.get(asked.related), asked)

    def _objection_to_follow_up(self, original: Known | None, asked: Asked) -> Reason | None:
        """None: cannot be said before a post that is under way is decided."""
        refund = asked.kind == Kind.REFUND
        if original is None or not (original.refundable if refund else original.was_held):
            return Reason.NOT_FOUND
        if not refund and original.posting:
            return None
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
            self.send(Message.CREDIT, asked)

    def deliver(self, from_node: int, to_node: int) -> None:
        """Takes the message that has been under way between two nodes for longest."""
        what, asked, reason = self.under_way[from_node, to_node].popleft()
        near, far = (self.shards[account % self.shape.shards] for account in (asked.payer, asked.payee))
        if what == Message.CREDIT:
            if self.has_room(asked.payee, asked.amount):
                self._credit(asked)
            else:
                self._send_back(near, far, asked)
        elif what == Message.RETURN:
            self._take_back(near, far, asked)
        elif what == Message.VOTE:
            self._vote(near, far, asked, reason)
        else:
            {Message.TRY: self._try, Message.CONFIRM: self._confirm, Message.CANCEL: self._cancel}[Message(what)](
                near, far, asked
            )

    # A credit that is refused on arrival, and its way back.

    def _send_back(self, near: Shard, far: Shard, asked: Asked) -> None:
        self.transit_in[far.number, near.number] += asked.amount
        self.transit_out[far.number, near.number] += asked.amount
        far.known[asked.id] = Known(asked, Answer(Status.REJECTED, Reason.LIMIT, far.number, far.log()))
        self.send(Message.RETURN, asked, Reason.LIMIT)

    def _take_back(self, near: Shard, far: Shard, asked: Asked) -> None:
        near.log()
        self.transit_in[near.number, far.number] += asked.amount
        self.available[asked.payer] += asked.amount
        self.returned[asked.id] += 1
        self._unrefund(near, asked)

    def _unrefund(self, near: Shard, asked: Asked) -> None:
        original = near.known.get(asked.related)
        if asked.kind == Kind.REFUND and original is not None and original.refundable:
            original.remaining += asked.amount

    # Try, confirm, cancel: home.

    def _begin(self, home: Shard, asked: Asked) -> None:
        original = home.known.get(asked.related)
        if asked.kind == Kind.POST:
            assert original is not None
            original.posting = True
        else:
            self.available[asked.payer] -= asked.amount
            self.reserved[asked.payer] += asked.amount
            if asked.kind == Kind.REFUND:
                assert original is not None
                original.remaining -= asked.amount
        home.known[asked.id] = Known(asked, Answer(Status.PENDING, Reason.NONE, home.number, home.log()), trying=True)
        home.tries += 1
        self.send(Message.TRY, asked)

    def _vote(self, home: Shard, far: Shard, asked: Asked, reason: int) -> None:
        lsn = home.log()
        entry = home.known.get(asked.id)
        if entry is None or not entry.trying:
            return
        if reason != Reason.NONE:
            self._abort(home, entry, Answer(Status.REJECTED, reason, home.number, lsn))
        else:
            self.reserved[asked.payer] -= asked.amount
            self.transit_out[home.number, far.number] += asked.amount
            if asked.kind == Kind.POST:
                hold = home.known[asked.related]
                hold.posting = False
                hold.remaining -= asked.amount
                hold.hold = hold.remaining > 0
                home.open_holds -= not hold.hold
            entry.trying, entry.answer = False, Answer(Status.OK, Reason.NONE, home.number, lsn)
            home.tries -= 1
            self.send(Message.CONFIRM, asked)
        self.answered.append((asked.id, entry.answer))

    def _abort(self, home: Shard, entry: Known, answer: Answer) -> None:
        asked = entry.asked
        if asked.kind == Kind.POST:
            home.known[asked.related].posting = False
        else:
            self.reserved[asked.payer] -= asked.amount
            self.available[asked.payer] += asked.amount
            self._unrefund(home, asked)
        entry.trying, entry.answer = False, answer
        home.tries -= 1

    def restart(self, node: int) -> None:
        """What a node does that was killed: what it had begun and not decided, it aborts."""
        for home in self.shards[node :: self.shape.nodes]:
            for entry in [entry for entry in home.known.values() if entry.trying]:
                self._abort(home, entry, Answer(Status.REJECTED, Reason.NODE_DOWN, home.number, home.log()))
                self.send(Message.CANCEL, entry.asked, Reason.NODE_DOWN)

    # Try, confirm, cancel: the payee's shard.

    def _try(self, near: Shard, far: Shard, asked: Asked) -> None:  # noqa: ARG002  one signature for three
        entry, lsn = far.known.get(asked.id), far.log()
        if entry is not None:
            if not same_transfer(entry.asked, asked):
                self.send(Message.VOTE, asked, Reason.DUPLICATE)
            elif entry.far != "tried":
                self.send(Message.VOTE, asked, Reason.STATE)
            return
        full = far.open_holds + far.tries >= self.shape.remember // 2
        if full or not self.has_room(asked.payee, asked.amount):
            far.known[asked.id] = Known(asked, Answer(Status.REJECTED, Reason.LIMIT, far.number, lsn))
            self.send(Message.VOTE, asked, Reason.LIMIT)
            return
        far.known[asked.id] = Known(asked, Answer(Status.PENDING, Reason.NONE, far.number, lsn), far="tried")
        far.tries += 1
        self.incoming[asked.payee] += asked.amount
        self.send(Message.VOTE, asked)

    def _confirm(self, near: Shard, far: Shard, asked: Asked) -> None:
        entry, lsn = far.known.get(asked.id), far.log()
        if entry is not None and not same_transfer(entry.asked, asked):
            self.alarms += 1
        elif entry is not None and entry.far == "tried":
            self._settle_try(far, asked)
            self.transit_in[far.number, near.number] += asked.amount
            self.available[asked.payee] += asked.amount
            answer = Answer(Status.OK, Reason.NONE, far.number, lsn)
            far.known[asked.id] = Known(asked, answer, asked.amount, refundable=asked.kind != Kind.REFUND)
        elif entry is None or entry.answer.status != Status.OK:
            self.alarms += 1

    def _cancel(self, near: Shard, far: Shard, asked: Asked) -> None:  # noqa: ARG002  one signature for three
        entry, lsn = far.known.get(asked.id), far.log()
        answer = Answer(Status.REJECTED, Reason.NODE_DOWN, far.number, lsn)
        if entry is None:
            far.known[asked.id] = Known(asked, answer, far="suspended")
        elif not same_transfer(entry.asked, asked):
            return
        elif entry.far == "tried":
            self._settle_try(far, asked)
            entry.far, entry.answer = "rolled back", answer
        elif entry.answer.status == Status.OK:
            self.alarms += 1

    def _settle_try(self, far: Shard, asked: Asked) -> None:
        far.tries -= 1
        self.incoming[asked.payee] -= asked.amount

    def _credit(self, asked: Asked) -> None:
        far = self.shards[asked.payee % self.shape.shards]
        near = asked.payer % self.shape.shards
        self.transit_in[far.number, near] += asked.amount
        self.available[asked.payee] += asked.amount
        answer = Answer(Status.OK, Reason.NONE, far.number, far.log())
        far.known[asked.id] = Known(asked, answer, asked.amount, refundable=asked.kind != Kind.REFUND)


def same_transfer(one: Asked, other: Asked) -> bool:
    """Whether two requests of one id are about the same parties and amount."""
    return (one.payer, one.payee, one.amount) == (other.payer, other.payee, other.amount)


_AT_THE_PAYEE = (
    Leg.CREDIT, Leg.TRIED, Leg.REFUSED, Leg.CONFIRMED, Leg.ROLLED_BACK, Leg.SUSPENDED, Leg.SEND_BACK,
)  # fmt: skip


class Replay:
    """What journal records add up to, by the meaning of their legs in `simulator.shard.layout.Leg` alone."""

    def __init__(self, shape: Shape) -> None:
        self.shards = shape.shards
        self.available: Counter[int] = Counter(dict.fromkeys(range(shape.customers), shape.opening_minor))
        self.reserved: Counter[int] = Counter()
        self.transit_out: Counter[tuple[int, int]] = Counter()
        self.transit_in: Counter[tuple[int, int]] = Counter()
        self.lsn: Counter[int] = Counter()

    def add(self, record: Any) -> None:  # noqa: ANN401, C901  one RECORD; numpy's scalar records are untyped; a table of legs
        """Books one record; its position must be the next of its shard."""
        payer, payee, amount = int(record["payer"]), int(record["payee"]), int(record["amount_minor"])
        shard, leg = int(record["shard"]), Leg(int(record["leg"]))
        near, far = payer % self.shards, payee % self.shards
        if leg not in (Leg.PASSED, Leg.ALARM):
            assert shard == (far if leg in _AT_THE_PAYEE else near)
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
        if leg in (Leg.BEGIN, Leg.ABORT) and record["kind"] != Kind.POST:
            sign = 1 if leg == Leg.BEGIN else -1
            self.reserved[payer] += sign * amount
            self.available[payer] -= sign * amount
        if leg == Leg.COMMIT:
            self.reserved[payer] -= amount
            self.transit_out[near, far] += amount
        if leg == Leg.CONFIRMED:
            self.transit_in[far, near] += amount
            self.available[payee] += amount
        if leg == Leg.SEND_BACK:
            self.transit_in[far, near] += amount
            self.transit_out[far, near] += amount
        if leg == Leg.TAKE_BACK:
            self.transit_in[near, far] += amount
            self.available[payer] += amount

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
