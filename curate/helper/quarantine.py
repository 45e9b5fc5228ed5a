"""Poison: what becomes of an input whose helper process dies, and of those that share a batch with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from curate.helper.errors import HelperDied
from curate.schema.errors import Quarantined

T = TypeVar("T")

TRIES = 2
"""Deaths until an input is quarantined. The first may be another's doing (an input before it damaged the process, or
something outside killed it); the second is in a process that has seen nothing else."""


def attempt(call: Callable[[], T], tries: int = TRIES) -> T:
    """What `call` gives, tried again in a new process where the helper dies.

    A time limit is not tried again: that would cost the limit twice.

    Raises:
        Quarantined: after `tries` deaths, or one time limit.
    """
    deaths: list[HelperDied] = []
    while True:
        try:
            return call()
        except HelperDied as died:
            deaths.append(died)
            if died.error == "TimeLimit" or len(deaths) >= tries:
                raise quarantined(deaths) from died


def run_isolated(
    whole: Callable[[], list[T]], one: Callable[[int], T], count: int, tries: int = TRIES
) -> list[T | Quarantined]:
    """The results of a batch of which a member may kill the helper; only that one is lost (law 2).

    The whole batch is tried `tries` times, so that a death that came from outside changes no result: a model's floats
    may differ in their last bits where a member is computed alone. Then its members go one by one, and those that kill
    the helper `tries` times are quarantined. A batch that reaches its time limit goes one by one at once.

    Args:
        whole: computes the batch in the helper.
        one: computes member i alone, in the same helper.
        count: members of the batch, 1 or more.
    """
    try:
        return list(attempt(whole, tries))
    except Quarantined as found:
        if count == 1:
            return [found]
    out: list[T | Quarantined] = []
    for i in range(count):
        try:
            out.append(attempt(lambda i=i: one(i), tries))  # type: ignore[misc]
        except Quarantined as found:
            out.append(found)
    return out


def quarantined(deaths: list[HelperDied]) -> Quarantined:
    """What the ledger says of an input that the helper died of, once or more."""
    reasons = list(dict.fromkeys(died.message for died in deaths))
    times = f", {len(deaths)} times" if len(deaths) > 1 and len(reasons) == 1 else ""
    return Quarantined(deaths[-1].error, f"Its helper process {', then '.join(reasons)}{times}.", len(deaths))
