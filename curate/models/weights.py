"""Weights of published tokenizers: a local path or a hub id, read without running anything that they hold (law 11)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
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
