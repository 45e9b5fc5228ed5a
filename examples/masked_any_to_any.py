"""Train a tiny masked any-to-any transformer on a build, in the manner of 4M, on a CPU in about two minutes.

    python examples/train_any_to_any.py build/quickstart --picture reconstruction.png

An encoder sees a random part of a sample's tokens, of all streams mixed; a decoder predicts another random part. Grids
are predicted in parallel, text token by token, each stream attending to itself (Mizrahi et al. 2023, section 3). An id
of an FSQ tokenizer is taken apart into its digits (64,000 = 8 x 8 x 8 x 5 x 5 x 5): small tables are summed up for its
embedding, and a small softmax for each digit predicts it. A few hundred samples make no good model of it.
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain, repeat
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import curate
from curate.schema.manifest import Manifest
from curate.shards.commit import read_manifest
from curate.tokenizers import zoo

Batch = dict[str, Tensor]
TOKENS = 256  # most input tokens of a sample; it has half as many targets
FRAMES = {"image": 1, "audio": 32}  # steps shown of a sample: one frame of a video, 0.64 s of 50 Hz audio


class AnyToAny(nn.Module):
    """Input and target tokens of `MaskedView` to the mean loss, in nats a token."""

    def __init__(self, manifest: Manifest, positions: int, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        cards = [manifest.codecs[s.tokenizer] for s in manifest.streams]
        self.radices = [c.levels if c.quantiser == "fsq" else [c.vocabulary] for c in cards]
        self.register_buffer("is_text", torch.tensor([s.modality == "text" for s in manifest.streams]))
        self.tables = nn.ModuleList(nn.ModuleList(nn.Embedding(r, width) for r in digits) for digits in self.radices)
        self.heads = nn.ModuleList(nn.Linear(width, sum(digits)) for digits in self.radices)
        self.stream = nn.Embedding(len(cards), width)
        self.position = nn.ModuleList(nn.Embedding(positions, width) for _ in cards)
        self.unknown = nn.Parameter(torch.zeros(width))
        for table in [t for group in self.tables for t in group] + [self.stream, *self.position]:
            nn.init.normal_(table.weight, std=0.02)
        options = {"activation": "gelu", "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 4 * width, **options), depth, nn.LayerNorm(width), False
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, 4, 4 * width, **options), depth, nn.LayerNorm(width)
        )

    def digits(self, stream: int, ids: Tensor) -> list[Tensor]:
        """Little-endian mixed radix, as the codec cards of FSQ tokenizers say."""
        out = []
        for radix in self.radices[stream]:
            out.append(ids % radix)
            ids = ids // radix
        return out

    def embed(self, ids: Tensor, streams: Tensor) -> Tensor:
        out = self.stream(streams)
        for number, tables in enumerate(self.tables):
            here = streams == number
            each = zip(tables, self.digits(number, ids[here]), strict=True)
            out = out.index_put((here,), sum(table(d) for table, d in each), accumulate=True)
        return out

    def place(self, positions: Tensor, streams: Tensor) -> Tensor:
        every = torch.stack([table(positions) for table in self.position])
        return every.gather(0, streams[None, ..., None].expand(1, -1, -1, every.shape[-1]))[0]

    def forward(self, batch: Batch) -> Tensor:
        """What the decoder knows of each target, `(B, O, width)`."""
        seen = self.embed(batch["input_ids"], batch["input_streams"])
        seen = seen + self.place(batch["input_positions"], batch["input_streams"])
        hidden = ~batch["input_mask"]
        hidden[:, 0] &= ~hidden.all(1)  # a sample without input looks at one empty token
        memory = self.encoder(seen, src_key_padding_mask=hidden)
        streams, at = batch["target_streams"], batch["target_positions"]
        before = functional.pad(self.embed(batch["target_ids"], streams), (0, 0, 1, 0))[:, :-1]
        text = self.is_text[streams]
        goes_on = (text & (at > 0))[..., None]  # text is told the token before; grids are told nothing
        queries = torch.where(goes_on, before, self.unknown + self.stream(streams)) + self.place(at, streams)
        blind = (streams[:, :, None] != streams[:, None, :]) | ~batch["target_mask"][:, None, :]
        blind |= text[:, :, None] & (at[:, None, :] > at[:, :, None])
        blind &= ~torch.eye(blind.shape[1], dtype=torch.bool)
        return self.decoder(queries, memory, blind.repeat_interleave(4, 0), memory_key_padding_mask=hidden)

    def losses(self, batch: Batch) -> tuple[Tensor, dict[int, float]]:
        """Mean over all target tokens, and over those of each stream."""
        known = self(batch)
        total, count, each = torch.zeros(()), 0, {}
        for number, head in enumerate(self.heads):
            here = batch["target_mask"] & (batch["target_streams"] == number)
            if not here.any():
                continue
            parts = head(known[here]).split(self.radices[number], dim=-1)
            digits = self.digits(number, batch["target_ids"][here])
            lost = sum(functional.cross_entropy(p, d, reduction="sum") for p, d in zip(parts, digits, strict=True))
            each[number] = lost.item() / int(here.sum())
            total, count = total + lost, count + int(here.sum())
        return total / max(count, 1), each

    def predict(self, batch: Batch, stream: int) -> Tensor:
        """The likeliest id of each target, all of which are of `stream`."""
        parts = self.heads[stream](self(batch)).split(self.radices[stream], dim=-1)
        ids, base = torch.zeros(parts[0].shape[:-1], dtype=torch.long), 1
        for part, radix in zip(parts, self.radices[stream], strict=True):
            ids, base = ids + base * part.argmax(-1), base * radix
        return ids


def tensors(batch: dict[str, np.ndarray]) -> Batch:
    return {k: torch.from_numpy(v) for k, v in batch.items() if k != "sample_id"}


def picture(
    model: AnyToAny, build: Path, manifest: Manifest, split: str, place: Path, tokenizer_folder: str = ""
) -> bool:
    """Decoded side by side: the original tokens, the half that the model was shown, and what it made of the rest."""
    number = next((i for i, s in enumerate(manifest.streams) if s.modality == "image"), None)
    if number is None:
        return False
    entry = manifest.streams[number]
    for sample in curate.stream(build, split, view=curate.RawView(only=[entry.name]), shuffle=False):
        if sample[entry.name] is not None:
            break
    else:
        return False
    grid = sample[entry.name][:1].astype(np.int64)
    shuffled = np.random.default_rng(0).permutation(grid.size)
    shown, hidden = np.sort(shuffled[: grid.size // 2]), np.sort(shuffled[grid.size // 2 :])
    batch = {}
    for side, at in (("input", shown), ("target", hidden)):
        fields = {"ids": grid.reshape(-1)[at], "positions": at, "streams": np.full(len(at), number)}
        batch |= {f"{side}_{k}": v[None] for k, v in fields.items()} | {f"{side}_mask": np.ones((1, len(at)), bool)}
    with torch.no_grad():
        guess = model.predict(tensors(batch), number)
    filled = grid.copy().reshape(-1)
    filled[hidden] = guess[0].numpy()
    tokenizer = zoo.of_card(manifest.codecs[entry.tokenizer], tokenizer_folder)
    one, other = (tokenizer.decode([g.reshape(grid.shape).astype(entry.dtype)])[0][0] for g in (grid, filled))
    visible = np.isin(np.arange(grid.size), shown).reshape(grid.shape[1:])
    cells = np.kron(visible, np.ones((one.shape[0] // visible.shape[0], one.shape[1] // visible.shape[1]), bool))
    middle = np.where(cells[..., None], one, np.uint8(128))
    Image.fromarray(np.concatenate([one, middle, other], axis=1)).save(place)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--picture", type=Path, default=Path("reconstruction.png"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tokenizer", default="", help="folder of the picture tokenizer, where it is not of the zoo")
    args = parser.parse_args()
    torch.manual_seed(0)
    manifest = read_manifest(args.build)
    frames = {s.name: FRAMES[s.modality] for s in manifest.streams if s.modality in FRAMES}
    view = curate.MaskedView((32, TOKENS), TOKENS // 2, frames=frames)
    positions = max(
        [TOKENS] + [frames[s.name] * prod(n or 1 for n in s.shape) for s in manifest.streams if s.name in frames]
    )
    model = AnyToAny(manifest, positions)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train = curate.stream(args.build, "train", view=view, batch=8)
    print(f"{train.samples} samples to train on, {sum(p.numel() for p in model.parameters()):,} parameters")
    if not train.samples:
        sys.exit("the build has no samples to train on")
    lost, begun = [], perf_counter()
    for _, batch in zip(range(args.steps), chain.from_iterable(repeat(train)), strict=False):  # epoch after epoch
        loss, each = model.losses(tensors(batch))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        lost.append(loss.item())
        if len(lost) % 20 == 0:
            parts = ", ".join(f"{manifest.streams[i].name} {nats:.2f}" for i, nats in each.items())
            print(f"step {len(lost)}, {perf_counter() - begun:.0f} s: {np.mean(lost[-20:]):.3f} nats a token; {parts}")
    first, last = np.mean(lost[:20]), np.mean(lost[-20:])
    print(f"loss: {first:.3f} over the first 20 steps, {last:.3f} over the last 20")
    model.eval()
    held = next((s.name for s in manifest.splits if s.name != "train" and s.samples), None)
    if held:
        with torch.no_grad():
            scores = [float(model.losses(tensors(b))[0]) for b in curate.stream(args.build, held, view=view, batch=8)]
        print(f"loss on {held}: {np.mean(scores):.3f} over {len(scores)} batches")
    if picture(model, args.build, manifest, held or "train", args.picture, args.tokenizer):
        print(f"original, what the model saw, its reconstruction: {args.picture}")
    return 0 if last < first else 1


if __name__ == "__main__":
    sys.exit(main())
