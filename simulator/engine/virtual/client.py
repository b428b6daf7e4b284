"""What a client of the virtual clock makes of an answer: whether it may be tried again, whether it leaves doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.engine.virtual.records import Answer

if TYPE_CHECKING:
    from simulator.scenario.client import Client

# Whether nothing can have happened, by the answer; else the transaction stays in doubt whatever later attempts say.
DOUBTFUL = (Answer.RESET, Answer.BROKEN, Answer.LATE)
_TRIGGERS = {
    "timeout": (Answer.LATE,),
    "refused": (Answer.FULL, Answer.LIMIT, Answer.NO_NODE),
    "error": (Answer.DOWN, Answer.RESET, Answer.BROKEN),
}


def retried_answers(client: Client) -> int:
    """The answers that are tried again, as bits by `Answer`."""
    on = client.retries.on if client.retries is not None else ()
    return sum(1 << int(answer) for trigger in on for answer in _TRIGGERS[trigger])
