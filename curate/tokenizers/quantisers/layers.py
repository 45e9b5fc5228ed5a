"""Quantisers as layers of a network, for training and for inference; all of them run `vector_quantize_pytorch`.

Each takes latents `(N, d, ...)` of any floating dtype, channels first, with any number of axes after them: `(N, d)` a
vector, `(N, d, T)` sound, `(N, d, h, w)` pictures, `(N, d, T, h, w)` video. Whatever the encoder computed in, and
whatever autocast is on, they quantise in fp32 (law 8). What their ids mean is written down without torch in the modules
beside this one: `fsq`, `lfq`, `vq`, `rvq`, `pq`.

Latents that are not finite give ids without meaning: who encodes refuses them before, as a GPU need not be asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

from curate.schema.errors import CurateError
from curate.tokenizers.quantisers.lfq import BitOrder

EXACT = 1 << 24
"""The library adds the digits of an FSQ id up in float32, which holds whole numbers up to here."""

_BLOCK = 1 << 22  # row-code pairs at once: the library makes a one-hot int64 row of each latent, in inference too


class Quantised(NamedTuple):
    """What a layer gives for latents `(N, d, ...)`.

    Attributes:
        codes: fp32 `(N, d, ...)`, what the decoder is fed, with a straight-through gradient.
        ids: int64 `(N, ...)`; RVQ and PQ have a last axis for their levels or groups.
        loss: fp32 scalar, what the training loss has to add for the quantiser (commitment, entropy); 0 in inference.
    """

    codes: Tensor
    ids: Tensor
    loss: Tensor


class QuantiserLayer(nn.Module):
    """What all of them have.

    Attributes:
        dim: channels of the latents.
        vocabulary: ids are 0 <= id < vocabulary, per level or group where there are several.
    """

    dim: int
    vocabulary: int

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(N, d, ...)` to codes, fp32 of the same shape, and ids, int64."""
        codes, ids, _ = self.quantise(z)
        return codes, ids

    def quantise(self, z: Tensor) -> Quantised:
        """The same with the quantiser's own loss.

        Raises:
            ValueError: the latents are not floating point, or do not have `dim` channels.
        """
        if z.ndim < 2 or z.shape[1] != self.dim or not z.is_floating_point():
            raise ValueError(f"expected latents (N, {self.dim}, ...) of a floating dtype, got {z.dtype} {(*z.shape,)}")
        with torch.autocast(z.device.type, enabled=False):
            return self._quantise(z.float())

    def codes(self, ids: Tensor) -> Tensor:
        """Ids of any integer dtype to codes, fp32 `(N, d, ...)`; the ids' range is for the caller to check."""
        with torch.autocast(ids.device.type, enabled=False):
            return self._codes(ids.long())

    def _quantise(self, z: Tensor) -> Quantised:
        raise NotImplementedError

    def _codes(self, ids: Tensor) -> Tensor:
        raise NotImplementedError


def fsq_vocabulary(levels: Sequence[int]) -> int:
    """The product of the levels.

    Raises:
        CurateError: a level is below 3, or the product is above `EXACT`.
    """
    vocabulary = prod(levels)
    if not levels or min(levels) < 3 or vocabulary > EXACT:
        raise CurateError(
            f"levels {list(levels)} cannot be: each is 3 or more, and their product at most {EXACT}",
            "beyond it the library's arithmetic in fp32 gives wrong ids",
        )
    return vocabulary


class FSQLayer(QuantiserLayer):
    """Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505): `d` is the number of levels given.

    It has no parameters, no loss, and nothing in the state of the network that holds it.

    Raises:
        CurateError: a level is below 3, or the vocabulary is above 2^24.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.dim = len(self.levels)
        self.vocabulary = fsq_vocabulary(self.levels)
        self.fsq = FSQ(levels=list(self.levels), channel_first=True)

    def _quantise(self, z: Tensor) -> Quantised:
        codes, ids = self.fsq(z)
        return Quantised(codes, ids.long(), z.new_zeros(()))

    def _codes(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.fsq.indices_to_codes(ids))


class LFQLayer(QuantiserLayer):
    """Lookup-free quantisation (Yu et al. 2023, arXiv 2310.05737, section 3.1): the sign of each of `bits` channels.

    Its loss is the entropy penalty of that section. In training it compares every latent with all `2^bits`
    codes, so 18 bits want small batches.

    Args:
        bit_order: whether channel 0 is the least (`lsb`) or the most significant bit (`msb`, the library's own).
        entropy_weight: of the entropy penalty.
    """

    def __init__(self, bits: int, bit_order: BitOrder, entropy_weight: float = 0.1) -> None:
        super().__init__()
        if bit_order not in ("lsb", "msb"):
            raise ValueError(f"bit_order must be lsb or msb, got {bit_order!r}")
        self.dim = bits
        self.vocabulary = 1 << bits
        self.bit_order = bit_order
        self.lfq = LFQ(dim=bits, codebook_size=1 << bits, channel_first=True, entropy_loss_weight=entropy_weight)

    def _quantise(self, z: Tensor) -> Quantised:
        codes, ids, loss = self.lfq(self._in_order(z))
        return Quantised(self._in_order(codes), ids.long(), loss)

    def _codes(self, ids: Tensor) -> Tensor:
        return self._in_order(self.lfq.indices_to_codes(ids))

    def _in_order(self, z: Tensor) -> Tensor:
        return z.flip(1) if self.bit_order == "lsb" else z


class VQLayer(QuantiserLayer):
    """Vector quantisation (van den Oord et al. 2017, arXiv 1711.00937): the nearest row of a codebook.

    In training mode each forward pass moves the codebook by the exponential moving average of that paper's appendix
    A.1; the loss is the commitment term. Gradients pass straight through.

    Args:
        cosine: compare directions: latents and codes are scaled to length 1 (ViT-VQGAN, arXiv 2110.04627),
            and `codes` gives vectors of length 1.
        decay: of the moving average.
        commitment: weight of the commitment term.
        dead_below: codes that fewer latents of a batch choose, by the moving average, are replaced by latents of the
            batch (SoundStream, arXiv 2107.03312, section III-C); 0 leaves them.
    """

    def __init__(
        self,
        dim: int,
        vocabulary: int,
        cosine: bool = False,
        decay: float = 0.99,
        commitment: float = 0.25,
        dead_below: int = 0,
    ) -> None:
        super().__init__()
        self.dim, self.vocabulary, self.cosine = dim, vocabulary, cosine
        self.vq = VectorQuantize(
            dim=dim,
            codebook_size=vocabulary,
            use_cosine_sim=cosine,
            decay=decay,
            commitment_weight=commitment,
            threshold_ema_dead_code=dead_below,
            rotation_trick=False,
        )

    @property
    def codebook(self) -> Tensor:
        """fp32 `(vocabulary, d)`; of length 1 where `cosine`."""
        return cast(Tensor, self.vq.codebook)

    def set_codebook(self, codebook: Tensor) -> None:
        """Takes a codebook `(vocabulary, d)` over, scaled to length 1 where `cosine`."""
        _set(self.vq, codebook[None])

    def _quantise(self, z: Tensor) -> Quantised:
        return _by_rows(self.vq, z, self.vocabulary)

    def _codes(self, ids: Tensor) -> Tensor:
        return self.codebook[ids].movedim(-1, 1)


class PQLayer(QuantiserLayer):
    """Product quantisation (Jégou et al. 2011): each of `groups` equal parts of the channels has a codebook of its own.

    Ids are `(N, ..., groups)`. Training is that of `VQLayer`, part by part.

    Args:
        groups: 2 or more, a divisor of `dim`.
    """

    def __init__(
        self, dim: int, groups: int, vocabulary: int, decay: float = 0.99, commitment: float = 0.25, dead_below: int = 0
    ) -> None:
        super().__init__()
        if groups < 2 or dim % groups:
            raise ValueError(f"{dim} channels cannot be cut into {groups} equal parts; for one part use VQLayer")
        self.dim, self.groups, self.vocabulary = dim, groups, vocabulary
        self.vq = VectorQuantize(
            dim=dim,
            codebook_dim=dim // groups,
            heads=groups,
            separate_codebook_per_head=True,
            codebook_size=vocabulary,
            decay=decay,
            commitment_weight=commitment,
            threshold_ema_dead_code=dead_below,
            rotation_trick=False,
        )

    @property
    def codebooks(self) -> Tensor:
        """fp32 `(groups, vocabulary, d / groups)`."""
        return cast(Tensor, self.vq.codebook)

    def set_codebooks(self, codebooks: Tensor) -> None:
        """Takes codebooks `(groups, vocabulary, d / groups)` over, such as `pq.fit_product` made."""
        _set(self.vq, codebooks)

    def _quantise(self, z: Tensor) -> Quantised:
        return _by_rows(self.vq, z, self.vocabulary * self.groups)

    def _codes(self, ids: Tensor) -> Tensor:
        rows = self.vq.get_codes_from_indices(ids.reshape(1, -1, self.groups))
        return cast(Tensor, rows.reshape(*ids.shape[:-1], self.dim).movedim(-1, 1))


class RVQLayer(QuantiserLayer):
    """Residual vector quantisation (SoundStream, Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1), greedy.

    Level k quantises what levels 0 .. k-1 left; a code is the sum over levels. Ids are `(N, ..., levels)`. The loss is
    the sum of the levels' commitment terms. `beam.residual_search` finds nearer sums with the same codebooks.
    """

    def __init__(
        self, dim: int, levels: int, vocabulary: int, decay: float = 0.99, commitment: float = 0.25, dead_below: int = 0
    ) -> None:
        super().__init__()
        self.dim, self.levels, self.vocabulary = dim, levels, vocabulary
        self.rvq = ResidualVQ(
            dim=dim,
            num_quantizers=levels,
            codebook_size=vocabulary,
            decay=decay,
            commitment_weight=commitment,
            threshold_ema_dead_code=dead_below,
            rotation_trick=False,
        )

    @property
    def codebooks(self) -> Tensor:
        """fp32 `(levels, vocabulary, d)`."""
        return cast(Tensor, self.rvq.codebooks)

    def set_codebooks(self, codebooks: Tensor) -> None:
        """Takes codebooks `(levels, vocabulary, d)` over."""
        if len(codebooks) != self.levels:
            raise ValueError(f"expected {self.levels} codebooks, got {len(codebooks)}")
        for layer, codebook in zip(self.rvq.layers, codebooks, strict=True):
            _set(layer, codebook[None])

    def _quantise(self, z: Tensor) -> Quantised:
        return _by_rows(self.rvq, z, self.vocabulary)

    def _codes(self, ids: Tensor) -> Tensor:
        """The first levels alone give a coarser sum."""
        levels = ids.shape[-1]
        if not 1 <= levels <= self.levels:
            raise ValueError(f"expected ids of 1 to {self.levels} levels, got {levels}")
        total = self.codebooks[0][ids[..., 0]]
        for level in range(1, levels):
            total = total + self.codebooks[level][ids[..., level]]
        return total.movedim(-1, 1)


def _by_rows(quantiser: Callable[[Tensor], Any], z: Tensor, codes: int) -> Quantised:
    """Runs one of the library's channel-last quantisers, in blocks where the codebook need not see the whole batch."""
    last = z.movedim(1, -1)
    rows = last.reshape(1, -1, last.shape[-1])
    training = cast(nn.Module, quantiser).training
    blocks = (rows,) if training else torch.split(rows, max(1, _BLOCK // codes), dim=1)
    parts = [quantiser(block) for block in blocks]
    found = torch.cat([code for code, _, _ in parts], dim=1).reshape(last.shape).movedim(-1, 1)
    ids = torch.cat([ids for _, ids, _ in parts], dim=1)[0]
    loss = parts[0][2].sum() if training else z.new_zeros(())
    return Quantised(found, ids.reshape(*last.shape[:-1], *ids.shape[1:]), loss)


def _set(quantiser: VectorQuantize, codebooks: Tensor) -> None:
    """Sets codebooks `(heads, codes, d)`, and the moving averages as if each code had just been chosen once."""
    held = quantiser._codebook
    if codebooks.shape != held.embed.shape:
        raise ValueError(f"expected codebooks {(*held.embed.shape,)}, got {(*codebooks.shape,)}")
    with torch.no_grad():
        held.embed.copy_(held.transform_input(codebooks.float()))
        held.embed_avg.copy_(held.embed)
        held.cluster_size.fill_(1.0)
