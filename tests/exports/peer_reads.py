"""Run by the Python of another environment, without curate: a library reads its own format and says what it found.

    python peer_reads.py {mds,litdata,energon} FOLDER SPLIT

A JSON line a sample: of each array its type, shape and SHA-256, of all else the value.
"""

import hashlib
import json
import sys

import numpy as np


def mds(folder, split):
    import torch

    # a torchvision that was built for another torch has no operators, and declares them all the same
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from streaming import StreamingDataset

    return StreamingDataset(local=folder, split=split, shuffle=False, batch_size=1)


def litdata(folder, split):
    from litdata import StreamingDataset

    return StreamingDataset(f"{folder}/{split}", shuffle=False)


def energon(folder, split):
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_savable_loader,
        get_val_dataset,
        stateless,
    )
    from megatron.energon.task_encoder.cooking import basic_sample_keys

    @stateless
    def cook(sample):
        return {**basic_sample_keys(sample), **sample}

    class Tasks(DefaultTaskEncoder):
        cookers = (Cooker(cook),)

        def batch(self, samples):
            return samples

    workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_val_dataset(folder, split_part=split, worker_config=workers, batch_size=1, task_encoder=Tasks())
    for batch in get_savable_loader(dataset):
        for sample in batch:
            yield {name: value for name, value in sample.items() if not name.startswith("__") or name == "__key__"}


def said(value):
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return [value.dtype.name, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return value


if __name__ == "__main__":
    kind, folder, split = sys.argv[1:]
    found = {"mds": mds, "litdata": litdata, "energon": energon}[kind](folder, split)
    for sample in found:
        print("SAMPLE " + json.dumps({name: said(value) for name, value in sample.items()}))
