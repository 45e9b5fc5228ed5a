"""Train a tiny masked any-to-any transformer on a build, in the manner of 4M, on a CPU in some minutes.

    python examples/masked_any_to_any.py build/quickstart --out runs/masked

Killed at any time, the same command goes on, with the same losses. The folder then has loss.png; image.png, an image
as its tokens give it and as the model makes it of the caption; caption.txt, the caption and what the model makes of the
image.

An encoder sees a random part of a sample's tokens, of all streams mixed; a decoder predicts another random part. Grids
are predicted in parallel, text token by token, each stream attending to itself (Mizrahi et al. 2023, section 3). An id
of an FSQ tokenizer is taken apart into its digits (64,000 = 8 x 8 x 8 x 5 x 5 x 5): small tables are summed up for its
embedding, and a small softmax for each digit predicts it. A few hundred samples make no good model of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from training_loop import first_with, train

import curate
from curate.schema.manifest import Manifest, StreamEntry
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

    def loss(self, batch: Batch) -> Tensor | None:
        """Mean over all target tokens; None where there are none."""
        known = self(batch)
        total, count = torch.zeros(()), 0
        for number, head in enumerate(self.heads):
            here = batch["target_mask"] & (batch["target_streams"] == number)
            if not here.any():
                continue
            parts = head(known[here]).split(self.radices[number], dim=-1)
            digits = self.digits(number, batch["target_ids"][here])
            lost = sum(functional.cross_entropy(p, d, reduction="sum") for p, d in zip(parts, digits, strict=True))
            total, count = total + lost, count + int(here.sum())
        return total / count if count else None

    @torch.no_grad()
    def scores(self, batch: Batch, stream: int) -> Sequence[Tensor]:
        """Of each digit of the targets, all of which are of `stream`: `(B, O, radix)`."""
        return self.heads[stream](self(batch)).split(self.radices[stream], dim=-1)

    def predict(self, batch: Batch, stream: int) -> Tensor:
        """The likeliest id of each target, all of which are of `stream`."""
        parts = self.scores(batch, stream)
        ids, base = torch.zeros(parts[0].shape[:-1], dtype=torch.long), 1
        for part, radix in zip(parts, self.radices[stream], strict=True):
            ids, base = ids + base * part.argmax(-1), base * radix
        return ids


def tensors(batch: dict[str, Any]) -> Batch:
    """A batch of `MaskedView`; ids as int64, which is what torch computes losses of."""
    arrays = {k: torch.from_numpy(v) for k, v in batch.items() if k != "sample_id"}
    return {k: v if v.dtype == torch.bool else v.long() for k, v in arrays.items()}


def one(inputs: list[tuple[int, Any, Any]], targets: list[tuple[int, Any, Any]]) -> Batch:
    """A batch of one sample, from (stream, positions, ids) of what is given and of what is asked for."""
    batch = {}
    for side, parts in (("input", inputs), ("target", targets)):
        batch[f"{side}_streams"] = np.concatenate([np.full(len(ids), stream) for stream, _, ids in parts])
        batch[f"{side}_positions"] = np.concatenate([at for _, at, _ in parts]).astype(np.int64)
        batch[f"{side}_ids"] = np.concatenate([ids for _, _, ids in parts]).astype(np.int64)
        batch[f"{side}_mask"] = np.ones(len(batch[f"{side}_ids"]), bool)
    return {name: torch.from_numpy(value)[None] for name, value in batch.items()}


def image_of(model: AnyToAny, caption: Any, text: int, image: int, size: int, rounds: int = 8) -> Any:
    """Ids `(size,)` of an image from those of a caption: places drawn at random, an eighth at a time (MaskGIT)."""
    given = [(text, np.arange(len(caption)), caption)]
    ids = np.zeros(size, np.int64)
    for places in np.array_split(np.random.default_rng(0).permutation(size), rounds):
        ids[places] = model.predict(one(given, [(image, places, np.zeros(len(places)))]), image)[0].numpy()
        given.append((image, places, ids[places]))
    return ids


def caption_of(model: AnyToAny, grid: Any, text: int, image: int, special: dict[str, int], longest: int = 32) -> Any:
    """Ids of a caption from those of an image, one after the other: what stands where `[S_0]` hides all of a text."""
    places = np.sort(np.random.default_rng(0).permutation(grid.size)[:TOKENS])
    given = [(image, places, grid.reshape(-1)[places]), (text, np.array([0]), np.array([special["[S_0]"]]))]
    said, ends = [special["[S_0]"]], (special["[EOS]"], special["[S_1]"])
    while len(said) <= longest and said[-1] not in ends:
        target = (text, np.arange(len(said) + 1), np.array([*said, 0]))
        scores = model.scores(one(given, [target]), text)[0][0, -1]
        scores[[i for i in special.values() if i not in ends or len(said) == 1]] = -torch.inf  # it says something
        said.append(int(scores.argmax()))
    return np.array([i for i in said if i not in special.values()])


def show(
    model: AnyToAny, build: Path, manifest: Manifest, split: str, image: StreamEntry, out: Path, tokenizer: str
) -> None:
    """Make one stream of another, both ways, and decode them."""
    model.eval()
    words = next((s for s in manifest.streams if s.modality == "text"), None)
    sample = first_with(build, split, [image.name, words.name]) if words else None
    if words is None or sample is None:
        print("no sample has both an image and a caption")
        return
    caption, grid = sample[words.name], sample[image.name][:1]
    text, picture = manifest.streams.index(words), manifest.streams.index(image)
    reader = zoo.of_card(manifest.codecs[words.tokenizer])
    painter = zoo.of_card(manifest.codecs[image.tokenizer], tokenizer)
    special = manifest.codecs[words.tokenizer].special_tokens
    made = image_of(model, np.append(caption, special["[EOS]"]), text, picture, grid.size)
    images = [painter.decode([ids.reshape(grid.shape).astype(image.dtype)])[0][0] for ids in (grid, made)]
    Image.fromarray(np.concatenate(images, axis=1)).save(out / "image.png")
    said = caption_of(model, grid, text, picture, special).astype(words.dtype)
    lines = [f"{what}: {reader.decode([ids])[0]}" for what, ids in (("caption", caption), ("model", said))]
    (out / "caption.txt").write_text("\n".join(lines) + "\n")
    print(*lines, f"original image, and the model's of its caption: {out / 'image.png'}", sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/masked"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--image", help="stream of images; the first one where absent")
    parser.add_argument("--tokenizer", default="", help="that of the images, where it is not of the zoo")
    args = parser.parse_args()
    torch.manual_seed(0)
    manifest = read_manifest(args.build)
    image = next(s for s in manifest.streams if s.name == args.image or (not args.image and s.modality == "image"))
    frames = {s.name: FRAMES[s.modality] for s in manifest.streams if s.modality in FRAMES}
    view = curate.MaskedView((32, TOKENS), TOKENS // 2, frames=frames)
    positions = max(
        [TOKENS] + [frames[s.name] * prod(n or 1 for n in s.shape) for s in manifest.streams if s.name in frames]
    )
    model = AnyToAny(manifest, positions)
    tokens = curate.stream(args.build, "train", view=view, batch=8)
    print(f"{tokens.samples} samples to train on, {sum(p.numel() for p in model.parameters()):,} parameters")
    losses = train(model, tokens, lambda batch: model.loss(tensors(batch)), args.steps, args.out, args.every)
    print(
        f"loss: {np.nanmean(losses[:20]):.3f} over the first 20 steps, {np.nanmean(losses[-20:]):.3f} over the last 20"
    )
    held = next((s.name for s in manifest.splits if s.name != "train" and s.samples), "train")
    show(model, args.build, manifest, held, image, args.out, args.tokenizer)


if __name__ == "__main__":
    main()
