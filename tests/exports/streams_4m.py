"""The streams of 4M-21: one row for each.

Source: `fourm/data/modality_info.py` of apple/ml-4m at cda590f, its tokenizer configurations, and arXiv 2406.09406
appendix D. The 19 streams at 224 pixels are those of its published mixture `mix_mod21_all2allmix_rgb2all_capT5bias`;
those at 448 are of its super-resolution models. `docs/streams-4m.md` is made of this table.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from curate.schema.codec import smallest_unsigned

Kind = Literal["pixels", "grid", "vector", "words", "text", "features"]

WORDPIECES = 30_000
"""4M's text vocabulary."""


@dataclass(frozen=True)
class StreamKind:
    """A stream.

    Attributes:
        name: `kind@res` where the media have a size, else `kind`.
        kind: `pixels`: the image itself; `grid`: an id for each patch; `vector`: ids without places; `words`: a
            serialisation in words; `text`: free text; `features`: continuous vectors.
        source: what it is made from; models are those that 4M used.
        tokenizer: what makes the ids, as 4M trained it.
        vocabulary: ids are 0 <= id < vocabulary; 0 where there are none.
        tokens: of a sample: the count, or the most that 4M reads where `most`.
        grid: ids down and across, of a grid.
        features: length of a position's vector, of features.
        serialisation: how a sample is written.
        precision: what a round trip keeps.
        module: of the writer and the parser.
    """

    name: str
    kind: Kind
    source: str
    tokenizer: str
    vocabulary: int
    tokens: int
    most: bool = False
    grid: tuple[int, int] | None = None
    features: int = 0
    serialisation: str = "a row of ids for each crop, row-major"
    precision: str = ""
    module: str = ""

    @property
    def dtype(self) -> str:
        """Of the stored values: the smallest unsigned type that holds the vocabulary (4M's files: int16)."""
        if self.kind == "pixels":
            return "uint8"
        return "float16" if self.kind == "features" else smallest_unsigned(self.vocabulary)

    @property
    def target(self) -> bool:
        """True if 4M predicts it; the others are inputs only."""
        return self.vocabulary > 0


def modality_id(name: str) -> int:
    """4M's number of a stream, by which its models know it: SHA-256 of the name as an integer, modulo 2^15."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % (1 << 15)


_VQ = "ViT-B VQ-VAE"
_DIVAE = "ViT-B VQ-VAE, UNet diffusion decoder"


def _grid(kind: str, size: int, patch: int, vocabulary: int, source: str, tokenizer: str) -> StreamKind:
    side = size // patch
    return StreamKind(f"{kind}@{size}", "grid", source, tokenizer, vocabulary, side * side, grid=(side, side))


def _vector(kind: str, source: str) -> StreamKind:
    return StreamKind(kind, "vector", source, "bottleneck MLP and Memcodes, cosine loss", 8192, 16)


def _words(name: str, tokens: int, source: str, serialisation: str, precision: str, module: str) -> StreamKind:
    return StreamKind(
        name,
        "words",
        source,
        "words of the text vocabulary",
        WORDPIECES,
        tokens,
        most=True,
        serialisation=serialisation,
        precision=precision,
        module=f"curate.exports.fourm.{module}",
    )


def _pixels(size: int) -> StreamKind:
    side = size // 16
    return StreamKind(
        f"rgb@{size}",
        "pixels",
        "the picture",
        "none: linear patches of 16 pixels",
        0,
        side * side,
        grid=(side, side),
        serialisation="the whole picture as JPEG",
    )


def _sized(size: int) -> tuple[StreamKind, ...]:
    return (
        _pixels(size),
        _grid("tok_rgb", size, 16, 16384, "the picture", _DIVAE),
        _grid("tok_depth", size, 16, 8192, "depth, Omnidata DPT-Hybrid", _DIVAE),
        _grid("tok_normal", size, 16, 8192, "surface normals, Omnidata DPT-Hybrid", _DIVAE),
        _grid("tok_semseg", size, 16, 4096, "COCO's 133 classes, Mask2Former Swin-B; index + 1", _VQ),
        _grid("tok_clip", size, 16, 8192, "CLIP ViT-B/16 features, 512 channels", _VQ),
    )


STREAMS = (
    *_sized(224),
    _grid("tok_canny_edge", 224, 16, 8192, "Canny edges of the picture", _DIVAE + ", that of tok_sam_edge"),
    _grid("tok_sam_edge", 224, 16, 8192, "Canny edges of SAM's masks", _DIVAE + ", that of tok_canny_edge"),
    _grid("tok_dinov2", 224, 14, 8192, "DINOv2 ViT-B/14 features, 768 channels", _VQ),
    _grid("tok_imagebind", 224, 14, 8192, "ImageBind ViT-H/14 features, 1280 channels", _VQ),
    _vector("tok_dinov2_global", "DINOv2 ViT-B/14 class token, 768 values"),
    _vector("tok_imagebind_global", "ImageBind ViT-H/14 class token, 1280 values"),
    _words(
        "sam_instance",
        290,
        "SAM ViT-H at 7 points of the crop; masks of 64 x 64 to 16 ids of 1024",
        "`point v0=y v1=x`, then `none` or `polygon v0=xmin v1=ymin v2=xmax v3=ymax` and 16 codes for each instance",
        "points and codes exact; boxes within 1 pixel at 224",
        "sam",
    ),
    _words(
        "human_poses",
        275,
        "SMPL bodies, HMR 2.0; the body pose (207 values) to 8 ids of 1024",
        "`human v0=x0 v1=y0 v2=x1 v3=y1`, then in any order `pose` and 8 codes, `global` and 9, `shape` and 10, "
        "`camera` and 3 values; no person: `none`",
        "codes exact; box 0.5/999; global 0.5/499.5 in [-1, 1], shape 0.5/166.5 in [-3, 3], camera 0.5/49.95 in "
        "[-1, 19]",
        "poses",
    ),
    _words(
        "det",
        256,
        "boxes, ViTDet ViT-H Cascade, score of 0.6 or more",
        "`v0=x0 v1=y0 v2=x1 v3=y1 name` for each box of the crop, by distance of (x0, y0) from the origin",
        "0.5/999 of a side; names exact; the score is not kept",
        "det",
    ),
    _words(
        "metadata",
        40,
        "figures of the whole picture, its labels and its caption",
        "`v1=<field> v0=<bin>` for each figure",
        "counts exact up to 999; sizes in steps of 32 pixels; real figures 1/49 of their range",
        "metadata",
    ),
    _words(
        "color_palette",
        23,
        "main colours of the whole picture, PyPalette",
        "`v1=<n>`, then `v0=r v0=g v0=b` for each of 1 to 7 colours",
        "exact",
        "palette",
    ),
    StreamKind(
        "caption",
        "text",
        "the text that came with the picture",
        "WordPiece",
        WORDPIECES,
        256,
        most=True,
        serialisation="the text; for ml-4m's reader, special words that it spells are escaped by a backslash",
        precision="escape exact; WordPiece drops case, accents and spacing",
        module="curate.exports.fourm.caption",
    ),
    StreamKind(
        "t5_caption",
        "features",
        "the caption, T5-XXL encoder",
        "none",
        0,
        77,
        most=True,
        features=4096,
        serialisation="float16 vectors and a mask of those that are valid",
    ),
    *_sized(448),
)

BY_NAME = {stream.name: stream for stream in STREAMS}
