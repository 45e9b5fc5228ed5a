"""`curate tokenizers label` and `features`: folders of tokenizers that are a model and a way to write what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from curate.cli.options import options_of, refuse_tokenizer
from curate.schema.errors import CurateError

Options = Annotated[
    list[str] | None, typer.Option("--option", help="NAME=VALUE, of the model; VALUE as in YAML; may be given again.")
]
Out = Annotated[Path, typer.Option(help="Folder to make; a recipe names it.")]
StreamName = Annotated[str, typer.Option(help="Name of the stream, e.g. tok_canny_edge@256.")]


def label(
    signal: Annotated[
        str, typer.Argument(help="A signal of `curate signals` that gives labels: edges, palette, boxes, ...")
    ],
    out: Out,
    stream: StreamName,
    tokenizer: Annotated[
        str | None, typer.Option(help="An image tokenizer for maps (edges, classes, depth); words for lists if absent.")
    ] = None,
    parts: Annotated[
        str | None, typer.Option(help="A tokenizer of masks (SAM's instances) or of body poses (SMPL).")
    ] = None,
    option: Options = None,
) -> None:
    """Make a stream of labels: a signal, and the tokenizer that writes what it says.

    A recipe's stream names the folder. The signal is computed as others are: once, for its fields can be rules too.

    **Examples**

    ```sh
    curate tokenizers label edges --tokenizer image-fsq-64k \\
        --stream tok_canny_edge@256 --out tokenizers/edges
    curate tokenizers label faces --option weights=yunet.onnx \\
        --option called=person \\
        --stream det --out tokenizers/faces
    curate tokenizers label masks --option source=facebook/sam-vit-huge \\
        --parts mask-vq-1k \\
        --stream sam_instance --out tokenizers/sam
    ```
    """
    from curate.tokenizers.labels import make_labels

    refuse_tokenizer(out)
    made = make_labels(out, signal, options_of(option or []), stream, tokenizer=tokenizer, parts=parts)
    typer.echo(f"{out}: {made.name}, vocabulary {made.vocabulary}; use it as `tokenizer: {out}`")


def features(
    library: Annotated[str, typer.Argument(help="timm, open_clip, efficientnet-lite0, or package.module:Class.")],
    out: Out,
    stream: StreamName,
    option: Options = None,
    codes: Annotated[
        int | None, typer.Option(help="Quantise to so many codes, fitted on --media; float16 features if absent.")
    ] = None,
    groups: Annotated[int, typer.Option(help="Groups of product quantisation, for global features: 16 in 4M-21.")] = 1,
    media: Annotated[Path | None, typer.Option(help="Folder of images to fit codes on.")] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Folder of other images, on which the card is measured.")
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="With --codes and kind=dense: also make OUT-topK, the K nearest codes of each position, and "
            "OUT-topK-odds, their probabilities (Ovis)."
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the softmax over negative squared distances.")] = 1.0,
) -> None:
    """Make a stream of an encoder's features: as they are (float16), or as ids of a codebook that is fitted here.

    **Examples**

    ```sh
    curate tokenizers features timm \\
        --option model=vit_base_patch14_reg4_dinov2.lvd142m \\
        --option kind=dense --stream emb_dinov2@518 --out tokenizers/dinov2
    curate tokenizers features efficientnet-lite0 --option kind=global \\
        --codes 1024 --groups 16 --media photos/ \\
        --held-out others/ --stream tok_efficientnet_global \\
        --out tokenizers/effnet
    curate tokenizers features efficientnet-lite0 --option kind=dense \\
        --codes 1024 --media photos/ \\
        --held-out others/ --stream tok_effnet --top-k 8 --out tokenizers/effnet
    ```
    """
    from curate.tokenizers.codecs.continuous_features import ContinuousFeatures
    from curate.tokenizers.codecs.topk import write_topk

    refuse_tokenizer(out)
    if top_k is not None and codes is None:
        raise CurateError("--top-k needs codes to choose from", "give --codes, --media and --held-out")
    encoder = {"library": library, **options_of(option or [])}
    if codes is None:
        made = ContinuousFeatures.make(encoder, out, stream)
    else:
        if media is None or held_out is None:
            raise CurateError("codes are fitted on images and measured on others", "give --media and --held-out")
        from curate.training.features import train_features

        made = train_features(
            encoder,
            _images(media, encoder),
            _images(held_out, encoder),
            out,
            stream,
            codes,
            groups,
            trained_on=f"images of the folder {media.name}",
            held_out_name=f"images of the folder {held_out.name}",
        )
    typer.echo(f"{out}: {made.name}, {made.dtype}, grid {made.grid}; use it as `tokenizer: {out}`")
    if top_k is not None:
        ids, odds = write_topk(out, top_k, temperature)
        typer.echo(f"{ids}: the {top_k} nearest codes of each position; {odds}: their probabilities, two streams")


def _images(folder: Path, encoder: dict[str, Any]) -> Any:
    import numpy as np

    from curate.models.encoders import encoder_of
    from curate.sources.media_types import IMAGE
    from curate.tokenizers.measures.files import read_files, square

    size = encoder_of(encoder).size
    found = read_files(folder, IMAGE, lambda path: square(path, size))
    return np.stack([image for _, image in found])
