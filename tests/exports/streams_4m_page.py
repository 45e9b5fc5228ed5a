"""`docs/streams-4m.md`, made of the tables in code: `python tests/exports/streams_4m_page.py > docs/streams-4m.md`."""

from __future__ import annotations

from collections.abc import Sequence

from streams_4m import STREAMS, StreamKind, modality_id

from curate.exports.fourm.metadata import FIELDS, Field
from curate.exports.fourm.words import FIRST_WORD, KEYWORDS, OBJECTS, SHARED, VOCABULARY

_HEAD = """# The streams of 4M-21

Made from `tests/exports/streams_4m.py` by `python tests/exports/streams_4m_page.py`; change it there.

Sources: 4M-21 (arXiv 2406.09406, appendix D) and the code apple/ml-4m at cda590f. Where paper and code differ, the
code is followed. The number is what 4M's models know a stream by: SHA-256 of its name modulo 2^15, `@` and size
included. Values are stored in the smallest unsigned type that holds the vocabulary; 4M's own files have int16.
"""

_WRITTEN = """
## Written in words

Each has a module with `write` and `parse`, inverse to each other within the precision stated. A number is a word:
`v0=0` to `v3=999`. A codebook id is `v0=i` below 512 and `v1=i-512` from there on.
"""

_MADE = """
## What makes them here

A label is a field that a signal gives (`curate signals`), which rules can use too. `curate tokenizers label SIGNAL`
makes the folder of a stream of labels, `features` that of a stream of features, `import` brings 4M's own tokenizers.
A map is drawn as an image for a tokenizer of images, and written as it is for 4M's own tokenizers of edges, depth and
classes (`--tokenizer` a folder of `import 4m-vq`): edges 1 and -1, depth standardised and growing away from the camera,
classes plus 1. A signal of your own is a `curate.signals.labels.LabelSignal`, named by `package.module:Class`.
"""
_MADE_BY = (
    ("`tok_rgb`", "an image tokenizer, 4M's by `import 4m-vq`"),
    ("`tok_canny_edge`", "signal `edges`"),
    (
        "`tok_sam_edge`",
        "a signal of your own that gives the edges of SAM's masks, of the kind `edges`",
    ),
    ("`tok_depth`", "signal `depth`"),
    ("`tok_semseg`", "signal `classes`, of transformers or DeepLab"),
    ("`det`", "signals `boxes` or `faces`"),
    (
        "`tok_normal`",
        "a signal of your own, of the kind `normals`: transformers has no such model class",
    ),
    ("`metadata`, `color_palette`", "signals `metadata` and `palette`, of the whole picture; both are in the zoo"),
    (
        "`sam_instance`",
        "signal `masks` (SAM, SAM-HQ, SAM 2) with `--parts mask-vq-1k`; it sees the crop, where 4M cuts "
        "outlines of the whole picture, and keeps holes",
    ),
    (
        "`human_poses`",
        "a signal of your own of the kind `bodies`, since HMR 2.0 is not in transformers, with `--parts` a folder of "
        "`import 4m-memcodes`",
    ),
    (
        "`tok_clip`, `tok_dinov2`, `tok_imagebind`",
        "`features` with a codebook that is fitted here; 4M's codes of a map of features by `4m-vq`",
    ),
    (
        "`tok_dinov2_global`, `tok_imagebind_global`",
        "`import 4m-memcodes-pictures` and its encoder; ImageBind is in none of the libraries, so its encoder is "
        "one of your own, `package.module:Class`",
    ),
    ("`t5_caption`", "`curate.tokenizers.codecs.t5`"),
)

_DIFFERENCES = """
## Where this is not as in ml-4m

* A caption cannot spell a special word: neither tokenizer here knows special words in text, and what ml-4m's reader
  is to read has them escaped (`[EOS]` becomes `[\\EOS]`, `v0=12` becomes `v0\\=12`; reading takes one backslash away).
* Betas beyond -3 and 3 are clipped. There they become numbers above 999, which are no words.
* People in a flipped crop are mirrored. There only the cut of their boxes is followed.
* Names of objects are COCO's 80 and no others.
* A negative count is an error. There it becomes 0.
* A point that is asked twice is written twice. There it is written once.
* Crops come from the sample's id alone (`curate.media.crops.crop_settings`), so streams that are tokenised side by
  side agree. There whichever stream comes first draws them and leaves a file.
* Nothing is drawn at random here: the order of fields, sections and points, the number of colours, and the cut to the
  budget are the view's. Metadata and palette are of the whole picture; ids of grids and vectors are
  of the crop; boxes, people and instances of the centre square, which is crop 0, and a recipe with more crops refuses
  them.

The paper writes a brightness of 120 as `v1=10 v0=120`; the code, and this, as `v1=10 v0=23`.
"""


def markdown() -> str:
    """The page."""
    parts = [_HEAD, _rows(_STREAM_HEAD, [_stream(s) for s in STREAMS]), _WRITTEN]
    parts += [_rows(_WRITTEN_HEAD, [_written(s) for s in STREAMS if s.module]), "\n### Figures of `metadata`\n"]
    parts += [_rows(_FIELD_HEAD, [_field(f) for f in FIELDS]), _vocabulary()]
    parts += [_MADE, _rows(("stream", "made by"), _MADE_BY), _DIFFERENCES]
    return "\n".join(parts)


_STREAM_HEAD = (
    "stream",
    "number",
    "kind",
    "from",
    "tokenizer",
    "vocabulary",
    "tokens",
    "dtype",
    "4M predicts it",
    "written as",
)
_WRITTEN_HEAD = ("stream", "module", "serialisation", "what a round trip keeps")
_FIELD_HEAD = ("v1", "figure", "bin")


def _stream(s: StreamKind) -> list[str]:
    tokens = f"up to {s.tokens}" if s.most else str(s.tokens)
    if s.grid:
        tokens += f" = {s.grid[0]} x {s.grid[1]}"
    if s.features:
        tokens += f", of {s.features} values"
    vocabulary = str(s.vocabulary) if s.vocabulary else "none"
    return [
        f"`{s.name}`",
        str(modality_id(s.name)),
        s.kind,
        s.source,
        s.tokenizer,
        vocabulary,
        tokens,
        s.dtype,
        "yes" if s.target else "no, input only",
        "words, see below" if s.module else s.serialisation,
    ]


def _written(s: StreamKind) -> list[str]:
    return [f"`{s.name}`", f"`{s.module}`", s.serialisation, s.precision]


def _field(f: Field) -> list[str]:
    if f.kind == "real":
        how = (
            f"0 to {f.bins - 1}: `int({f.bins - 1} * (value - low) / (high - low))`, clipped to {f.low:g} .. {f.high:g}"
        )
    elif f.kind == "edges":
        how = f"how many of {', '.join(f'{edge:g}' for edge in f.edges)} the value is not below"
    else:
        how = "pixels // 32, at most 999" if f.kind == "size" else "the number, at most 999"
    return [str(f.number), f"`{f.name}`", how]


def _vocabulary() -> str:
    first_object = len(SHARED) - len(OBJECTS)
    rows = [
        ["0 to 3", "`[PAD]` `[UNK]` `[SOS]` `[EOS]`"],
        [f"4 to {FIRST_WORD - 1}", f"`[S_0]` to `[S_{FIRST_WORD - 5}]`"],
        *(
            [f"{VOCABULARY.index(f'v{a}=0')} to {VOCABULARY.index(f'v{a}=999')}", f"`v{a}=0` to `v{a}=999`"]
            for a in range(4)
        ),
        [f"{first_object} to {len(SHARED) - 1}", f"the {len(OBJECTS)} object names of COCO, by alphabet"],
        [f"{len(SHARED)} to {len(VOCABULARY) - 1}", " ".join(f"`{word}`" for word in KEYWORDS)],
    ]
    head = f"""
## Vocabularies of words

`4m-wordpiece` (`fourm/wordpiece.py`) is 4M's own file of 30000 word-pieces. `4m-words` (`fourm/words.py`) is closed:
{len(VOCABULARY)} words, all that the streams written in words need. Up to {len(SHARED) - 1} both have the same ids;
the keywords from {len(SHARED)} on are placed by us, in 4M each is a word-piece further up.
"""
    return head + "\n" + _rows(("ids of `4m-words`", "words"), rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
