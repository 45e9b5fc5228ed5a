"""RVQ ids by a beam search on any device: what `rvq` says an id is, fast."""

from __future__ import annotations

import torch
from torch import Tensor


def residual_search(latents: Tensor, codebooks: Tensor, width: int) -> Tensor:
    """The ids `(T, levels)` int64 of latents `(T, D)` by a beam search over levels, in fp32 whatever the autocast.

    A greedy choice takes the nearest code at each level (SoundStream's algorithm 1, Zeghidour et al. 2021). Keeping
    the `width` best partial sums at each level finds sums nearer to the latent with the same codebooks.

    Args:
        codebooks: `(levels, codes, D)`.
        width: 1 is the greedy search.
    """
    with torch.autocast(latents.device.type, enabled=False):
        return _search(latents, codebooks, width)


def _search(latents: Tensor, codebooks: Tensor, width: int) -> Tensor:
    frames = len(latents)
    codes = codebooks.shape[1]
    residual = latents.float()[:, None]  # (T, kept, D)
    ids = torch.zeros((frames, 1, 0), dtype=torch.int64, device=latents.device)
    row = torch.arange(frames, device=latents.device)[:, None]
    for level, book in enumerate(codebooks.float()):
        # squared distance without the term that all codes of one partial sum share, which is added below
        distance = book.square().sum(-1) - 2.0 * residual @ book.T
        distance = distance + residual.square().sum(-1, keepdim=True)
        kept = 1 if level + 1 == len(codebooks) else min(width, distance.shape[1] * codes)
        best = distance.flatten(1).topk(kept, dim=1, largest=False).indices
        parent, chosen = best // codes, best % codes
        residual = residual[row, parent] - book[chosen]
        ids = torch.cat([ids[row, parent], chosen[..., None]], dim=-1)
    return ids[:, 0]
