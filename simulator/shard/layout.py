"""What the processes of one platform share: journal records, ring messages, and the board of counters.

Everything that crosses a process or reaches a disk is a NumPy dtype with an asserted size. All shared memory is anonymous
(`MAP_SHARED | MAP_ANONYMOUS`, inherited through fork): it has no name, so it cannot outlive its processes, whatever kills them.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import BackendError
from simulator.measure.histogram import COUNTS
from simulator.shard.split import Split, split_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODES_MAX = 16
SHARDS_MAX = 256  # a journal record names its shard in one byte
NO_LIMIT = -1


class Protocol(IntEnum):
    """How a transfer crosses from a shard to one of another node; the machines are drawn in docs/shards.md."""

    OUTBOX = 0  # debit, answer, then deliver the credit until it is acknowledged; a refused credit is sent back
    TCC = 1  # try, then confirm or cancel: the answer waits for the far shard's vote
    UNSAFE_DUAL_WRITE = (
        2  # debit, answer, and send the credit once: wrong on purpose, so that an audit has something to find
    )


class Message(IntEnum):
    """What a record in a ring to a node is. All but requests and unsafe credits are numbered for their pair of shards."""

    REQUEST = 0  # a client's transaction, entering here or handed on by the node that it entered
    CREDIT = 1  # the far leg of a transfer whose near leg is durable
    UNSAFE_CREDIT = 2  # the same, sent once and not numbered
    TRY = 3  # home asks the payee's shard to promise that it will take a credit
    CONFIRM = 4  # home has decided: book it
    CANCEL = 5  # home has decided: forget it
    VOTE = 6  # the payee's shard answers a TRY; `slot` has the Reason, NONE for yes
    RETURN = 7  # the payee's shard sends the money of a refused CREDIT back


BACKWARD = (Message.VOTE, Message.RETURN)  # from the payee's shard to the payer's; all others go the other way


class Leg(IntEnum):
    """What a journal record books. The account on the other side is implied, so every record balances by itself."""

    NONE = 0  # nothing: a rejection, remembered so that its id never succeeds later
    TRANSFER = 1  # Dr payer, Cr payee; both in this shard
    DEBIT = 2  # Dr payer, Cr transit(here → payee's shard)
    CREDIT = 3  # Dr transit(payer's shard → here), Cr payee
    RESERVE = 4  # payer: available → reserved
    RELEASE = 5  # payer: reserved → available, asked for by a void
    EXPIRE = 6  # payer: reserved → available, by the platform itself
    # Try, confirm, cancel at home, the payer's shard.
    BEGIN = 7  # payer: available → reserved (what a POST takes is reserved already)
    COMMIT = 8  # payer: reserved → transit(here → payee's shard); the commit point of the whole transfer
    ABORT = 9  # payer: reserved → available (what a POST would have taken stays reserved)
    # The same at the payee's shard.
    TRIED = 10  # nothing yet: it will take the credit when told to
    REFUSED = 11  # nothing: it will not
    CONFIRMED = 12  # Dr transit(payer's shard → here), Cr payee
    ROLLED_BACK = 13  # nothing: what was promised is not needed
    SUSPENDED = 14  # nothing: cancelled before it was tried, so a late TRY is refused
    DEAD = 15  # nothing: a far leg that could not be booked; its number counts as arrived, its money stays on transit
    # At either, because every numbered message must leave a record: its number is not written anywhere else.
    PASSED = 16  # nothing: a message that says what is known already
    ALARM = 17  # nothing: a message that must not be; the auditor finds it
    # A credit that the outbox delivered and the payee's account may not take.
    SEND_BACK = 18  # Dr transit(payer's shard → here), Cr transit(here → payer's shard)
    TAKE_BACK = 19  # Dr transit(payee's shard → here), Cr payer


# What leaves for the other shard once the record is durable. An ABORT tells nobody when the other shard itself had refused.
SENDS = {
    Leg.DEBIT: Message.CREDIT,
    Leg.BEGIN: Message.TRY,
    Leg.COMMIT: Message.CONFIRM,
    Leg.ABORT: Message.CANCEL,
    Leg.TRIED: Message.VOTE,
    Leg.REFUSED: Message.VOTE,
    Leg.SEND_BACK: Message.RETURN,
}


class Custody(IntEnum):
    """What a journal record says of a whole shard; stands in the place of a leg, far from the numbers of those.

    Such a record has a frame of its own, the number of the move as its id, the node on the other side as `related`, and
    the position that the shard had reached as its lsn (it takes none itself).
    """

    MOVE_OUT = 254  # nothing more of this shard follows here
    MOVE_IN = 255  # it goes on here, from that position


# One booked leg. The kind tells where a debit comes from: a POST takes it from reserved, all others from available.
RECORD = np.dtype(
    [
        ("id", "<u8"),
        ("amount_minor", "<i8"),
        ("related", "<u8"),
        ("payer", "<u4"),
        ("payee", "<u4"),
        ("lsn", "<u4"),  # 1, 2, 3 … within the shard
        ("shard", "u1"),
        ("kind", "u1"),
        ("leg", "u1"),
        ("reason", "u1"),
    ]
)

# Stands before the records of one commit. All or nothing: one checksum over the header's other fields and the body.
FRAME = np.dtype(
    [
        ("checksum", "<u8"),  # xxh3-64 of the rest of the header and the body
        ("magic", "<u4"),
        ("count", "<u4"),  # records in the body
        ("number", "<u8"),  # 1, 2, 3 … within the journal
        ("committed_ns", "<i8"),  # since the start of the run: when the commit began
    ]
)
FRAME_MAGIC = 0x4D524653  # "SFRM"

# The first 64 bytes of a journal: enough to audit it without any other file.
FILE_HEADER = np.dtype(
    [
        ("checksum", "<u8"),
        ("magic", "<u8"),
        ("version", "<u4"),
        ("node", "<u2"),
        ("nodes", "<u2"),
        ("shards", "<u4"),
        ("accounts", "<u4"),  # customers, merchants and sub-accounts together
        ("opening_minor", "<i8"),  # the opening balance of each customer
        ("customers", "<u4"),
        ("durability", "<u4"),
        ("run", "<u8"),  # seed of the run, so that journals of two runs are not mixed up
        ("hot_accounts", "<u2"),  # how many merchants are split, the most popular first
        ("hot_split", "<u2"),  # into how many sub-accounts each; simulator.shard.split has the law
        ("remember", "<u4"),  # ids each shard remembers at least; 0: not told
        ("balance_limit_minor", "<i8"),  # what an account may hold; NO_LIMIT: anything
        ("protocol", "<u4"),  # Protocol
        ("_", "<u4"),
    ]
)
# What a gateway asks a node beside requests, and the answer: reads, which change and log nothing (simulator.ledger.inquiry).
QUESTION = np.dtype(
    [
        ("key", "<u8"),  # the account's number, or the transaction's id
        ("slot", "<u4"),  # echoed
        ("what", "<u4"),  # Inquiry
    ]
)
ANSWER = np.dtype(
    [
        ("key", "<u8"),
        ("amount_minor", "<i8"),  # of an account: available
        (
            "remaining_minor",
            "<i8",
        ),  # of an account: reserved; of a transaction: what may still be posted, voided or refunded
        ("related", "<u8"),
        ("slot", "<u4"),
        ("payer", "<u4"),
        ("payee", "<u4"),
        ("lsn", "<u4"),
        ("shard", "<u2"),
        ("found", "u1"),  # Found
        ("kind", "u1"),
        ("status", "u1"),
        ("reason", "u1"),
        ("state", "u1"),  # simulator.ledger.books.State
        ("_", "u1"),
        ("_2", "<u8"),
    ]
)
FILE_MAGIC = 0x4C4E524A_4D4953_01  # "SIM JRNL", version in the low byte

assert QUESTION.itemsize == 16, QUESTION.itemsize  # noqa: PLR2004, S101  in rings that two processes share
assert ANSWER.itemsize == 64, ANSWER.itemsize  # noqa: PLR2004, S101  as QUESTION
assert RECORD.itemsize == 40, RECORD.itemsize  # noqa: PLR2004, S101  the on-disk format; a wrong layout must not run
assert FRAME.itemsize == 32, FRAME.itemsize  # noqa: PLR2004, S101  as RECORD
assert FILE_HEADER.itemsize == 80, FILE_HEADER.itemsize  # noqa: PLR2004, S101  as RECORD


class Inquiry(IntEnum):
    """What a gateway may ask of a node."""

    ACCOUNT = 1
    TRANSACTION = 2


class Found(IntEnum):
    """What a node knows of what was asked."""

    NOTHING = 0
    FAR = 1  # a payment's far side only: the node that decided it knows more
    ALL = 2


class Durability(IntEnum):
    """When a reply is released; what may be lost is said beside each."""

    MEMORY = 0  # at once; everything
    OS = 1  # written, not synced; nothing on kill -9, the unsynced tail on power loss
    INTERVAL = 2  # written, synced every so often; at most one interval on power loss
    GROUP = 3  # synced; nothing, ever


FAR_LEG_SYNC_NS = 100_000_000  # `Durability.OS` syncs this often all the same, for the far legs that wait for it


def unsynced_ns_max(durability: Durability, interval_ns: int) -> int:
    """How long after a sync a record may be acknowledged without another one: what a power loss may take.

    A commit that begins later than this after the last sync ends in a sync, before anything of it is answered. 0 for
    `GROUP`, which syncs each commit, and for `MEMORY`, where no time bounds the loss.
    """
    return {Durability.OS: FAR_LEG_SYNC_NS, Durability.INTERVAL: interval_ns}.get(durability, 0)


class NodeState(IntEnum):
    """Where a node is in its life; written by the node, read by everyone."""

    STARTING = 0
    RECOVERED = 1  # has read its journal; waits for peers that are reading theirs
    READY = 2
    QUIET = 3  # told to stop, and nothing of its own is left to do; still takes what its peers send
    STOPPED = 4  # closed its journal and wrote its closing sheet
    FAILED = 5  # could not make its journal durable: nothing after that was acknowledged


class MovePhase(IntEnum):
    """How far the move of a shard is, of which there is at most one at a time; see `simulator.shard.move`."""

    IDLE = 0
    REQUESTED = 1  # by the pool: whoever is not the old owner parks what comes for the shard
    FROZEN = 2  # by the old owner: its image and its MOVE_OUT are durable, and it books nothing there any more
    TAKEN = 3  # by the new owner: its MOVE_IN is durable, and all send to it


class MoveWord(IntEnum):
    """Where each fact about the present move stands in `Board.move`. Times are nanoseconds since the start of the run."""

    PHASE = 0  # MovePhase; written last, with release, by whoever ends the phase before
    NUMBER = 1  # 1, 2, 3 … within the run
    SHARD = 2
    SOURCE = 3  # the node that owns the shard before
    TARGET = 4  # and after
    REQUESTED_NS = 5
    STOPPED_NS = 6  # the old owner's last possible booking
    FROZEN_NS = 7
    RESUMED_NS = 8  # the new owner's first possible booking
    KEYS = 9  # accounts of the shard
    BYTES = 10  # of its image


class Stop(IntEnum):
    """What the pool tells the nodes."""

    RUN = 0
    QUIESCE = 1  # no more requests will come; finish what is under way
    CLOSE = 2  # every node is quiet: close the books


# One row a node, 256 bytes so that two nodes never write to the same or adjacent cache lines.
NODE_BOARD = np.dtype(
    {
        "names": [
            "state", "pid", "errno", "frames", "records", "bytes", "handed_on", "busy_ns", "outbox_max",
            "refused", "cpu_ns", "sequence_gaps", "incarnation", "synced_bytes", "replayed", "replay_ns", "expired",
            "set_aside", "retried", "healed", "dead_requests", "dead_credits", "dead_unwritten", "alarms",
            "unread", "synced_ns",
        ],
        "formats": ["<i8"] * 26,
        "itemsize": 256,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The fixed dimensions of one embedded platform.

    Accounts are numbered customers first, merchants behind them, sub-accounts of split merchants last; account `a` lives in
    shard `a % shards` at row `a // shards`, and shard `s` is owned by node `s % nodes` at the start.
    """

    nodes: int
    shards: int
    customers: int
    merchants: int
    opening_minor: int
    remember: int  # ids each shard remembers at least (at most twice as many); a power of two
    hot_accounts: int = 0  # how many merchants are split, the most popular first
    hot_split: int = 1  # into how many sub-accounts each
    protocol: Protocol = Protocol.OUTBOX
    balance_limit_minor: int = NO_LIMIT  # what an account may hold, available and reserved together

    def __post_init__(self) -> None:
        """Refuses dimensions that the kernels' arithmetic does not bear."""
        split_of(self.customers, self.merchants, self.shards, self.nodes, self.hot_accounts, self.hot_split)
        if self.remember <= 0 or self.remember & (self.remember - 1):
            raise ValueError(f"remember must be a power of two, not {self.remember}")

    @property
    def split(self) -> Split:
        """Which merchants are split, and how."""
        return split_of(self.customers, self.merchants, self.shards, self.nodes, self.hot_accounts, self.hot_split)

    @property
    def accounts(self) -> int:
        """All accounts: customers, merchants and sub-accounts."""
        return self.customers + self.merchants + self.split.extra

    def rows(self, shard: int) -> int:
        """How many accounts live in a shard."""
        return (self.accounts - shard + self.shards - 1) // self.shards

    def owners(self) -> NDArray[np.int64]:
        """The node that owns each shard at the start, shape (shards,)."""
        return np.arange(self.shards, dtype=np.int64) % self.nodes


def route(messages: NDArray[np.void], shards: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(from, to): the shards that messages (TRANSACTION) between two shards come from and go to."""
    payer, payee = (messages[name].astype(np.int64) % shards for name in ("payer", "payee"))
    backward = np.isin(messages["message"], BACKWARD)
    return np.where(backward, payee, payer), np.where(backward, payer, payee)


def shared_array(count: int, dtype: type[np.int64 | np.uint32] | np.dtype[np.void]) -> NDArray[Any]:
    """A zeroed array in anonymous shared memory, seen by every process forked after this call.

    Pages cost memory only once touched. Raises BackendError when the kernel refuses the mapping.
    """
    size = np.dtype(dtype).itemsize * count
    try:
        area = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise BackendError(f"cannot map {size:,} bytes of shared memory: {error.strerror}") from error
    return np.frombuffer(area, dtype=dtype, count=count)


class Board:
    """The counters that node processes, dispatcher and pool share; each word has one writer.

    `acked[b, a]` is the last sequence from shard a to shard b that is durable at b: what lets a's outbox forget. Words of a
    shard are written by the node that owns it, `owners` among them: by the new one, when it has taken the shard.
    """

    def __init__(self, shape: Shape) -> None:
        self.nodes = shared_array(shape.nodes, NODE_BOARD)
        self.stop = shared_array(1, np.int64)
        self.epoch_ns = shared_array(1, np.int64)  # CLOCK_MONOTONIC at the start of the run
        self.acked = shared_array(shape.shards * shape.shards, np.int64).reshape(shape.shards, shape.shards)
        # What a fault poisons at each node: the threshold for requests, the one for far legs, and the tries that fail (0: all).
        self.poison = shared_array(shape.nodes * 3, np.int64).reshape(shape.nodes, 3)
        self.applied = shared_array(shape.shards, np.int64)  # records in the log of each shard
        self.owners = shared_array(shape.shards, np.int64)
        self.owners[:] = shape.owners()
        self.asked = shared_array(
            shape.nodes, np.int64
        )  # the incarnation of a node that the dispatcher has asked again
        self.move = shared_array(len(MoveWord), np.int64)
        # Each node's part in a move: the move that it has parked for, where its ring to the old owner stood then, how many
        # it parked and had to refuse, and the move after which it has turned to the new owner.
        self.fenced = shared_array(shape.nodes, np.int64)
        self.fence = shared_array(shape.nodes, np.int64)
        self.parked = shared_array(shape.nodes, np.int64)
        self.park_refused = shared_array(shape.nodes, np.int64)
        self.switched = shared_array(shape.nodes, np.int64)
        # How often a power loss may have taken acknowledged positions from the logs; stands in every answer from then on.
        self.epoch = shared_array(1, np.int64)
        # How long each node's commits took: histogram counts, as in simulator.measure.histogram.
        self.commits = shared_array(shape.nodes * COUNTS, np.int64).reshape(shape.nodes, COUNTS)
