"""How the wanted part of a large checkpoint is read, and kept as a safetensors file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from curate.models.weights import SAFE, locate, read_config, read_state
from curate.schema.errors import CurateError
from curate.tokenizers.folders import header, words_of

TRAINED_ON = "not told by the weights; see the publisher's model card"
LICENCE = "as its publisher states"


def read_part(
    source: str, anchor: str, prefixes: Sequence[str], patterns: Sequence[str]
) -> tuple[str, dict[str, Tensor]]:
    """The tensors under one prefix of a checkpoint, the prefix cut off; of safetensors only those are read.

    Of a checkpoint in several files with a `*.safetensors.index.json`, only the files that hold them are opened, and
    of a hub repository only those are fetched.

    Args:
        anchor: a key that the part must hold; the first prefix under which it is found is taken.
        prefixes: where the part may lie, best first; "" is the top.
        patterns: file names to look for where there is no index, best first.

    Returns:
        The prefix, and the tensors by name without it.

    Raises:
        CurateError: no file holds `anchor` under any prefix.
    """
    index = _index(source)
    if index is not None:
        where: dict[str, str] = read_config(index).get("weight_map", {})
        prefix = _prefix(where, anchor, prefixes, source)
        wanted = {key: name for key, name in where.items() if key.startswith(prefix)}
        files = {path.name: path for path in locate(source, sorted(set(wanted.values())))}
        found: dict[str, Tensor] = {}
        for name in sorted(set(wanted.values())):
            if name not in files:
                raise CurateError(f"{source} lacks {name}, which its index names", "fetch the checkpoint again")
            found |= _tensors(files[name], [key for key, of in wanted.items() if of == name])
    else:
        holders: dict[Path, list[str]] = {}
        for path in locate(source, patterns):  # safetensors come first; a pickle beside them is then left alone
            holders[path] = _keys(path)
            if any(p + anchor in holders[path] for p in prefixes):
                break
        prefix = _prefix([key for keys in holders.values() for key in keys], anchor, prefixes, source)
        path = next(path for path, keys in holders.items() if prefix + anchor in keys)
        found = _tensors(path, [key for key in holders[path] if key.startswith(prefix)])
    return prefix, {key[len(prefix) :]: value for key, value in found.items()}


def read_json(source: str, name: str) -> dict[str, Any]:
    """The JSON file of that name in the source, or beside it where it is a file; {} where there is none."""
    path = Path(source).expanduser()
    if path.is_file():
        beside = path.with_name(name)
        return read_config(beside) if beside.is_file() else {}
    try:
        return read_config(_topmost(locate(source, [name])))
    except CurateError:
        if path.is_dir() and any(path.rglob(name)):
            raise
        return {}


def normalisation(processor: Mapping[str, Any], mean: float, std: float) -> tuple[list[float], list[float]]:
    """Mean and std on values in [0, 1] of a `preprocessor_config.json`; the defaults where it says none.

    Its own are applied after a multiplication of bytes with `rescale_factor`, which need not be 1/255.
    """
    scale = float(processor.get("rescale_factor", 1 / 255)) * 255
    means, stds = processor.get("image_mean"), processor.get("image_std")
    if means is None or stds is None:
        return [mean] * 3, [std] * 3
    return [float(m) / scale for m in means], [float(s) / scale for s in stds]


def write_weights(tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> bytes:
    """A safetensors file: tensors, and `words` as JSON in its header, so that one digest covers both."""
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save_tensors(whole, metadata=header(words))


def open_weights(raw: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Words and tensors (floating ones as float32) of `write_weights`."""
    return words_of(raw), {name: as_float32(value) for name, value in load_tensors(raw).items()}


def as_float32(value: Tensor) -> Tensor:
    """Floating tensors as float32; counters as they are."""
    return value.float() if value.is_floating_point() else value


def _index(source: str) -> Path | None:
    """The index of a checkpoint in several files; a source that cannot be had at all is said by the next look."""
    if Path(source).expanduser().is_file():
        return None
    try:
        return _topmost(locate(source, ["*.safetensors.index.json"]))
    except CurateError:
        return None


def _topmost(paths: Sequence[Path]) -> Path:
    return min(paths, key=lambda path: len(path.parts))


def _prefix(keys: Mapping[str, Any] | Sequence[str], anchor: str, prefixes: Sequence[str], source: str) -> str:
    held = set(keys)
    for prefix in prefixes:
        if prefix + anchor in held:
            return prefix
    tried = ", ".join(prefix + anchor for prefix in prefixes)
    raise CurateError(f"{source} is no such checkpoint: it lacks {tried}", "is it this architecture?")


def _keys(path: Path) -> list[str]:
    if path.suffix not in SAFE:
        return list(read_state(path))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise CurateError(f"{path.name} is not a safetensors file: {error}") from error


def _tensors(path: Path, keys: Sequence[str]) -> dict[str, Tensor]:
    if path.suffix not in SAFE:
        state = read_state(path)
        return {key: state[key] for key in keys}
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in keys}
    except SafetensorError as error:
        raise CurateError(f"{path.name} does not hold what its index says: {error}") from error
