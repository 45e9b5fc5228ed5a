"""Train on a build with Hugging Face accelerate, here in two processes:

    accelerate launch --cpu --num_processes 2 examples/accelerate_train.py build/quickstart

Ranks and workers share the stream already, so accelerate gets the model and the optimiser only, and the loader is a
plain one. Its workers make batches ahead, so the trainer says how many it took: `state(items=...)`.
"""

import sys

import torch
from accelerate import Accelerator
from small_model import Small, loss_of
from torch.utils.data import DataLoader

import curate


def main(build, steps=100, workers=1):
    """Losses of so many steps, and where the stream then stands."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    tokens = curate.mix([build], view=curate.MaskedView(64, 64), batch=4, **place)
    model = Small()
    model, optimiser = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    loader = DataLoader(tokens, batch_size=None, num_workers=workers)
    losses = []
    for _, batch in zip(range(steps), loader, strict=False):
        loss = loss_of(model, batch)
        optimiser.zero_grad()
        accelerator.backward(loss)
        optimiser.step()
        losses.append(accelerator.reduce(loss.detach(), "mean").item())
    return losses, tokens.state(items=steps)


if __name__ == "__main__":
    print(main(sys.argv[1]))
