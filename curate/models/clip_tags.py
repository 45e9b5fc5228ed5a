"""open_clip's tables of weights, read without importing it: that takes seconds, since it imports torch and timm."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from typing import Any

from curate.models.package_files import package_file
from curate.models.torchvision_shim import ensure_torchvision


def weights_tags(model: str) -> dict[str, dict[str, Any]]:
    """By tag, what open_clip says of the weights of a model: `hf_hub`, `mean`, `std`, `quick_gelu` where it is so, ...

    Empty where it knows no weights of such a model.
    """
    tables = _tables()
    return {tag: tables["get_pretrained_cfg"](model, tag) for tag in tables["list_pretrained_tags_by_model"](model)}


@cache
def _tables() -> Mapping[str, Any]:
    """The names that the module `open_clip.pretrained` defines."""
    try:
        return statements()
    except Exception:  # another version may write its tables otherwise, and an import is right in any case
        ensure_torchvision()
        import open_clip.pretrained

        names: dict[str, Any] = vars(open_clip.pretrained)
        return names


def statements() -> dict[str, Any]:
    """What open_clip's statements on weights define, run without the package: without its `try` around imports of torch
    and the hub, and with its constants in the same names."""
    names: dict[str, Any] = {"__name__": "open_clip.pretrained"}
    for file in ("constants.py", "pretrained.py"):
        path = package_file("open_clip", file, "open_clip_torch")
        tree = ast.parse(path.read_bytes(), str(path))
        tree.body = [one for one in tree.body if not isinstance(one, ast.Try) and not getattr(one, "level", 0)]
        exec(compile(tree, str(path), "exec", dont_inherit=True), names)
    return names
