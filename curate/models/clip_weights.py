"""Where CLIP weights come from: a tag of open_clip, a hub id or a local file; safetensors only (law 11)."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.models.hub import check_hub
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.nearest import meant

HUB = "hf-hub:"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FIRST = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class Weights:
    """A safetensors file, the pre-processing that goes with it (None: open_clip's default), and its activation."""

    path: Path
    preprocess: dict[str, Any] | None
    quick_gelu: bool = False


def check_weights(model: str, pretrained: str) -> None:
    """Refuse, before anything runs, weights that cannot be right. Touches no network, and imports no open_clip.

    Raises:
        CurateError: a local path that is missing or holds no safetensors, an empty hub id, an unknown tag.
    """
    if pretrained.startswith(HUB):
        if pretrained.removeprefix(HUB).count("/") != 1:
            raise CurateError(f"`{pretrained}` is no hub id", "write hf-hub:ORGANISATION/NAME")
    elif _is_local(pretrained):
        _local(Path(pretrained).expanduser())
    elif pretrained not in (tags := tag_names(model)):
        raise CurateError(
            f"`{pretrained}` is no weights tag of {model}{meant(pretrained, tags)}",
            f"tags of {model}: {', '.join(tags) or 'none'}; or hf-hub:ORG/NAME, or a local .safetensors file",
        )


def fetch_weights(model: str, pretrained: str) -> Weights:
    """The weights as a local file, downloaded to the hub's own cache where need be.

    Raises:
        CurateError: they are missing, pickled, or cannot be downloaded.
    """
    if not pretrained.startswith(HUB) and _is_local(pretrained):
        path = _local(Path(pretrained).expanduser())
        beside = path.parent / "open_clip_config.json"
        config = json.loads(beside.read_text("utf-8")) if beside.exists() else {}
        return Weights(path, config.get("preprocess_cfg"))
    repository, names = _on_hub(model, pretrained)
    if pretrained.startswith(HUB):
        config = json.loads(_download(repository, ["open_clip_config.json"]).read_text("utf-8"))
        return Weights(_download(repository, names), config.get("preprocess_cfg"))
    tag = _tags(model)[pretrained]
    preprocess = {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    return Weights(_download(repository, names), preprocess, bool(tag.get("quick_gelu", False)))


def look_for_weights(model: str, pretrained: str) -> str | None:
    """None where the weights are on this machine; where they will be fetched from the hub, a sentence that says so.

    Raises:
        CurateError: they are not here, and cannot be had from the hub.
    """
    if not pretrained.startswith(HUB) and _is_local(pretrained):
        _local(Path(pretrained).expanduser())
        return None
    return check_hub(*_on_hub(model, pretrained))


def _on_hub(model: str, pretrained: str) -> tuple[str, list[str]]:
    """The repository of weights that are no local file, and their file's names, best first."""
    if pretrained.startswith(HUB):
        return pretrained.removeprefix(HUB), list(_FIRST[:2])
    repository, _, filename = str(_tags(model)[pretrained]["hf_hub"]).rpartition("/")
    return repository, [str(Path(filename).with_suffix(".safetensors"))] if filename else list(_FIRST[:2])


def weights_name(pretrained: str) -> str:
    """What tells these weights from others, without loading them: a local file's BLAKE3, else the tag or hub id."""
    if pretrained.startswith(HUB) or not _is_local(pretrained):
        return pretrained
    from blake3 import blake3

    return str(blake3().update_mmap(_local(Path(pretrained).expanduser())).hexdigest())


def _is_local(pretrained: str) -> bool:
    path = Path(pretrained).expanduser()
    return len(path.parts) > 1 or path.exists() or path.suffix in (".safetensors", *_PICKLED)


def _local(path: Path) -> Path:
    """The safetensors file that a path means: itself, or the one of a folder."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"), key=lambda p: (p.name not in _FIRST, p.name))
        if not files:
            raise CurateError(f"no .safetensors file in the folder {path}", _CONVERT)
        return files[0]
    if path.suffix in _PICKLED:
        raise CurateError(f"{path.name} holds a pickle, which runs code when it is opened: refused", _CONVERT)
    if path.suffix != ".safetensors":
        raise CurateError(f"{path} is neither a .safetensors file nor a folder with one", _CONVERT)
    if not path.is_file():
        raise CurateError(f"the weights file {path} does not exist")
    return path


_CONVERT = "save the state dict of a model that you trust with safetensors.torch.save_file(state_dict, PATH)"


def tag_names(model: str) -> list[str]:
    """The tags of a model, read off open_clip's tables as they are written: to import it takes seconds, as of torch."""
    spec = find_spec("open_clip")
    [folder] = (spec and spec.submodule_search_locations) or [""]
    tree = ast.parse(Path(folder, "pretrained.py").read_text("utf-8"))
    tables = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    models = tables.get("_PRETRAINED")
    if not isinstance(models, ast.Dict):
        return list(_tags(model))  # another version, that says them otherwise
    plain = model.removesuffix(_QUICK)
    for name, said in zip(models.keys, models.values, strict=True):
        table = tables.get(said.id) if isinstance(said, ast.Name) else said
        if isinstance(name, ast.Constant) and name.value in (model, plain) and isinstance(table, ast.Call):
            every = {word.arg: word.value for word in table.keywords if word.arg}
            if name.value == model:
                return list(every)
            return [tag for tag, config in every.items() if "quick_gelu=True" in ast.unparse(config)]
    return []


_QUICK = "-quickgelu"
"""What open_clip calls the models whose weights were trained with another activation."""


def _tags(model: str) -> dict[str, dict[str, Any]]:
    ensure_torchvision()
    import open_clip

    return {tag: open_clip.get_pretrained_cfg(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)}


def _download(repository: str, names: list[str]) -> Path:
    """The first of some files that a hub repository has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    missing: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as exc:  # a kind of EntryNotFoundError: neither in the cache nor reachable
            raise _unreachable(repository, exc) from exc
        except EntryNotFoundError as exc:
            missing = exc
        except (OSError, ValueError) as exc:  # HTTP errors are OSErrors; a malformed id is a ValueError
            raise _unreachable(repository, exc) from exc
    raise CurateError(f"the hub repository {repository} has none of {', '.join(names)}", _CONVERT) from missing


def _unreachable(repository: str, exc: Exception) -> CurateError:
    return CurateError(
        f"{repository} could not be had from the Hugging Face hub: {' '.join(str(exc).split())[:300]}",
        "check the id and the connection, or name a local .safetensors file",
    )
