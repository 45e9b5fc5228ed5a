"""An input that kills its helper is tried again, then quarantined; those that share its batch are completed."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator

import pytest

from curate.helper.errors import HelperDied, HelperError
from curate.helper.process import Helper
from curate.helper.quarantine import attempt, run_isolated
from curate.schema.errors import MediaError, Quarantined
from curate.schema.verdict import Failure


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    with Helper("helper_services:Native", memory_bytes=64 << 20, name="native") as helper:
        yield helper


class Batch:
    """Values given to a service that dies of 13 and hangs on 7."""

    def __init__(self, helper: Helper, values: list[int]) -> None:
        self.helper, self.values = helper, values
        self.asked: list[object] = []

    def whole(self) -> list[list[object]]:
        self.asked.append("whole")
        return list(self.helper.call("each_or_die", self.values, False, limit_s=0.4 if 7 in self.values else 30))

    def one(self, i: int) -> list[object]:
        self.asked.append(i)
        limit = 0.4 if self.values[i] == 7 else 30
        return list(self.helper.call("each_or_die", [self.values[i]], True, limit_s=limit)[0])

    def run(self) -> list[list[object] | Quarantined]:
        return run_isolated(self.whole, self.one, len(self.values))


def test_a_killer_is_quarantined_after_two_deaths(helper: Helper) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        helper.call("segfault", limit_s=30)

    with pytest.raises(Quarantined) as found:
        attempt(call)
    assert len(calls) == 2
    assert Failure.of("annotate:decode", found.value) == Failure(
        "annotate:decode", "Crashed", "Its helper process was killed by SIGSEGV, 2 times.", 2
    )


def test_memory_is_tried_again_and_time_is_not(helper: Helper) -> None:
    with pytest.raises(Quarantined) as found:
        attempt(lambda: helper.call("eat", limit_s=30))
    sentence = "Its helper process needed more memory than its limit of 64 MiB, 2 times."
    assert Failure.of("cut", found.value) == Failure("cut", "MemoryLimit", sentence, 2)
    with pytest.raises(Quarantined) as found:
        attempt(lambda: helper.call("sleep", limit_s=0.3))
    sentence = "Its helper process took longer than its limit of 0.3 s."
    assert Failure.of("cut", found.value) == Failure("cut", "TimeLimit", sentence, 1)


def test_deaths_that_differ_are_both_told(helper: Helper) -> None:
    ways = iter([signal.SIGSEGV, signal.SIGABRT])
    with pytest.raises(Quarantined, match="was killed by SIGSEGV, then was killed by SIGABRT"):
        attempt(lambda: helper.call("kill", next(ways), limit_s=30))


def test_a_death_from_outside_costs_a_try_and_no_result(helper: Helper) -> None:
    ways = iter([("kill", signal.SIGKILL), ("echo", "well")])
    assert attempt(lambda: helper.call(*next(ways), limit_s=30)) == "well"


def test_exceptions_of_the_service_are_not_deaths(helper: Helper) -> None:
    calls = []

    def promised() -> None:
        calls.append(1)
        helper.call("promised", limit_s=30)

    with pytest.raises(MediaError):
        attempt(promised)
    with pytest.raises(HelperError):
        attempt(lambda: helper.call("odd", limit_s=30))
    assert len(calls) == 1


def test_a_batch_without_a_killer_is_one_call(helper: Helper) -> None:
    batch = Batch(helper, [1, 2, 3])
    assert batch.run() == [[1, "together"], [2, "together"], [3, "together"]]
    assert batch.asked == ["whole"]


def test_the_neighbours_of_a_killer_are_completed(helper: Helper) -> None:
    batch = Batch(helper, [1, 13, 3])
    got = batch.run()
    assert [got[0], got[2]] == [[1, "alone"], [3, "alone"]]
    assert isinstance(got[1], Quarantined)
    assert (got[1].error, got[1].attempt) == ("Crashed", 2)
    assert batch.asked == ["whole", "whole", 0, 1, 1, 2]


def test_the_neighbours_of_one_that_hangs_are_completed(helper: Helper) -> None:
    batch = Batch(helper, [1, 7, 3])
    got = batch.run()
    assert [got[0], got[2]] == [[1, "alone"], [3, "alone"]]
    assert isinstance(got[1], Quarantined)
    assert (got[1].error, got[1].attempt) == ("TimeLimit", 1)
    assert batch.asked == ["whole", 0, 1, 2]


def test_a_batch_that_is_killed_once_from_outside_stays_whole(helper: Helper) -> None:
    """A model's last bits depend on who shares a batch: a stray signal must not change them (law 6)."""
    batch = Batch(helper, [1, 2])
    strays = [signal.SIGKILL]

    def whole() -> list[list[object]]:
        while strays:
            helper.call("kill", strays.pop(), limit_s=30)
        return batch.whole()

    assert run_isolated(whole, batch.one, 2) == [[1, "together"], [2, "together"]]


def test_a_batch_of_one_is_not_tried_four_times(helper: Helper) -> None:
    batch = Batch(helper, [13])
    assert [type(lost) for lost in batch.run()] == [Quarantined]
    assert batch.asked == ["whole", "whole"]


@pytest.mark.parametrize(
    "error", [Quarantined("Crashed", "It died.", 2), HelperDied("Crashed", "died", "x"), HelperError("Odd", "is odd")]
)
def test_the_errors_come_out_of_a_ray_task_as_they_were(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__dict__) == (str(error), error.__dict__)
