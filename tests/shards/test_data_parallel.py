"""Data-parallel training over a stream: real ranks, of which each step waits for all."""

from __future__ import annotations

from pathlib import Path

import torch

from curate.shards.stream import stream


def train(rank: int, world: int, build: str, rendezvous: str, out: str) -> None:
    """What a rank of data-parallel training does: a step waits for all ranks."""
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    steps = 0
    for batch in stream(build, rank=rank, world=world, batch=5, tail="drop", tensors=True):
        model(batch["start_us"][:, None].float()).sum().backward()  # averages gradients over ranks
        steps += 1
    torch.distributed.destroy_process_group()
    Path(out, str(rank)).write_text(str(steps))


def test_data_parallel_training_comes_to_its_end(shared_build: Path, tmp_path: Path) -> None:
    """101 samples in batches of 5 on 2 ranks: uneven, the first one has a batch more, and waits for ever."""
    assert [len(stream(shared_build, rank=r, world=2, batch=5)) for r in range(2)] == [11, 10]
    args = (2, str(shared_build), str(tmp_path / "rendezvous"), str(tmp_path))
    torch.multiprocessing.spawn(train, args, nprocs=2)
    assert [(tmp_path / str(r)).read_text() for r in range(2)] == ["10"] * 2
