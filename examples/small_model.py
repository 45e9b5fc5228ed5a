"""A model of a few lines, in the place of yours: it guesses the last digit of hidden ids from those that are shown."""

import torch
from torch import nn
from torch.nn import functional

DIGITS = 8


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.EmbeddingBag(1 << 16, 32)
        self.head = nn.Linear(32, DIGITS)

    def forward(self, ids):
        return self.head(self.table(ids % (1 << 16)))


def loss_of(model, batch):
    """Of a batch of `MaskedView`: nats of each target's last digit; nothing where a sample has no target."""
    known = model(torch.as_tensor(batch["input_ids"]))
    target = torch.as_tensor(batch["target_ids"]).long() % DIGITS
    target[~torch.as_tensor(batch["target_mask"])] = -100
    spread = known[:, None].expand(-1, target.shape[1], -1)
    lost = functional.cross_entropy(spread.flatten(0, 1), target.flatten(), reduction="sum")
    return lost / max(1, int((target >= 0).sum()))
