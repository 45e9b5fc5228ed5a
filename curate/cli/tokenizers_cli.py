"""`curate tokenizers`: what there is, what it is, how good it is on your media, and how to train it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Tokenizers: list, show, eval, train.

    curate tokenizers list

    curate tokenizers eval image-fsq-64k --media ~/Pictures --json""",
)

Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")]
Name = Annotated[str, typer.Argument(help="A name of `curate tokenizers list`, or a folder with a card.json.")]

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aac")


class Modality(StrEnum):
    """What a tokenizer of the zoo is trained for."""

    image = "image"
    audio = "audio"
    text = "text"


DEFAULTS = {Modality.image: "image-fsq-64k", Modality.audio: "audio-rvq-4kbps", Modality.text: "text-bpe-8k"}
"""The embedded default of each modality."""


@app.command("list")
def list_tokenizers(as_json: Json = False) -> None:
    """What tokenizers ship with curate."""
    from curate.tokenizers import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if as_json:
        rows = [
            {
                "name": c.name,
                "modality": c.modality,
                "default": c.name in DEFAULTS.values(),
                "vocabulary": c.vocabulary,
            }
            for c in cards
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "modality", "quantiser", "vocabulary", "ids", "measured"):
        table.add_column(heading, overflow="fold")
    for c in cards:
        table.add_row(c.name, c.modality, c.quantiser, str(c.vocabulary), _ids(c), _quality(c))
    Console(highlight=False, markup=False).print(table)


def _ids(card: CodecCard) -> str:
    if card.grid is not None:
        return f"{card.grid[0]} x {card.grid[1]} a picture"
    return f"{card.rate_hz:g} x {card.ids_per_frame} a second" if card.rate_hz else "as long as the text"


def _quality(card: CodecCard) -> str:
    for q in card.quality:
        if q.psnr_db is not None:
            return f"{q.psnr_db:.1f} dB PSNR"
        if q.si_sdr_db is not None:
            return f"{q.si_sdr_db:.1f} dB SI-SDR"
        if q.lossless:
            return "lossless"
    return "not measured"


@app.command()
def show(name: Name) -> None:
    """The codec card of a tokenizer: quantiser, order of bits, vocabulary, grid, input, digest, measured quality."""
    from curate.tokenizers import zoo

    typer.echo(zoo.card(name).model_dump_json(indent=1, exclude_defaults=False))


@app.command("eval")
def evaluate(
    name: Name,
    media: Annotated[Path, typer.Option(help="Folder of pictures, videos, sounds or .txt files.")],
    as_json: Json = False,
) -> None:
    """Measure the round trip of a tokenizer on your media: PSNR and SSIM, or SI-SDR; ids an item; codebook usage.

    **Examples**

        curate tokenizers eval image-fsq-64k --media ~/Pictures

        curate tokenizers eval audio-rvq-4kbps --media ~/Music --json
    """
    from curate.tokenizers import zoo

    if not media.is_dir():
        raise CurateError(f"{media} is not a folder")
    card = zoo.card(name)
    result: dict[str, object] = {"name": card.name, "vocabulary": card.vocabulary}
    if card.modality == "image":
        result |= _eval_images(name, _files(media, PICTURES))
    elif card.modality == "audio":
        result |= _eval_audio(name, card, _files(media, SOUNDS))
    else:
        result |= _eval_text(name, _files(media, (".txt",)))
    typer.echo(json.dumps(result, indent=None if as_json else 1))


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not found:
        raise CurateError(f"no media for this tokenizer under {folder}", f"it takes {', '.join(suffixes)}")
    return found


def _eval_images(name: str, paths: list[Path]) -> dict[str, object]:
    from curate.tokenizers import zoo
    from curate.tokenizers.image.evaluate import evaluate_images

    tokenizer = zoo.load(name)
    quality = evaluate_images(tokenizer, paths, "given pictures")
    grid = tokenizer.card.grid or (0, 0)
    return {
        "items": quality.items,
        "ids_per_item": grid[0] * grid[1],
        "psnr_db": quality.psnr_db,
        "ssim": quality.ssim,
        "codebook_usage": quality.codebook_usage,
    }


def _eval_audio(name: str, card: CodecCard, paths: list[Path]) -> dict[str, object]:
    from curate.media.decode import decode
    from curate.media.views import Audio
    from curate.tokenizers import zoo
    from curate.tokenizers.audio.evaluate import evaluate_audio

    view = Audio(card.sample_rate or 16000)
    items: list[NDArray[np.float32]] = []
    for path in paths:
        sound = decode(path.read_bytes(), "audio", [view], name=path.name).views[view]
        items.append(sound.astype(np.float32) / np.float32(32768))
    tokenizer = zoo.load(name)
    quality = evaluate_audio(tokenizer, items, "given sounds")
    ids = sum(a.size for a in tokenizer.encode(items))
    return {
        "items": quality.items,
        "ids_per_item": ids / quality.items,
        "si_sdr_db": quality.si_sdr_db,
        "codebook_usage": quality.codebook_usage,
    }


def _eval_text(name: str, paths: list[Path]) -> dict[str, object]:
    from curate.tokenizers import zoo

    tokenizer = zoo.load(name)
    texts = [p.read_text(encoding="utf-8") for p in paths]
    ids = tokenizer.encode(texts)
    used = np.unique(np.concatenate(ids)).size if ids else 0
    return {
        "items": len(texts),
        "ids_per_item": sum(a.size for a in ids) / len(texts),
        "lossless": tokenizer.decode(ids) == texts,
        "codebook_usage": used / tokenizer.card.vocabulary,
    }


@app.command()
def train(
    modality: Annotated[Modality, typer.Argument(help="image, audio or text.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, weights and card; the same folder goes on.")],
    config: Annotated[
        Path | None, typer.Option(help="A train.yaml. Default: the one that made the embedded tokenizer.")
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device: cpu, cuda.")] = "cpu",
    held_out: Annotated[
        Path | None,
        typer.Option(help="image: folder of pictures that are not trained on; the card is measured on them."),
    ] = None,
    debian: Annotated[
        Path, typer.Option(help="Where Debian packages that the config names are unpacked (`dpkg-deb -x`).")
    ] = Path("/"),
) -> None:
    """Train a tokenizer: weights and a codec card with measured figures. A run that was interrupted goes on.

    **Examples**

        curate tokenizers train text --out build/my-bpe

        curate tokenizers train image --out build/my-fsq --held-out photos/ --device cuda
    """
    from curate.schema.package_data import data_folder

    path = config if config is not None else data_folder("tokenizers") / DEFAULTS[modality] / "train.yaml"
    if not path.is_file():
        raise CurateError(f"no config {path}")
    if modality is not Modality.image and path.name != "train.yaml":
        raise CurateError(
            f"{path}: for {modality} the config must be called train.yaml", "its folder names the tokenizer"
        )
    out.mkdir(parents=True, exist_ok=True)
    if modality is Modality.image:
        from curate.tokenizers.image.card import write_image_card
        from curate.tokenizers.image.train import ImageTrainConfig, train_image

        measured_on = _files(held_out, PICTURES) if held_out is not None else []
        share = debian / "usr" / "share"
        weights = train_image(ImageTrainConfig.read(path), [], out, device=device, share=share)
        if not measured_on:
            raise CurateError(
                f"trained: {weights}; without held-out pictures there is no figure to write on a card",
                "give the same command with --held-out DIR; nothing is trained again",
            )
        write_image_card(weights, out, measured_on)
    elif modality is Modality.audio:
        from curate.tokenizers.audio.train import train_audio

        train_audio(path.parent, out, debian_root=debian, device=device)
    else:
        from curate.tokenizers.text.train import train_text

        train_text(path.parent, out, debian_root=debian)
    typer.echo(str(out))
