"""`curate tokenizers`: what there is, what it is, how good it is on your media, and how to train it."""

from __future__ import annotations

import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli import make_tokenizer
from curate.cli.options import Json, named_values, refuse_tokenizer
from curate.cli.output import print_table
from curate.schema.errors import CurateError

if TYPE_CHECKING:  # --help needs none of what it imports
    from curate.schema.codec import CodecCard

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Tokenizers: what there is, how good it is on your media, and how to bring, make or train another.

```sh
curate tokenizers list
curate tokenizers eval image-fsq-64k --media ~/Pictures --json
```""",
)

app.command("label")(make_tokenizer.label)
app.command("features")(make_tokenizer.features)

Name = Annotated[
    str,
    typer.Argument(help="A name of `curate tokenizers list`, a folder with a card.json, or package.module:Class."),
]


class Modality(StrEnum):
    """What a tokenizer of the zoo is trained for."""

    image = "image"
    video = "video"
    audio = "audio"
    text = "text"


@app.command("list")
def list_tokenizers(as_json: Json = False) -> None:
    """What tokenizers ship with curate.

    **Examples**

    ```sh
    curate tokenizers list
    curate tokenizers list --json
    ```
    """
    from curate.tokenizers import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if as_json:
        rows = [
            {
                "name": c.name,
                "modality": c.modality,
                "default": c.name in zoo.DEFAULTS.values(),
                "vocabulary": c.vocabulary,
            }
            for c in cards
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    print_table(
        ("name", "modality", "quantiser", "vocabulary", "ids", "measured"),
        [(c.name, c.modality, c.quantiser, str(c.vocabulary), _ids(c), _quality(c)) for c in cards],
    )


def _ids(card: CodecCard) -> str:
    if card.grid is not None:
        one = "an image" if card.modality == "image" else "an item"
        step = f"1 + {card.temporal_stride} k frames" if card.temporal_stride else one
        return f"{' x '.join(map(str, card.grid))} {step}"
    return f"{card.rate_hz:g} x {card.ids_per_frame} a second" if card.rate_hz else "as long as the text"


def _quality(card: CodecCard) -> str:
    """The range of the figure over the media that are on the card; computed probes are no media."""
    media = [q for q in card.quality if not q.media.endswith("computed")]
    for field, digits, unit in (("psnr_db", 1, "dB PSNR"), ("si_sdr_db", 1, "dB SI-SDR"), ("iou", 3, "IoU")):
        if found := [value for q in media if (value := getattr(q, field)) is not None]:
            ends = dict.fromkeys(f"{value:.{digits}f}" for value in (min(found), max(found)))
            return f"{' to '.join(ends)} {unit}"
    if said := [q.lossless for q in media if q.lossless is not None]:
        return "lossless" if all(said) else "not lossless"
    return "not measured"


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """The codec card of a tokenizer: quantiser, order of bits, vocabulary, grid, input, digest, measured quality.

    **Examples**

    ```sh
    curate tokenizers show image-fsq-64k
    curate tokenizers show tokenizers/llamagen-16 --json
    ```
    """
    from curate.tokenizers import zoo

    typer.echo(zoo.card(name).model_dump_json(indent=None if as_json else 1))


@app.command("eval")
def evaluate(
    name: Name,
    media: Annotated[Path, typer.Option(help="Folder of images, videos, audio or .txt files.")],
    as_json: Json = False,
    fps: Annotated[
        float | None, typer.Option(min=0.01, help="of videos: frames a second. Default: as in a recipe.")
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="of videos: most frames of each. Default: as in a recipe.")
    ] = None,
    write_card: Annotated[
        str | None,
        typer.Option(
            metavar="MEDIA",
            help="Put the figure on the card of NAME, a folder; the media are called MEDIA. Builds carry the card: "
            "those under way make these tokens again.",
        ),
    ] = None,
) -> None:
    """Measure the round trip of a tokenizer on your media: PSNR and SSIM, or SI-SDR; ids an item; codebook usage.

    Of a video its beginning is measured, as far as a recipe's stream would take it: `fps` and `max_frames` are printed.

    **Examples**

    ```sh
    curate tokenizers eval image-fsq-64k --media ~/Pictures
    curate tokenizers eval audio-rvq-4kbps --media ~/Music --json
    curate tokenizers eval tokenizers/llamagen-16 --media kodak/ \\
        --write-card "Kodak's 24 images"
    ```
    """
    from curate.media.requests import Frames
    from curate.tokenizers import zoo
    from curate.tokenizers.evaluate import evaluate_folder
    from curate.tokenizers.folders import write_figure
    from curate.tokenizers.views import frames_of, view_of

    if not media.is_dir():
        raise CurateError(f"{media} is not a folder")
    if write_card is not None and not (Path(name) / "card.json").is_file():
        raise CurateError(f"{name} is no folder of a tokenizer, whose card could be written", "give the folder's path")
    tokenizer = zoo.load(name)
    measured = evaluate_folder(tokenizer, media, write_card or "given media", fps=fps, max_frames=max_frames)
    if write_card is not None:
        write_figure(Path(name), measured.quality)
    for file, reason in measured.skipped:
        typer.echo(f"skipped {file}: {reason}", err=True)
    card = tokenizer.card
    result: dict[str, object] = {"name": card.name, "vocabulary": card.vocabulary}
    result |= measured.quality.model_dump(exclude_none=True, exclude={"media"})
    result["skipped"] = len(measured.skipped)
    view = frames_of(card, fps, max_frames) if card.needs else view_of(card, fps, max_frames)
    if isinstance(view, Frames) and card.modality in ("image", "video"):
        result |= {"fps": view.fps, "max_frames": view.max_frames}
    typer.echo(json.dumps(result, indent=None if as_json else 1))


@app.command("import")
def import_weights(
    architecture: Annotated[str, typer.Argument(help="A name of `curate tokenizers architectures`.")],
    source: Annotated[str, typer.Argument(help="A file or folder, or a hub id as owner/name.")],
    out: Annotated[Path, typer.Option(help="Folder to make: weights and codec card.")],
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, an option of this architecture; may be given again.")
    ] = None,
) -> None:
    """Make a tokenizer's folder of published weights, with a card: grid, vocabulary, whether ids depend on the batch.

    Weights are read, and pickled code in them is refused. Cosmos is published as TorchScript: that is a program, it is
    run, in a process of its own and for half an hour at most, and so is only for archives that you trust. Figures of
    quality come from `curate tokenizers eval --write-card`.

    **Examples**

    ```sh
    curate tokenizers import llamagen-vq vq_ds16_c2i.pt \\
        --out tokenizers/llamagen-16
    curate tokenizers import lyra model_coeffs/ --out tokenizers/lyra-6kbps \\
        --option kbps=6
    ```
    """
    from curate.tokenizers.importer import import_checkpoint

    refuse_tokenizer(out)
    card = import_checkpoint(architecture, source, out, named_values(option or [], "--option"))
    typer.echo(f"{out}: {card.name}, {_ids(card)}, vocabulary {card.vocabulary}; use it as `tokenizer: {out}`")


@app.command()
def architectures() -> None:
    """What `import` knows: architectures with a line about each, and their options.

    **Examples**

    ```sh
    curate tokenizers architectures
    ```
    """
    from curate.tokenizers.importer import importable, options_of
    from curate.tokenizers.zoo import class_of

    rows = []
    for name in importable():
        said = (class_of(name).__doc__ or "").strip().splitlines()
        rows.append((name, said[0] if said else "", ", ".join(options_of(name))))
    print_table(("architecture", "what", "options"), rows)


@app.command()
def train(
    modality: Annotated[Modality, typer.Argument(help="image, video, audio or text.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, weights and card; the same folder goes on.")],
    config: Annotated[
        Path | None, typer.Option(help="A train.yaml. Default: the one that made the embedded tokenizer.")
    ] = None,
    media: Annotated[
        list[Path] | None,
        typer.Option(
            help="image, video: a file or folder to train on; may be repeated. Default: what the config names."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device: cpu, cuda.")] = "cpu",
    held_out: Annotated[
        Path | None,
        typer.Option(help="image, video: folder of media that are not trained on; the card is measured on them."),
    ] = None,
    debian: Annotated[
        Path, typer.Option(help="Where Debian packages that the config names are unpacked (`dpkg-deb -x`).")
    ] = Path("/"),
) -> None:
    """Train a tokenizer: weights and a codec card with measured figures. A run that was interrupted goes on.

    **Examples**

    ```sh
    curate tokenizers train text --out build/my-bpe
    curate tokenizers train image --media photos/ --out build/my-fsq \\
        --held-out kept-out/ --device cuda
    ```
    """
    from curate.schema.package_data import data_folder
    from curate.tokenizers import zoo
    from curate.training import Session, read_config
    from curate.training import train as train_tokenizer

    default = zoo.DEFAULTS[modality.value]
    path = config if config is not None else data_folder("tokenizers") / default / "train.yaml"
    if not path.is_file():
        raise CurateError(f"no config {path}")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("curate.training").setLevel(logging.INFO)
    session = Session(media=tuple(media or ()), held_out=held_out, device=device, debian=debian)
    train_tokenizer(read_config(path, zoo.card(default).architecture), out, session)
    typer.echo(str(out))
