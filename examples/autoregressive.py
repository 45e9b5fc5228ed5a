"""Train a tiny autoregressive transformer on captions and images of a build, both ways, on a CPU in some minutes.

    python examples/autoregressive.py build/quickstart --out runs/autoregressive

One flat vocabulary and one sequence a sample, in the manner of VideoPoet: `SequenceView` draws for each sample which of
two tasks it is to teach, image of caption or caption of image. Killed at any time, the same command goes on, with the
same losses. The folder then has loss.png; image.png, an image as its tokens give it and as the model makes it of the
caption; caption.txt, the caption and what the model makes of the image.

An id of an FSQ tokenizer is taken apart into its digits (64,000 = 8 x 8 x 8 x 5 x 5 x 5), so that no table has a row
for each of them: a softmax over all other ids has one more class, "an id of this stream", and small ones predict its
digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from training_loop import first_with, train

import curate
from curate.schema.manifest import Manifest
from curate.shards.commit import read_manifest
from curate.shards.sequence import BOS, PAD, FlatVocabulary, Task
from curate.tokenizers import zoo

Cache = list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """Causal attention and a perceptron, each after a norm (pre-norm)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`(B, L, width)` to the same, and the keys and values until now; with `past`, L is 1."""
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.between(x)), (k, v)


class Autoregressive(nn.Module):
    """Flat ids to what is known of the next one.

    Attributes:
        words: where the streams lie in the flat vocabulary.
        digits: first id and radices of each FSQ stream.
    """

    def __init__(self, manifest: Manifest, positions: int, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.words = FlatVocabulary.of(manifest, tasks=2)
        cards = {s.name: manifest.codecs[s.tokenizer] for s in manifest.streams if s.vocabulary}
        fsq = [name for name, card in cards.items() if card.quantiser == "fsq"]
        self.digits = [(self.words.offset[name], list(cards[name].levels or [])) for name in fsq]
        kind, classes = torch.zeros(self.words.size, dtype=torch.long), torch.zeros(self.words.size, dtype=torch.long)
        for number, name in enumerate(fsq, start=1):
            first = self.words.offset[name]
            kind[first : first + cards[name].vocabulary] = number
        plain = int((kind == 0).sum())
        classes[kind == 0] = torch.arange(plain)
        classes[kind > 0] = plain + kind[kind > 0] - 1
        self.register_buffer("kind", kind)
        self.register_buffer("classes", classes)
        self.register_buffer("plain", torch.nonzero(kind == 0).flatten())
        self.table = nn.Embedding(plain + len(fsq), width)
        self.tables = nn.ModuleList(
            nn.ModuleList(nn.Embedding(r, width) for r in radices) for _, radices in self.digits
        )
        self.position = nn.Embedding(positions, width)
        for table in [self.table, self.position, *(t for group in self.tables for t in group)]:
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, plain + len(fsq))
        self.heads = nn.ModuleList(nn.Linear(width, sum(radices)) for _, radices in self.digits)

    def apart(self, number: int, ids: Tensor) -> list[Tensor]:
        """Digits of flat ids of an FSQ stream, little-endian, as codec cards say."""
        first, radices = self.digits[number]
        rest, out = ids - first, []
        for radix in radices:
            out.append(rest % radix)
            rest = rest // radix
        return out

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """`(B, L)` to `(B, L, width)`, and what the next call with one more token may be told of them."""
        x = self.table(self.classes[tokens])
        for number, tables in enumerate(self.tables):
            here = self.kind[tokens] == number + 1
            each = zip(tables, self.apart(number, tokens[here]), strict=True)
            x = x.index_put((here,), sum(table(d) for table, d in each), accumulate=True)
        start = cache[0][0].shape[2] if cache else 0
        x = x + self.position(torch.arange(start, start + tokens.shape[1]))
        after: Cache = []
        for i, block in enumerate(self.blocks):
            x, seen = block(x, cache[i] if cache else None)
            after.append(seen)
        return self.norm(x), after

    def loss(self, tokens: Tensor, counts: Tensor) -> Tensor | None:
        """Mean over the tokens `(B, L)` that count, in nats; None where none does."""
        wanted = counts[:, 1:]
        if not wanted.any():
            return None
        known, target = self(tokens[:, :-1])[0][wanted], tokens[:, 1:][wanted]
        total = functional.cross_entropy(self.head(known), self.classes[target], reduction="sum")
        for number, (head, (_, radices)) in enumerate(zip(self.heads, self.digits, strict=True)):
            here = self.kind[target] == number + 1
            parts = zip(head(known[here]).split(radices, -1), self.apart(number, target[here]), strict=True)
            total = total + sum(functional.cross_entropy(p, d, reduction="sum") for p, d in parts)
        return total / len(target)

    @torch.no_grad()
    def go_on(self, prompt: Sequence[int], stream: str, most: int, may_end: bool = False) -> list[int]:
        """So many ids of a stream after a prompt, drawn one by one; fewer where it may end and its end marker comes."""
        first, end = self.words.offset[stream], self.words.end[stream]
        stop = first + self.words.levels[stream] * self.words.vocabulary[stream]
        chance = torch.Generator().manual_seed(0)
        out, (hidden, cache) = list[int](), self(torch.tensor([prompt]))
        number = int(self.kind[first]) - 1
        while len(out) < most:
            if number >= 0:
                parts = self.heads[number](hidden[0, -1]).split(self.digits[number][1])
                place, radix, token = first, 1, 0
                for part in parts:
                    token += radix * int(torch.multinomial(part.softmax(-1), 1, generator=chance))
                    radix *= len(part)
                token += place
            else:
                scores = self.head(hidden[0, -1])[: len(self.plain)]
                allowed = ((self.plain >= first) & (self.plain < stop)) | (self.plain == (end if may_end else -1))
                scores = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
                token = int(self.plain[torch.multinomial(scores, 1, generator=chance)])
            if token == end:
                break
            out.append(token)
            hidden, cache = self(torch.tensor([[token]]), cache)
        return out


def padded(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Sequences side by side: tokens and what counts of them, `(B, L)`."""
    lengths = np.diff(batch["offsets"])
    here = np.arange(lengths.max()) < lengths[:, None]
    tokens, counts = np.full(here.shape, PAD), np.zeros(here.shape, bool)
    tokens[here], counts[here] = batch["tokens"], batch["loss"]
    return torch.from_numpy(tokens), torch.from_numpy(counts)


def show(
    model: Autoregressive,
    build: Path,
    manifest: Manifest,
    split: str,
    names: tuple[str, str],
    out: Path,
    tokenizer: str,
) -> None:
    """Make one stream of the other, both ways, and decode them."""
    model.eval()
    image, text = names
    sample = first_with(build, split, names)
    if sample is None:
        print("no sample has both an image and a caption")
        return
    words, of = model.words, {s.name: s for s in manifest.streams}
    caption, grid = sample[text], sample[image][:1]
    tokens = {name: words.flatten(name, ids).tolist() for name, ids in ((text, caption), (image, grid))}
    tasks = {text: words.size - 2, image: words.size - 1}
    prompts = {name: [BOS, tasks[name], words.begin[name], *tokens[name], words.end[name]] for name in tokens}
    made = model.go_on([*prompts[text], words.begin[image]], image, grid.size)
    said = model.go_on([*prompts[image], words.begin[text]], text, 32, may_end=True)
    cards = {name: manifest.codecs[of[name].tokenizer] for name in names}
    painter, reader = zoo.of_card(cards[image], tokenizer), zoo.of_card(cards[text])
    ids = words.restore(image, made).reshape(grid.shape).astype(of[image].dtype)
    images = [painter.decode([one])[0][0] for one in (grid, ids)]
    Image.fromarray(np.concatenate(images, axis=1)).save(out / "image.png")
    special = cards[text].special_tokens.values()
    ids = np.array([i for i in words.restore(text, said) if i not in special], of[text].dtype)
    lines = [f"{what}: {reader.decode([one])[0]}" for what, one in (("caption", caption), ("model", ids))]
    (out / "caption.txt").write_text("\n".join(lines) + "\n")
    print(*lines, f"original image, and the model's of its caption: {out / 'image.png'}", sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/autoregressive"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--image", help="stream of images; the first one where absent")
    parser.add_argument("--tokenizer", default="", help="that of the images, where it is not of the zoo")
    args = parser.parse_args()
    torch.manual_seed(0)
    manifest = read_manifest(args.build)
    image = args.image or next(s.name for s in manifest.streams if s.modality == "image")
    text = next(s.name for s in manifest.streams if s.modality == "text")
    view = curate.SequenceView(frames={image: 1}, tasks=[Task([text], [image]), Task([image], [text])])
    model = Autoregressive(manifest, max(int(view.lengths(args.build, manifest).max()), 2048))
    tokens = curate.stream(args.build, "train", view=view, batch=4)
    print(f"{tokens.samples} samples to train on, {sum(p.numel() for p in model.parameters()):,} parameters")
    losses = train(model, tokens, lambda batch: model.loss(*padded(batch)), args.steps, args.out, args.every)
    print(
        f"loss: {np.nanmean(losses[:20]):.3f} over the first 20 steps, {np.nanmean(losses[-20:]):.3f} over the last 20"
    )
    held = next((s.name for s in manifest.splits if s.name != "train" and s.samples), "train")
    show(model, args.build, manifest, held, (image, text), args.out, args.tokenizer)


if __name__ == "__main__":
    main()
