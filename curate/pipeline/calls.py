"""Calls of endpoints are counted for the run as a whole, by the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from curate.pipeline.cluster import Cluster
from curate.schema.ids import key_of
from curate.signals.base import Signal
from curate.signals.captions import CaptionerSignal
from curate.signals.meter import served
from curate.storage import Store


@contextmanager
def counted(signals: Sequence[Signal], build: Store, cluster: Cluster) -> Iterator[list[Signal]]:
    """The signals as workers of this run get them: those that call servers ask this process for their turns while
    the block runs, and keep answers for this build."""
    asking = [s for s in signals if isinstance(s, CaptionerSignal) and s.use.is_asked]
    if not asking:
        yield list(signals)
        return
    with served({s.name: s.use.calls for s in asking}, _host(cluster)) as meter:
        told = {s.name: s.in_run(meter, key_of(str(build))) for s in asking}
        yield [told.get(s.name, s) for s in signals]


def _host(cluster: Cluster) -> str:
    """This machine's address, as workers reach it."""
    if cluster.address is None:
        return "127.0.0.1"
    cluster.start()
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())  # type: ignore[no-untyped-call]
