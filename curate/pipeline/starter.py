"""The recipe that somebody begins with: short, commented, of what is in the package, for the kinds that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curate.pipeline.looked import Found, Looked, look, name_of
from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.schema.recipe_file import RecipeFile
from curate.schema.text import escape_controls
from curate.storage import Store
from curate.storage.place import atomic_write

SHOWN = 100
"""Characters of what data say of themselves in a comment."""

COMMENTS_FROM = 44
"""Column of the comments in the recipe's head."""


@dataclass(frozen=True)
class Starter:
    """A recipe to begin with.

    Attributes:
        name: of the recipe.
        text: the YAML file.
        found: what it is made for.
        signals, streams: names, in order.
    """

    name: str
    text: str
    found: Found
    signals: Sequence[str]
    streams: Sequence[str]


def starter_of(paths: Sequence[str], path: Path, build: Store) -> Starter:
    """The recipe for what lies at some paths.

    Args:
        paths: as `look` takes them.
        path: where the recipe is to be.
        build: takes what listing a source writes.

    Raises:
        CurateError: nothing that can be read lies there, or nothing that the package has a tokenizer for.
    """
    found = look(paths, path.parent, build)
    kinds: Counter[str] = Counter()
    for source in found.sources:
        kinds.update(source.kinds)
    # addresses without an ending are mostly those of images
    has_images, has_video, has_audio = kinds["image"] + kinds["unknown"] > 0, kinds["video"] > 0, kinds["audio"] > 0
    if not (has_images or has_video or has_audio):
        raise CurateError(
            f"{paths[0]} holds arrays alone, and the package has no tokenizer of arrays",
            "examples/raster_tokenizer.py and its recipe show one of your own",
        )
    is_seen, is_heard, is_said = has_images or has_video, has_video or has_audio, any(s.texts for s in found.sources)
    signals = [
        *(["brightness", "sharpness"] * is_seen),
        *(["motion"] * has_video),
        *(["loudness"] * is_heard),
        *(["tiny_image"] * is_seen),
    ]
    streams: list[dict[str, Any]] = []
    if is_seen:
        of_video = {"fps": 1, "max_frames": 8} if has_video else {}
        streams.append({"name": "tok_rgb@256", "tokenizer": "image-fsq-64k", **of_video})
    if is_heard:
        streams.append({"name": "tok_audio@16k", "tokenizer": "audio-rvq-4kbps"})
    if is_said:
        streams.append({"name": "caption", "tokenizer": "text-bpe-8k"})
    name = name_of(path.stem)
    lines = [
        *_head(paths, path),
        f"name: {_yaml(name)}",
        "",
        *_sources(found.sources),
        "",
        *(["cut: {min_seconds: 1, max_seconds: 10} # of a clip, and of a segment of audio", ""] * is_heard),
        "annotate: # what is measured; it drops nothing. `curate signals` lists what there is",
        *(f"  - name: {signal}" for signal in signals),
        "",
        *_decide(is_seen, has_audio),
        "",
        "tokenize: # what becomes ids, a column of the shards each. `curate tokenizers list` lists what there is",
        "  streams:",
        *(f"    - {_yaml(stream)}" for stream in streams),
    ]
    return Starter(name, "\n".join(lines) + "\n", found, signals, [stream["name"] for stream in streams])


def write_starter(starter: Starter, path: Path) -> None:
    """Write the recipe where nothing is.

    Raises:
        CurateError: a file is there, or it cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise CurateError(f"{path} is there already: nothing was written", "give another file with --out")
    with atomic_write(path, "give another file with --out") as temporary:
        temporary.write_text(starter.text, encoding="utf-8")


def reads_the_same(path: Path, starter: Starter) -> bool:
    """True if the recipe at a path has the sources that a starter has, whatever else was changed in it.

    Raises:
        CurateError: it is no recipe.
    """
    there = {(source.kind, source.path) for source in RecipeFile.load(path).recipe.sources}
    return there == {(one.spec.kind, one.spec.path) for one in starter.found.sources}


def said_of(source: Looked) -> str:
    """What was found of a source, in a phrase: `25 records: 20 image, 5 video; 12 with text; licence: CC0-1.0`."""
    more = "" if source.is_all else " looked at, and there are more"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in source.kinds.items())
    kinds = kinds.replace("unknown", "that do not say what they are, taken as image")
    parts = [f"{source.records:,} record{'s' * (source.records != 1)}{more}: {kinds}"]
    if source.broken:
        parts.append(f"{source.broken:,} that cannot be read")
    if source.texts:
        parts.append(f"{source.texts:,} with text")
    if source.licences:
        parts.append(f"licence: {', '.join(source.licences[:3])}{', ...' * (len(source.licences) > 3)}")
    return _plain("; ".join(parts))


def _head(paths: Sequence[str], path: Path) -> Iterator[str]:
    run = f"curate run {path.name}"
    yield _plain(
        f"# For {', '.join(paths[:3])}{', ...' * (len(paths) > 3)}, by `curate init`. Change whatever you like."
    )
    for command, says in (
        (f"{run} --dry-run", "checks it"),
        (run, "makes the build; again after a crash: it goes on"),
        ("curate schema recipe", "every key, with its meaning"),
    ):
        yield f"#   {command:<{COMMENTS_FROM}} {says}"


def _sources(sources: Sequence[Looked]) -> Iterator[str]:
    yield "sources:"
    for source in sources:
        spec = source.spec
        said: dict[str, Any] = {"kind": spec.kind, "name": spec.name, "path": spec.path}
        if isinstance(spec, TableSource) and source.columns is not None:
            said["uri"] = spec.uri
            if spec.text is not None or "text" in source.columns.others:
                said["text"] = spec.text
            if spec.licence_column is not None:
                said["licence_column"] = spec.licence_column
        yield f"  # {said_of(source)}"
        for i, (key, value) in enumerate(said.items()):
            yield f"  {'  ' if i else '- '}{key}: {_yaml(value)}"
        if not source.licences:
            yield "    # licence: CC0-1.0 # of records that state none"
        if source.private:
            yield "    # fetch: {allow_private: true} # else addresses of your own network are refused"
        if source.columns is not None and source.columns.others:
            others = ", ".join(f"meta.{name}" for name in source.columns.others)
            yield "    # " + _plain(f"rules on words may also read {others}")


def _decide(is_seen: bool, has_audio: bool) -> Iterator[str]:
    yield "decide:"
    yield "  rules: # the first that a sample breaks drops it. `curate run ... --until decide` says what they do"
    if is_seen:
        yield "    - {field: brightness, min: 10, kinds: [image, video]} # of 255: all but black"
        yield "    - {field: sharpness, min: 10, kinds: [image, video]} # nothing but blur"
    if has_audio:
        yield "    - {field: loudness, min: -60, kinds: [audio]} # LUFS: silence"
    if is_seen:
        yield "  near_duplicates: # copies that were scaled or encoded again"
        yield "    - {embedding: tiny_image, threshold: 0.98}"


def _yaml(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text.removesuffix("\n...\n").strip()


def _plain(text: str) -> str:
    """A text from outside, on one line that ends."""
    safe = escape_controls(" ".join(text.split()))
    return safe if len(safe) <= 2 * SHOWN else f"{safe[: 2 * SHOWN]}..."
