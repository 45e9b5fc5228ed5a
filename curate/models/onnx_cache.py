"""Models exported to ONNX once a machine: PyTorch is slower on a CPU, and seconds slower to import."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curate.models.package_files import package_version
from curate.storage.copies import CACHE_HINT, cache_folder
from curate.storage.place import atomic_write


def exporter_version() -> str:
    """What decides the exported graph beside the weights; part of the file's name and of the signal's version."""
    return f"torch{package_version('torch').split('+')[0]}-onnxscript{package_version('onnxscript')}"


def cached(name: str, digest: str, make: Callable[[Path], None], suffix: str = ".onnx") -> Path:
    """The cached file of a model, made first where it is not there.

    Safe against a crash and against other processes that make the same file: each writes beside its place under a
    name of its own, then renames it (law 7). Who comes last replaces a file with an equal one.

    Args:
        name: e.g. `efficientnet-lite0`.
        digest: BLAKE3 of the weights, hex; with the exporter's version it names the file, so a file is never stale.
        make: writes the file to the path that it gets.
        suffix: of the file's name.

    Raises:
        CurateError: the folder cannot be written.
    """
    path = cache_folder() / "models" / f"{name}-{digest[:16]}-{exporter_version()}{suffix}"
    if path.exists():
        return path
    with atomic_write(path, CACHE_HINT) as unfinished:
        make(unfinished)
    return path


def export_onnx(
    module: Any, example: Any, path: Path, input_name: str, outputs: list[str], dynamic: dict[int, Any] | None = None
) -> None:
    """`torch.onnx.export` of a module with one input into one file, quietly.

    Args:
        module: a `torch.nn.Module` in eval mode.
        example: its input.
        dynamic: axis of the input to `torch.export.Dim`, where its length varies.
    """
    import torch

    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own deprecations inside its exporter
            torch.onnx.export(
                module,
                (example,),
                str(path),
                input_names=[input_name],
                output_names=outputs,
                dynamic_shapes=(dynamic,) if dynamic else None,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
