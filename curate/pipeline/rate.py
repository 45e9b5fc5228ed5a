"""How fast a stage is now: over a sliding window, so that neither reused pieces nor a slow start count."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
"""What came through longer ago says nothing of the speed now."""

LEAST_MOMENTS = 4
"""Moments that stay in the window however old they are: a piece may take minutes."""

TOGETHER_SECONDS = 1.0
"""What comes within this time is one moment: workers that started together end their first pieces together."""

LEAST_SECONDS = 2.0
"""Over less time than this a rate is chance."""


@dataclass
class _Moment:
    first: float
    last: float
    done: int  # by `last`, from the start on


class Rate:
    """Inputs a second, from when each of them came through. Times are seconds on any steady clock."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        self._first: _Moment | None = None
        self._done = 0

    def add(self, now: float, count: int) -> None:
        """`count` more came through at `now`."""
        self._done += count
        if self._moments and now - self._moments[-1].first < TOGETHER_SECONDS:
            self._moments[-1].last, self._moments[-1].done = now, self._done
        else:
            self._moments.append(_Moment(now, now, self._done))
            self._first = self._first or self._moments[0]
        while len(self._moments) > LEAST_MOMENTS and self._moments[1].last < now - WINDOW_SECONDS:
            self._moments.popleft()

    def per_second(self, now: float) -> float | None:
        """The rate from the first moment in the window to the last; None until it is known.

        What came with the first moment was made before it, while models loaded and caches filled, and does not count.
        Where nothing comes for longer than between two moments on average, the rate falls; until then it stands, so
        that it does not swing with each batch.
        """
        if len(self._moments) < 2:
            return None
        since, last = self._moments[0], self._moments[-1]
        between = (last.last - since.last) / (len(self._moments) - 1)
        seconds = max(last.last, now - between) - since.last
        return (self._done - since.done) / seconds if seconds >= LEAST_SECONDS else None

    def from_the_first(self) -> tuple[float, float] | None:
        """When the first moment ended, and the rate from then to the last one; None where it is not known."""
        if self._first is None:
            return None
        seconds = self._moments[-1].last - self._first.last
        if seconds < LEAST_SECONDS:
            return None
        return self._first.last, (self._done - self._first.done) / seconds
