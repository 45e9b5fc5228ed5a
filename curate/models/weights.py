"""Weights of published models: a local path or a hub id, read without running anything that they hold (law 11)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from curate.schema.errors import CurateError, first_line

SAFE = (".safetensors",)


def locate(source: str, patterns: Sequence[str]) -> list[Path]:
    """Files of a local file, a local folder, or a repository of the Hugging Face hub (`owner/name`).

    Args:
        patterns: globs of file names, best first; each file that any of them matches is given, in this order.

    Raises:
        CurateError: nothing there matches, or the repository cannot be fetched.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    root = path if path.is_dir() else _from_hub(source, patterns)
    found = [p for pattern in patterns for p in sorted(root.rglob(pattern)) if p.is_file()]
    if not found:
        raise CurateError(f"no weights in {source}", f"looked for {', '.join(patterns)}")
    return list(dict.fromkeys(found))


def _from_hub(source: str, patterns: Sequence[str]) -> Path:
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CurateError(f"{source} does not exist", "give a file, a folder, or a hub id as owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=[*patterns, "*.json", "*.yaml"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CurateError(
            f"{source} is no local path, and cannot be fetched from the hub: {first_line(error)}",
            "check the name and the network, or fetch it elsewhere and give its folder",
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, as they are stored.

    safetensors is read as such. Of PyTorch's own files only tensors and plain containers are let in
    (`weights_only`); one that holds anything else is refused, not run. `state_dict` and `model` are looked into.

    Raises:
        CurateError: the file cannot be read so.
    """
    if path.suffix in SAFE:
        try:
            return dict(load_safetensors(path.read_bytes()))
        except Exception as error:  # the library raises its own class, not exported
            raise CurateError(f"{path.name} is not a safetensors file: {error}") from error
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        said = first_line(error)
        raise CurateError(
            f"{path.name} holds more than tensors, and is not run: {said}",
            "convert it to safetensors where you trust it, and give that file",
        ) from error
    for key in ("ema", "state_dict", "model"):  # LlamaGen's own loader takes the moving average first
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
            break
    if not isinstance(held, dict) or not all(isinstance(k, str) for k in held):
        raise CurateError(f"{path.name} holds no named tensors")
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def read_part(
    source: str, anchor: str, prefixes: Sequence[str], patterns: Sequence[str]
) -> tuple[Path, dict[str, Tensor]]:
    """The tensors under one prefix of a checkpoint, the prefix cut off; of safetensors only those are read.

    Of a checkpoint in several files with a `*.safetensors.index.json`, only the files that hold them are opened, and
    of a hub repository only those are fetched.

    Args:
        anchor: a key that the part must hold; the first prefix under which it is found is taken.
        prefixes: where the part may lie, best first; "" is the top.
        patterns: file names to look for where there is no index, best first.

    Returns:
        The file that holds `anchor`, and the tensors by name without the prefix.

    Raises:
        CurateError: no file holds `anchor` under any prefix.
    """
    where: dict[str, Path] = {}
    index = _index(source)
    if index is not None:
        names: dict[str, str] = read_config(index).get("weight_map", {})
        prefix = _prefix(names, anchor, prefixes, source)
        wanted = {key: name for key, name in names.items() if key.startswith(prefix)}
        files = {path.name: path for path in locate(source, sorted(set(wanted.values())))}
        if lacking := sorted(set(wanted.values()) - set(files)):
            raise CurateError(f"{source} lacks {lacking[0]}, which its index names", "fetch the checkpoint again")
        where = {key: files[name] for key, name in wanted.items()}
    else:
        for path in locate(source, patterns):  # safetensors come first; a pickle beside them is then left alone
            where = dict.fromkeys(_keys(path), path)
            if any(p + anchor in where for p in prefixes):
                break
        prefix = _prefix(where, anchor, prefixes, source)
        where = {key: path for key, path in where.items() if key.startswith(prefix)}
    found: dict[str, Tensor] = {}
    for path in sorted(set(where.values())):
        found |= _tensors(path, [key for key, of in where.items() if of == path])
    return where[prefix + anchor], {key[len(prefix) :]: value for key, value in found.items()}


def _index(source: str) -> Path | None:
    """The index of a checkpoint in several files; a source that cannot be had at all is said by the next look."""
    if Path(source).expanduser().is_file():
        return None
    try:
        return min(locate(source, ["*.safetensors.index.json"]), key=lambda path: len(path.parts))
    except CurateError:
        return None


def _prefix(keys: Mapping[str, Any], anchor: str, prefixes: Sequence[str], source: str) -> str:
    for prefix in prefixes:
        if prefix + anchor in keys:
            return prefix
    tried = ", ".join(prefix + anchor for prefix in prefixes)
    raise CurateError(f"{source} is no such checkpoint: it lacks {tried}", "is it this architecture?")


def _keys(path: Path) -> list[str]:
    if path.suffix not in SAFE:
        return list(read_state(path))
    with _opened(path) as file:
        return list(file.keys())


def _tensors(path: Path, keys: Sequence[str]) -> dict[str, Tensor]:
    if path.suffix not in SAFE:
        state = read_state(path)
        return {key: state[key] for key in keys}
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in keys}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CurateError(f"{path.name} is damaged, or does not hold what its index says: {error}") from error


def required(state: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    """A tensor that every checkpoint of the architecture has; CurateError that names the key where it is missing."""
    if key not in state:
        raise CurateError(f"the weights {path.name} do not fit: {key} is missing", "is it this architecture?")
    return state[key]


def sizes_of(state: Mapping[str, Tensor], key: str, ndim: int, path: Path) -> list[int]:
    """The shape of such a tensor; CurateError that names the key where it is missing or has not `ndim` dimensions."""
    shape = list(required(state, key, path).shape)
    if len(shape) != ndim:
        raise CurateError(
            f"the weights {path.name} do not fit: {key} has shape {shape}, not of {ndim} dimensions",
            "is it this architecture?",
        )
    return shape


def infer_depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """The number of numbered modules: keys `prefix` + number + `.` + anything."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def moving_averages(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moving averages of a Lightning checkpoint in place of the weights that were averaged.

    Latent diffusion's `LitEma`, and those who took it over, keep the average of `a.b.weight` as
    `model_ema.abweight`, and evaluate with these.
    """
    own = {key: value for key, value in state.items() if not key.startswith(("model_ema.", "loss."))}
    return {key: state.get(f"model_ema.{key.replace('.', '')}", value) for key, value in own.items()}


def rename_state(net: nn.Module, published: Callable[[str], str]) -> None:
    """Lets a library's network read and write its state dict under the names that a publisher gave its tensors.

    Args:
        published: the network's own key to the publisher's; one to one.
    """
    names = {key: published(key) for key in net.state_dict()}

    def to_published(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        state.update({prefix + theirs: state.pop(prefix + own) for own, theirs in names.items()})

    def to_own(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        held = {own: theirs for own, theirs in names.items() if prefix + theirs in state}
        state.update({prefix + own: state.pop(prefix + theirs) for own, theirs in held.items()})

    net.register_state_dict_post_hook(to_published)  # type: ignore[no-untyped-call]
    net.register_load_state_dict_pre_hook(to_own)  # type: ignore[no-untyped-call]


def load_state_strict(net: nn.Module, state: Mapping[str, Tensor], name: str, ignore: Sequence[str] = ()) -> None:
    """Load `state` into `net`, every key and shape of it.

    Args:
        name: of the weights, for messages.
        ignore: beginnings of keys that the file may hold and the net has not (losses, discriminators).

    Raises:
        CurateError: a key is missing or left over, or a shape differs; it says which.
    """
    own = net.state_dict()
    given = {k: v for k, v in state.items() if k in own or not k.startswith(tuple(ignore))}
    wrong = [f"{k} is missing" for k in own if k not in given]
    wrong += [f"{k} is not known" for k in given if k not in own]
    wrong += [
        f"{k} has shape {list(given[k].shape)}, not {list(own[k].shape)}"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CurateError(f"the weights {name} do not fit: {'; '.join(wrong[:5])}{more}", "is it this architecture?")
    net.load_state_dict(given)


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json`; CurateError where it is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CurateError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CurateError(f"{path} is not a JSON object")
    return found


def read_beside(weights: Path, name: str = "config.json") -> dict[str, Any]:
    """The JSON file of that name beside a weights file; {} where there is none."""
    beside = weights.with_name(name)
    return read_config(beside) if beside.is_file() else {}
